from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dyninfer.benchmarks.latency.record import ThresholdPoint
from dyninfer.benchmarks.report.markdown import code_block, escaped, spread, to_markdown
from tests.benchmarks.report import report_records as records

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(markdown: str) -> str:
    """The text that a reader sees; anything but text is an error."""
    inline = PARSER.parse(markdown)[1]
    assert inline.children is not None
    assert {token.type for token in inline.children} <= {"text", "text_special"}
    return "".join(token.content for token in inline.children)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs", "Zs", "Zl", "Zp"])))
def test_escaped_text_is_shown_as_it_is(text) -> None:
    assert shown(f"x {escaped(text)} x") == f"x {text} x".replace("x  x", "x  x")


@given(st.text())
def test_escaped_text_stays_on_its_line_and_within_its_cell(text) -> None:
    markdown = f"| a | b |\n| --- | --- |\n| {escaped(text)} | end |\n\nafter"
    kinds = [token.type for token in PARSER.parse(markdown)]
    assert kinds.count("td_open") == 2
    assert kinds.count("tr_open") == 2


@given(st.text(alphabet="`~ab \n"))
def test_a_block_of_code_holds_all_of_it(text) -> None:
    (token,) = PARSER.parse(code_block(text))
    assert token.type == "fence"
    assert token.content == " ".join(text.split()) + "\n" or token.content.split() == text.split()


def test_hostile_text_makes_no_html_links_pictures_or_tables() -> None:
    tokens = PARSER.parse(to_markdown(records.hostile_record()))
    kinds = {token.type for token in tokens}
    for token in tokens:
        kinds |= {child.type for child in token.children or ()}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "em_open"}
    plain = PARSER.parse(to_markdown(records.full_record()))
    headings = [[t.tag for t in ts if t.type == "heading_open"] for ts in (tokens, plain)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize(
    "make",
    [
        records.full_record,
        records.minimal_record,
        records.three_exits_record,
        records.single_call_record,
        records.hostile_record,
    ],
)
def test_every_table_has_rows_of_equal_length(make) -> None:
    widths: list[set[int]] = []
    for block in to_markdown(make()).split("\n\n"):
        if block.startswith("|"):
            lines = [line.replace("\\|", "") for line in block.splitlines()]
            widths.append({line.count("|") for line in lines})
    assert widths
    assert all(len(width) == 1 for width in widths)


def test_the_figures_are_those_of_the_record() -> None:
    record = records.full_record()
    text = to_markdown(record)
    result = record.scenarios[2]
    value = result.latency.p50_ms
    assert f"| {value.value:.1f} ({value.low:.1f} to {value.high:.1f}) |" in text
    assert "| pytorch-eager | 0.480 (0.461 to 0.504) | 0.440 (0.422 to 0.462) |" in text
    assert "| torch-compile | no C++ compiler was found; install g++ |" in text
    assert f"```\n{record.command}\n```" in text


def test_what_is_missing_is_left_out_with_its_reason() -> None:
    text = to_markdown(records.minimal_record())
    assert "Not in this record: the pictures are random pixels; give yours with --images." in text
    assert "Not in this record: none was asked for." in text


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    curve = [ThresholdPoint(i / 100, i / 100, 1.0 + i) for i in range(101)]
    kept = spread(curve)
    assert [point.hard_fraction for point in kept] == [i / 8 for i in range(9)] or len(kept) == 9
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert kept == sorted(kept, key=lambda point: point.hard_fraction)
    assert spread(curve[:4]) == curve[:4]


def test_markdown_needs_no_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert to_markdown(replace(records.full_record(), scenarios=())).startswith("## dyninfer bench")
