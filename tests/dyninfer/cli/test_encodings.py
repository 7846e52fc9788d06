"""Output whatever the terminal, its width and its encoding are."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from dyninfer.cli import main
from dyninfer.cli.common import print_json
from dyninfer.plain_text import plain
from tests import support
from tests.dyninfer.cli.run import run, write_picture

NAMES = ["Straße", "道路"]
ENCODINGS = ["ascii", "latin-1", "cp1252", "shift_jis", "utf-8", "utf-16"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = support.write_two_exits(tmp_path / "two ± 道.dyn")
    support.reseal(path, lambda manifest: manifest.update(class_names=NAMES))
    write_picture(tmp_path / "ä.png", 20, 30)
    return path


@pytest.fixture(params=ENCODINGS)
def printed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """Runs a command; its status, and what it has written in bytes and as text."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")

    def get(*arguments: str) -> tuple[int, bytes, str]:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=request.param) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        for stream in streams:
            stream.flush()
        data = streams[0].buffer.getvalue()
        return int(ended.value.code or 0), data, data.decode(request.param)

    return get


def test_json_is_json(printed, bundle: Path, tmp_path: Path) -> None:
    status, data, _ = printed("info", str(bundle), "--json")
    assert status == 0
    assert json.loads(data)["class_names"] == NAMES
    out = str(tmp_path / "out")
    picture = str(tmp_path / "ä.png")
    status, data, text = printed("predict", str(bundle), picture, "-c", "0", "-o", out, "--json")
    assert status == 0
    assert json.loads(text.strip())["image"] == picture
    assert "\x1b" not in text


def test_no_character_ends_a_finished_run(printed, bundle: Path, tmp_path: Path) -> None:
    picture = str(tmp_path / "ä.png")
    for command in (["info"], ["predict", picture, "-o", str(tmp_path / "道")]):
        status, _, text = printed(command[0], str(bundle), *command[1:])
        assert status == 0
        assert "two" in text
    status, _, _ = printed("predict", str(bundle), "道.jpg")
    assert status == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_characters_that_are_not_there_are_replaced(monkeypatch, bundle: Path, encoding) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit):
        main(["info", str(bundle)])
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    assert text.startswith(
        r"two +/- \u9053  tiny" if encoding == "ascii" else "two ± \\u9053  tiny"
    )


def test_numbers_that_json_lacks_are_null(capsys) -> None:
    print_json({"a": [float("nan"), 1.5], "b": {"c": float("inf")}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, 1.5], "b": {"c": None}}


def test_no_column_is_lost_at_forty_columns(monkeypatch, capsys, bundle: Path) -> None:
    def words(columns: str) -> set[str]:
        monkeypatch.setenv("COLUMNS", columns)
        out = run(capsys, "info", str(bundle))[1]
        assert max(map(len, re.findall("^.*─+.*$", out, re.MULTILINE))) <= int(columns)
        return set(re.sub("─+", "", out).split())

    wide = words("200")
    assert {"parameters", "MACs", "images", "class_scores"} <= wide
    assert words("40") == wide
    assert plain("…") not in wide
