from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from tests.dyninfer.cli.run import run, write_picture


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    write_picture(folder / "a.png", 40, 60)
    write_picture(folder / "b.jpg", 90, 30)
    write_picture(folder / "deeper" / "a.png", 64, 64)
    (folder / "notes.txt").write_text("no picture")
    return folder


def lines_of(folder: Path) -> list[dict[str, object]]:
    text = (folder / "predictions.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_gives_one_line_and_one_annotated_copy_each(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    status, out, _ = run(capsys, "predict", str(small_bundle), str(pictures), "-o", str(target))
    assert status == 0
    records = lines_of(target)
    assert [Path(str(record["image"])).name for record in records] == ["a.png", "b.jpg", "a.png"]
    for record in records:
        drawn = cv2.imread(str(target / str(record["annotated"])))
        assert drawn is not None
        assert drawn.shape[:2] == (record["height"], record["width"])
        assert set(record["timings_ms"]) >= {"prepare", "first", "router", "postprocess"}  # type: ignore[call-overload]
    assert len({str(record["annotated"]) for record in records}) == 3
    assert "easiness" in out
    assert "3 pictures" in out


def test_globs_and_repeated_sources_count_once(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    pictures: Path,
    tmp_path: Path,
) -> None:
    target = tmp_path / "out"
    glob, single = str(pictures / "*.png"), str(pictures / "a.png")
    monkeypatch.chdir(tmp_path)
    relative = str(Path(single).relative_to(tmp_path))
    status, out, _ = run(
        capsys,
        *("predict", str(small_bundle), glob, single, relative, "-o", str(target), "--no-images"),
        "--json",
    )
    assert status == 0
    assert [json.loads(line)["image"] for line in out.splitlines()] == [single]
    assert [path.name for path in target.iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize(
    ("asked", "exit_index"),
    [
        (["-s", "easy"], 0),
        (["-s", "hard"], 1),
        (["--always-easy"], 0),
        (["--always-hard"], 1),
        (["--threshold", "0"], 0),
        (["-t", "1.1"], 1),
    ],
)
def test_forced_routes(
    capsys: pytest.CaptureFixture[str],
    small_bundle: Path,
    pictures: Path,
    tmp_path: Path,
    asked: list[str],
    exit_index: int,
) -> None:
    target = tmp_path / "out"
    run(capsys, "predict", str(small_bundle), str(pictures), "-o", str(target), *asked)
    assert {record["exit_index"] for record in lines_of(target)} == {exit_index}


def test_two_policies_at_once_are_wrong_usage(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path
) -> None:
    status, _, err = run(
        capsys, "predict", str(small_bundle), str(pictures), "--always-easy", "--threshold", "0.5"
    )
    assert status == 2
    assert "one of" in err


def test_a_broken_picture_is_named_and_the_others_are_done(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "broken.jpg").write_bytes(b"not a picture")
    target = tmp_path / "out"
    status, _, err = run(capsys, "predict", str(small_bundle), str(pictures), "-o", str(target))
    assert status == 1
    assert "broken.jpg is not a picture" in err
    assert err.count("\n") == 1
    assert len(lines_of(target)) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "does not exist"),
        ("*.jpg", "no picture matches"),
        ("film.mp4", "video"),
        ("rtsp://camera/1", "stream"),
        ("0", "camera"),
        (".", "holds no pictures"),
    ],
)
def test_sources_without_pictures_are_explained(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    tmp_path: Path,
    source: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, "predict", str(small_bundle), source)
    assert status == 1
    assert message in err
    assert not list(tmp_path.iterdir())


def test_several_broken_pictures_are_all_named(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    for name in ("one.jpg", "two.png"):
        (pictures / name).write_bytes(b"not a picture")
    target = tmp_path / "out"
    status, _, err = run(capsys, "predict", str(small_bundle), str(pictures), "-o", str(target))
    assert status == 1
    assert "one.jpg is not" in err
    assert "two.png is not" in err
    assert "2 of 5 pictures" in err


def test_a_single_broken_picture_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    target = tmp_path / "out"
    status, _, err = run(capsys, "predict", str(small_bundle), str(broken), "-o", str(target))
    assert (status, err.count("\n")) == (1, 1)
    assert not target.exists()


def test_pictures_that_were_read_are_never_written_to(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "annotated"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "A-2.jpg"):
        write_picture(folder / name, 48, 48)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(capsys, "predict", str(small_bundle), str(folder), "-o", str(tmp_path))[0] == 0
    for name, content in before.items():
        assert (folder / name).read_bytes() == content
    names = [str(record["annotated"]).casefold() for record in lines_of(tmp_path)]
    assert len(set(names)) == 3


def test_a_picture_too_wide_for_jpeg_still_gets_its_line(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    write_picture(tmp_path / "wide.png", 2, 70_000)
    target = tmp_path / "out"
    status, _, err = run(
        capsys, "predict", str(small_bundle), str(tmp_path / "wide.png"), "-o", str(target)
    )
    assert status == 0
    assert "too large" in err
    (record,) = lines_of(target)
    assert record["annotated"] is None
    assert record["width"] == 70_000


def test_without_output_earlier_results_are_kept(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    pictures: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert run(capsys, "predict", str(small_bundle), str(pictures / "a.png"))[0] == 0
    assert lines_of(tmp_path / "predictions")
    assert lines_of(tmp_path / "predictions-2")
