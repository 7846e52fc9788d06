from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dyninfer.search.evolution import Search
from tests.dyninfer.cli.run import run
from tests.dyninfer.search.structures import SMALL
from tests.support import ROOT

NARROW = ROOT / "tests/vectors/zendet-narrow.txt"


def test_score_as_json(capsys, tmp_path: Path) -> None:
    path = tmp_path / "small.txt"
    path.write_text(SMALL.text)
    document = json.loads(run(capsys, "search", "score", str(path), "--json")[1])
    assert document["score"] == pytest.approx(1731.907009966715, rel=1e-9)
    assert (document["params"], document["layers"]) == (21_233_120, 79)
    assert (document["macs"], document["flops"]) == (10_883_750_400, 10_992_870_000)
    assert [stage["channels"] for stage in document["stages"]] == [32, 48, 272, 1024, 2048]
    larger = run(capsys, "search", "score", str(path), "--json", "--image-size", "800x1280")
    assert json.loads(larger[1])["macs"] == 48_372_224_000


def test_score_as_tables(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(
        capsys, "search", "score", str(NARROW), "--sampled", "--image-size", "64x96"
    )
    assert status == 0
    assert out.startswith("zendet-narrow.txt at 64x96\nscore                 463.2788")
    assert "the mean of 4 draws" in out
    assert "C5      32    2x3        96  63.9769" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((str(NARROW), "--image-size", "100"), "expected multiples of 32"),
        ((str(NARROW), "--image-size", "big"), "'big' is not N or HxW"),
        (("missing.txt",), "the structure text missing.txt does not exist"),
        ((str(ROOT / "LICENSE"),), "is no structure text"),
    ],
    ids=["odd size", "no size", "no file", "no structure"],
)
def test_what_cannot_be_scored_is_said_in_one_line(capsys, arguments, expected: str) -> None:
    status, out, err = run(capsys, "search", "score", *arguments)
    assert status in (1, 2)
    assert not out
    assert expected in err.splitlines()[-1]


def search(capsys, folder: Path, *arguments: str) -> tuple[int, str, str]:
    return run(capsys, "search", "backbone", "-o", str(folder / "found.txt"), *arguments)


BUDGET = ("--budget-flops", "18.8G")


def test_a_search_writes_structure_picture_and_state(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = search(capsys, tmp_path, *BUDGET, "--evaluations", "1500")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines()[:-2])) <= 80
    assert "after 1,500 evaluations\n" in out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"found.txt", "found.svg", "found.search.json"}
    picture = ElementTree.parse(tmp_path / "found.svg").getroot()
    assert picture.tag.endswith("svg")
    words = " ".join(picture.itertext())
    assert "G flops at 480x480" in words
    assert "\\n" not in words
    score = json.loads(run(capsys, "search", "score", str(tmp_path / "found.txt"), "--json")[1])
    assert f"score {score['score']:.4f} after" in out


def test_a_search_goes_on_and_gives_what_one_run_gives(capsys, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    search(capsys, parts, *BUDGET, "--evaluations", "400")
    _, out, _ = search(capsys, parts, *BUDGET, "--evaluations", "900", "--json")
    _, expected, _ = search(capsys, whole, *BUDGET, "--evaluations", "900", "--json")
    assert out.replace(str(parts), "") == expected.replace(str(whole), "")
    document = json.loads(out)
    assert document["evaluations"] == 900
    assert document["front"][-1]["score"] == document["score"]
    for name in ("found.txt", "found.svg", "found.search.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_search_that_is_interrupted_keeps_what_it_had(capsys, monkeypatch, tmp_path) -> None:
    advance, calls = Search.advance, []

    def interrupted(self: Search, evaluations: int) -> None:
        calls.append(evaluations)
        if len(calls) == 3:
            raise KeyboardInterrupt
        advance(self, evaluations)

    monkeypatch.setattr(Search, "advance", interrupted)
    status, _, _ = search(capsys, tmp_path, *BUDGET)
    assert status == 130
    assert json.loads((tmp_path / "found.search.json").read_text())["evaluations"] == 500


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ((), 2, "there is no budget: give --budget-flops"),
        (("--budget-flops", "many"), 2, "--budget-flops is 'many', expected a number such as 4G"),
        (("--budget-params", "0"), 2, "--budget-params is '0'"),
        (("--budget-flops", "4G"), 1, "7,745,241,600 flops, more than the budget of 4,000,000,000"),
        ((*BUDGET, "--image-size", "481"), 1, "expected multiples of 32"),
        ((*BUDGET, "--start", "missing.txt"), 1, "missing.txt does not exist"),
    ],
    ids=["none", "no number", "zero", "broken", "odd size", "no start"],
)
def test_a_search_that_cannot_begin_says_why(
    capsys, tmp_path: Path, arguments, status: int, expected: str
) -> None:
    found, out, err = search(capsys, tmp_path, *arguments)
    assert (found, out) == (status, "")
    assert expected in err.splitlines()[-1]
    assert not [*tmp_path.iterdir()]


def test_nothing_is_replaced_without_being_told(capsys, tmp_path: Path) -> None:
    mine = tmp_path / "found.txt"
    mine.write_text("mine")
    arguments = (*BUDGET, "--evaluations", "20")
    status, _, err = search(capsys, tmp_path, *arguments)
    assert (status, mine.read_text()) == (1, "mine")
    assert "--overwrite" in err
    assert search(capsys, tmp_path, *arguments, "--overwrite")[0] == 0
    status, _, err = search(capsys, tmp_path, *arguments, "--seed", "2")
    assert status == 1
    assert "is of a search with another seed" in err
    assert search(capsys, tmp_path, *arguments, "--seed", "2", "--overwrite")[0] == 0


def test_a_search_from_a_smaller_network_for_parameters(capsys, tmp_path: Path) -> None:
    arguments = ("--budget-params", "1M", "--start", str(NARROW), "--image-size", "96x128")
    _, out, _ = search(capsys, tmp_path, *arguments, "--evaluations", "300", "--json")
    document = json.loads(out)
    assert document["score"] > 463.28
    assert document["params"] <= 1_000_000
    assert "M parameters" in (tmp_path / "found.svg").read_text()
