"""Results on a disk that fills up: whole ones, and it is said which."""

from __future__ import annotations

import json
import resource
import signal
from pathlib import Path

import pytest

from tests import support
from tests.dyninfer.cli.run import run, write_picture

NAMES = [f"{number}.png" for number in range(6)]


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, list[str]]:
    for number, name in enumerate(NAMES):
        write_picture(tmp_path / name, 100, 100 + number)
    return support.write_two_exits(tmp_path / "two.dyn"), [str(tmp_path / n) for n in NAMES]


@pytest.fixture
def limit_of_files():
    """A limit on the size of a file, where writing fails half way as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_lines_are_whole_and_the_first_missing_picture_is_named(
    given, tmp_path, capsys, limit_of_files
) -> None:
    bundle, pictures = given
    out = tmp_path / "out"
    arguments = ["predict", str(bundle), *pictures, "-o", str(out), "--no-images", "-b", "1"]
    assert run(capsys, *arguments)[0] == 0
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    limit_of_files(sum(map(len, lines[:3])) + len(lines[3]) // 2)
    status, _, err = run(capsys, *arguments, "--overwrite")
    assert status == 1
    assert err.count("\n") == 1
    assert "of 3 of 6 pictures" in err
    assert f"missing is {pictures[3]}" in err
    found = (out / "predictions.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line)["image"] for line in found] == pictures[:3]
    assert all(line.endswith("\n") for line in found)


def test_no_half_of_an_annotated_picture_stays(given, tmp_path, capsys, limit_of_files) -> None:
    bundle, pictures = given
    out = tmp_path / "out"
    limit_of_files(2000)
    status, _, err = run(capsys, "predict", str(bundle), *pictures, "-o", str(out))
    assert status == 1
    assert err.count("\n") == 1
    assert "no result was written" in err
    assert [path for path in out.rglob("*") if path.is_file()] == []
