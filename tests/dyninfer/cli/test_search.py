from __future__ import annotations

import json
from pathlib import Path

import pytest

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
