from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from dyninfer.benchmarks.latency.record import BenchRecord, ThresholdPoint
from dyninfer.benchmarks.report import documents
from dyninfer.benchmarks.report.documents import (
    code_block,
    escaped,
    to_html,
    to_markdown,
    write_html,
)
from dyninfer.benchmarks.report.tables import thinned
from dyninfer.errors import MissingExtra
from dyninfer.installing import pip_install
from tests.benchmarks.report import report_records as records
from tests.support import imported_anew, refuses

KINDS = {
    "full": records.full_record,
    "minimal": records.minimal_record,
    "three exits": records.three_exits_record,
    "single call": records.single_call_record,
    "hostile": records.hostile_record,
}
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
VOID = {"meta", "input", "img", "br", "link", "hr"}


class Outline(HTMLParser):
    """Elements with their attributes, the text of scripts, and whether every one was closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_makes_a_well_formed_page_of_usual_size(kind, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(KINDS[kind](), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert path.stat().st_size < 1_000_000
    outline = Outline(path.read_text(encoding="utf-8"))
    assert outline.open == []
    assert outline.all("html") == [{"lang": "en"}]
    assert len(outline.all("title")) >= 1
    ids = [attributes["id"] for _, attributes in outline.found if "id" in attributes]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_refers_to_nothing_outside_itself(kind) -> None:
    outline = Outline(to_html(KINDS[kind]()))
    ids = {attributes.get("id") for _, attributes in outline.found}
    for tag, attributes in outline.found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "video", "audio")
        assert not [name for name in attributes if name.startswith("on")]
        assert "style" not in attributes
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            value = attributes.get(name) or ""
            if value:
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
            if value.startswith("#"):
                assert value[1:] in ids
        for name in ("aria-labelledby", "aria-describedby", "for"):
            assert attributes.get(name) is None or attributes[name] in ids


def test_the_policy_allows_the_page_s_own_script_and_style_and_nothing_else() -> None:
    text = to_html(records.full_record())
    outline = Outline(text)
    (policy,) = (
        meta["content"] or ""
        for meta in outline.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    expected = {
        "default-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "script-src": f"'sha256-{digest(outline.scripts[-1])}'",
        "style-src": f"'sha256-{digest(style)}'",
    }
    assert rules == expected


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_hostile_text_stays_text() -> None:
    outline = Outline(to_html(records.hostile_record()))
    plain = Outline(to_html(records.full_record()))
    assert len(outline.all("script")) == len(plain.all("script")) == 2
    assert len(plain.all("img")) == len(records.full_record().pictures.samples)
    assert outline.all("img") == []  # what they hold is no picture
    shown = " ".join(outline.text)
    assert shown.count("<img src=x onerror=alert(1)>") > 20
    assert "alert(1)" not in "".join(outline.scripts)


def test_hostile_text_inside_the_script_s_data_is_read_back_whole() -> None:
    bundle = "</script><!--<script>alert(1)//\u2028'\"&"
    record = records.full_record()
    points = tuple(replace(point, ap=None, agreement=None) for point in record.pictures.curve)
    record = replace(record, pictures=replace(record.pictures, curve=points))
    record = replace(record, measured=replace(record.measured, bundle=bundle))
    outline = Outline(to_html(record))
    data = json.loads(outline.scripts[0])
    assert len(data["positions"]) == len(points)
    assert not re.search(r"[<>&]", outline.scripts[0])


def test_all_positions_of_the_slider_are_in_the_page() -> None:
    record = records.full_record()
    outline = Outline(to_html(record))
    positions = json.loads(outline.scripts[0])["positions"]
    (slider,) = (i for i in outline.all("input") if i.get("type") == "range")
    assert (slider["min"], slider["max"]) == ("0", str(len(record.pictures.curve) - 1))
    assert len(positions) == len(record.pictures.curve)
    moving = {a["data-moves"] for _, a in outline.found if "data-moves" in a}
    texts = {a["data-text"] for _, a in outline.found if "data-text" in a}
    for position in positions:
        assert set(position["moves"]) == moving
        assert texts <= set(position["texts"])
        assert len(position["exits"]) == len(record.pictures.samples)


def test_what_is_missing_is_left_out_with_its_reason() -> None:
    text = to_html(records.minimal_record())
    for reason in (
        "Not in this record: the pictures are random pixels; give yours with --images.",
        "Not in this record: none was asked for.",
        "Not in this record: one scenario does not determine it. Energy was not measured: "
        "this machine has no energy meter.",
    ):
        assert reason in text
    assert 'id="setting"' not in text


def test_a_curve_without_any_accuracy_keeps_the_slider_and_says_why_there_is_no_chart() -> None:
    record = records.full_record()
    points = tuple(replace(p, ap=None, ap50=None, agreement=None) for p in record.pictures.curve)
    bare = replace(
        record,
        pictures=replace(record.pictures, curve=points, samples=()),
        missing={"ap": "no labels; give --annotations"},
    )
    text = to_html(bare)
    assert "Accuracy is not shown: no labels; give --annotations." in text
    assert 'id="setting"' in text
    assert 'id="curve-920"' not in text
    assert "no sample pictures" in text


def test_an_empty_record_is_a_page_all_the_same() -> None:
    bare = replace(records.minimal_record(), scenarios=())
    assert "No scenario was measured." in to_html(bare)


def test_twelve_minutes_of_calls_still_make_a_small_page() -> None:
    record = records.full_record()
    many = records.scenario_result(record.scenarios[2].scenario, calls=60_000, rounds=30)
    text = to_html(replace(record, scenarios=(many, *record.scenarios)))
    assert len(text) < 400_000


def test_text_that_is_no_unicode_is_escaped() -> None:
    record = records.full_record()
    odd = replace(record, command="dyninfer bench caf\udce9.dyn")
    assert r"dyninfer bench caf\udce9.dyn" in to_html(odd)


def test_a_failure_leaves_the_old_report_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def broken(_record: BenchRecord) -> str:
        raise RuntimeError

    monkeypatch.setattr(documents, "page_of", broken)
    with pytest.raises(RuntimeError):
        write_html(records.minimal_record(), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_without_jinja_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    anew = imported_anew(monkeypatch, documents)
    with refuses(MissingExtra, pip_install("report")):
        anew.write_html(records.minimal_record(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def shown(markdown: str) -> str:
    """The text that a reader sees; anything but text is an error."""
    inline = PARSER.parse(markdown)[1]
    assert inline.children is not None
    assert {token.type for token in inline.children} <= {"text", "text_special"}
    return "".join(token.content for token in inline.children)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cf", "Cs", "Zs", "Zl", "Zp"])))
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


def test_hostile_text_in_markdown_makes_no_html_links_pictures_or_tables() -> None:
    tokens = PARSER.parse(to_markdown(records.hostile_record()))
    kinds = {token.type for token in tokens}
    for token in tokens:
        kinds |= {child.type for child in token.children or ()}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "em_open"}
    plain = PARSER.parse(to_markdown(records.full_record()))
    headings = [[t.tag for t in ts if t.type == "heading_open"] for ts in (tokens, plain)]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("make", KINDS.values())
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


def test_markdown_leaves_out_what_is_missing_with_its_reason() -> None:
    text = to_markdown(records.minimal_record())
    assert "Not in this record: the pictures are random pixels; give yours with --images." in text
    assert "Not in this record: none was asked for." in text


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    curve = [ThresholdPoint(i / 100, i / 100, 1.0 + i) for i in range(101)]
    kept = thinned(curve)
    assert [point.hard_fraction for point in kept] == [i / 8 for i in range(9)] or len(kept) == 9
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert kept == sorted(kept, key=lambda point: point.hard_fraction)
    assert thinned(curve[:4]) == curve[:4]


def test_markdown_needs_no_jinja(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert to_markdown(replace(records.full_record(), scenarios=())).startswith("## dyninfer bench")
