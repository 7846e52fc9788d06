from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.cli import predict
from dyninfer.cli.predictions import known_classes, surprising_times
from tests import support
from tests.dyninfer.cli.run import run, write_picture
from tests.dyninfer.monitoring import watching


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


def test_stages_have_as_many_threads_as_are_asked_for(
    capsys, monkeypatch, small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    asked = []
    monkeypatch.setattr(
        predict, "load", lambda *a, **options: asked.append(options) or dyninfer.load(*a, **options)
    )
    command = ("predict", str(small_bundle), str(pictures / "a.png"), "-o", str(tmp_path / "out"))
    assert run(capsys, *command, "--threads", "1")[0] == 0
    assert asked[0]["threads"] == 1
    status, _, error = run(capsys, *command, "--threads", "0")
    assert status == 2
    assert "--threads" in error


def test_the_summary_of_a_chooser_has_no_row_without_values(capsys, pictures, tmp_path) -> None:
    bundle = support.write_select_detectors(tmp_path / "select.dyn")
    status, out, _ = run(capsys, "predict", str(bundle), str(pictures), "-o", str(tmp_path / "o"))
    assert status == 0
    assert "chooser" in out
    assert "easiness" not in out


def test_the_summary_is_of_engines_that_were_warmed_up(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    pictures: Path,
    tmp_path: Path,
) -> None:
    ran: list[str] = []
    trace, answers = dyninfer.Detector.trace, dyninfer.Detector.answers
    monkeypatch.setattr(
        dyninfer.Detector, "trace", lambda self, *a: ran.append("trace") or trace(self, *a)
    )
    monkeypatch.setattr(
        dyninfer.Detector,
        "answers",
        lambda self, *a, **k: ran.append("answers") or answers(self, *a, **k),
    )
    asked = ("predict", str(small_bundle), str(pictures), "-b", "2", "-o", str(tmp_path / "out"))
    _, out, _ = run(capsys, *asked)
    assert ran == ["trace", "answers", "answers"]
    title = "easiness: minimum / median / maximum; median ms per picture, after a warm-up"
    assert title in " ".join(out.split())
    ran.clear()
    run(capsys, *asked[:-1], str(tmp_path / "json"), "--json")
    assert ran == ["answers", "answers"]


def test_a_hard_exit_that_looks_faster_is_explained(small_bundle: Path) -> None:
    manifest = Bundle.open(small_bundle).manifest

    def answer(exit_index: int, **ms: float) -> dyninfer.Detections:
        found = watching.answer(0.5, exit_index)
        found.timings_ms = ms
        return found

    easy = answer(0, prepare=9.0, first=10.0, head=2.0)
    hard = answer(1, prepare=1.0, first=9.5, second=8.0)
    (line,) = surprising_times(manifest, [easy, easy, hard])
    assert line.startswith(
        "exit 1 took less time than exit 0 though it runs more: prepare took 9.00 ms of exit 0's "
        "pictures (2) and 1.00 ms of exit 1's (1)"
    )
    assert surprising_times(manifest, [easy, easy]) == []
    assert surprising_times(manifest, [easy, answer(1, prepare=9.0, first=9.5, second=8.0)]) == []


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
        ("film.mp4", "film.mp4 does not exist"),
        ("s3://camera/1", "an address that is not read"),
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


def test_its_own_pictures_are_never_read_again(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    small_bundle: Path,
    pictures: Path,
) -> None:
    monkeypatch.chdir(pictures)
    for _ in range(2):
        assert run(capsys, "predict", str(small_bundle), ".")[0] == 0
    assert run(capsys, "predict", str(small_bundle), "**/*.jpg")[0] == 0
    assert run(capsys, "predict", str(small_bundle), ".", "-o", "deeper")[0] == 0
    assert run(capsys, "predict", str(small_bundle), ".", "-o", "deeper", "--overwrite")[0] == 0
    counts = [len(lines_of(pictures / f"predictions{n}")) for n in ("", "-2", "-3")]
    assert counts == [3, 3, 1]
    assert len(lines_of(pictures / "deeper")) == 3
    assert len(list((pictures / "deeper" / "annotated").iterdir())) == 3


def test_results_are_not_written_into_a_bundle(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path
) -> None:
    before = support.files_below(small_bundle)
    for more in ((), ("--overwrite",)):
        command = ("predict", str(small_bundle), str(pictures), "-o", str(small_bundle), *more)
        status, _, err = run(capsys, *command)
        assert (status, err.count("\n")) == (1, 1)
        assert f"{small_bundle} is a bundle" in err
    assert support.files_below(small_bundle) == before


def test_results_of_an_earlier_run_are_replaced_whole_and_only_when_told(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    command = ["predict", str(small_bundle)]
    assert run(capsys, *command, str(pictures), "-o", str(target))[0] == 0
    (target / "annotated" / "mine.jpg").write_bytes(b"mine")
    before = support.files_below(target)
    status, _, err = run(capsys, *command, str(pictures / "b.jpg"), "-o", str(target))
    assert status == 1
    assert "holds the results of an earlier run" in err
    assert "--overwrite" in err
    assert support.files_below(target) == before
    again = [*command, str(pictures / "b.jpg"), "-o", str(target), "--overwrite"]
    assert run(capsys, *again)[0] == 0
    assert [Path(str(record["image"])).name for record in lines_of(target)] == ["b.jpg"]
    assert {path.name for path in (target / "annotated").iterdir()} == {"b.jpg", "mine.jpg"}


def test_overwriting_removes_no_picture_that_is_read_and_nothing_outside(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    command = ["predict", str(small_bundle), "-o", str(target), "--overwrite"]
    assert run(capsys, *command, str(pictures / "a.png"))[0] == 0
    with (target / "predictions.jsonl").open("a") as lines:
        lines.write('{"annotated": "../pictures/a.png"}\n{"annotated": "annotated/../x"}\nhalf')
    assert run(capsys, *command, str(target / "annotated"))[0] == 0
    assert (pictures / "a.png").exists()
    assert {path.name for path in (target / "annotated").iterdir()} == {"a.jpg", "a-2.jpg"}


def test_what_a_folder_holds_and_is_not_read_is_told(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "phone.HEIC").write_bytes(b"x")
    (pictures / "deeper" / "x.avif").write_bytes(b"x")
    command = ["predict", str(small_bundle), "-o", str(tmp_path / "out")]
    status, _, err = run(capsys, *command, str(pictures))
    assert status == 0
    assert "1 .avif, 1 .heic left out" in err
    command[-1] = str(tmp_path / "other")
    (tmp_path / "phones").mkdir()
    (tmp_path / "phones" / "1.heic").write_bytes(b"x")
    status, _, err = run(capsys, *command, str(tmp_path / "phones"))
    assert status == 1
    assert "holds no pictures" in err
    assert "1 .heic left out" in err
    status, _, err = run(capsys, *command, "")
    assert (status, "empty path" in err) == (1, True)


def test_folders_with_brackets_and_files_without_a_suffix_are_read(
    capsys: pytest.CaptureFixture[str], small_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos [1]"
    folder.mkdir()
    write_picture(folder / "a.png", 20, 20)
    (folder / "a.png").rename(folder / "0")
    write_picture(folder / "b.png", 20, 20)
    for source, count in ((f"{folder}/*", 1), (str(folder / "0"), 1), (str(folder), 1)):
        target = tmp_path / f"out {len(list(tmp_path.iterdir()))}"
        assert run(capsys, "predict", str(small_bundle), source, "-o", str(target))[0] == 0
        assert len(lines_of(target)) == count


def test_photographs_without_a_digit_are_told_what_could_be_found(
    capsys: pytest.CaptureFixture[str], embedded_bundle: Path, tmp_path: Path
) -> None:
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((60, 80, 3), 90, np.uint8))
    command = ["predict", str(embedded_bundle), str(tmp_path), "-c", "0.9"]
    status, out, _ = run(capsys, *command, "-o", str(tmp_path / "out"))
    assert status == 0
    assert "nothing found in 2 of 2 pictures; dy-digits knows only 10 classes: " in out
    assert out.rstrip().endswith("classes: " + ", ".join(f"class_{digit}" for digit in range(10)))


def test_of_many_classes_the_first_are_named(small_bundle: Path) -> None:
    manifest = Bundle.read(small_bundle).manifest
    many = manifest.model_copy(update={"class_names": tuple(f"kind {i}" for i in range(80))})
    line = known_classes(many, [])
    assert line.endswith(
        "knows only 80 classes: " + ", ".join(f"kind {i}" for i in range(20)) + ", ..."
    )
