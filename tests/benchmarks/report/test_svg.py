from __future__ import annotations

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from dyninfer.benchmarks.report.svg import (
    Frame,
    circle,
    drawing,
    element,
    polyline,
    shortened,
    text,
    text_width,
)
from dyninfer.plain_text import plain


@given(st.text())
def test_whatever_text_holds_it_comes_out_as_text(content) -> None:
    root = ElementTree.fromstring(text(1, 2, content).render())
    assert len(root) == 0
    for shown, given_character in zip(root.text or "", plain(content), strict=True):
        assert shown in (given_character, "\N{REPLACEMENT CHARACTER}")
        assert shown == given_character or not given_character.isprintable()


@given(st.text())
def test_whatever_an_attribute_holds_it_stays_in_its_quotes(content) -> None:
    root = ElementTree.fromstring(element("g", data_name=content).render())
    assert set(root.attrib) == {"data-name"}
    assert len(root) == 0


def test_names_of_attributes_are_those_of_svg() -> None:
    rendered = element("g", class_="a", stroke_width=1.5, viewBox="0 0 1 1").render()
    assert rendered == '<g class="a" stroke-width="1.5" viewBox="0 0 1 1"></g>'


def test_coordinates_have_at_most_two_decimals_and_no_idle_zeros() -> None:
    assert polyline([(1 / 3, 2.0), (100, 0.5)], "line").render() == (
        '<polyline points="0.33,2 100,0.5" class="line"></polyline>'
    )


def test_a_drawing_names_and_describes_itself_for_a_screen_reader() -> None:
    frame = Frame(100, 50)
    root = ElementTree.fromstring(drawing(frame, "key", "a <title>", "what is seen").render())
    assert root.attrib["role"] == "img"
    named = {child.attrib["id"]: child.text for child in root}
    assert named[root.attrib["aria-labelledby"]] == "a <title>"
    assert named[root.attrib["aria-describedby"]] == "what is seen"
    assert root.attrib["viewBox"] == "0 0 100 50"


def test_a_dot_has_a_tooltip_only_where_one_is_given() -> None:
    assert "<title>" not in circle(0, 0, 1, "dot").render()
    assert "<title>5 &lt; 6</title>" in circle(0, 0, 1, "dot", "5 < 6").render()


@given(st.text(min_size=0, max_size=80), st.floats(30, 400))
def test_shortened_text_fits(content, width) -> None:
    short = shortened(content, width)
    assert text_width(short) <= width + 1e-6
    assert short == content or short.endswith("…")
