"""``dyninfer predict`` on many streams: one file of lines, a video of each, one budget."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests import support
from tests.dyninfer.cli.run import run, write_picture
from tests.dyninfer.images import clips
from tests.dyninfer.images.clips import av, write_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips and a bundle, made once and copied for each test."""
    folder = tmp_path_factory.mktemp("made")
    write_clip(folder / "a.mp4", 12)
    write_clip(folder / "b.mp4", 7)
    support.write_two_exits(folder / "two.dyn")
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return str(tmp_path / "two.dyn")


def lines_of(folder: Path) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for line in (folder / "predictions.jsonl").read_text().splitlines():
        record = json.loads(line)
        found[record["stream"]].append(record)
    return found


def test_two_clips_at_once(capsys, bundle, tmp_path: Path) -> None:
    status, out, err = run(capsys, "predict", bundle, "door=a.mp4", "yard=b.mp4", "-o", "out")
    assert (status, err) == (0, "")
    assert "19 frames; results in" in out
    lines = lines_of(tmp_path / "out")
    assert [line["frame"] for line in lines["door"]] == list(range(12))
    assert [line["frame"] for line in lines["yard"]] == list(range(7))
    assert {line["source"] for line in lines["yard"]} == {"b.mp4"}
    assert {line["skipped"] for line in lines["door"]} == {0}
    for name, count in (("door", 12), ("yard", 7)):
        with av.open(str(tmp_path / "out" / lines[name][0]["annotated"])) as container:
            assert len(list(container.decode(video=0))) == count
    again = ["predict", bundle, "door=a.mp4", "-o", "out", "--no-images"]
    assert run(capsys, *again)[0] == 1
    status, out, _ = run(capsys, *again, "--overwrite", "--json", "-t", "2")
    assert {json.loads(line)["exit_index"] for line in out.splitlines()} == {1}
    assert not list((tmp_path / "out/annotated").iterdir())


def test_a_budget_leaves_frames_out_and_says_how_many(capsys, bundle, tmp_path: Path) -> None:
    arguments = ["door=a.mp4", "yard=b.mp4", "--budget", "0.01ms/s", "-o", "out"]
    status, out, _ = run(capsys, "predict", bundle, *arguments)
    assert status == 0
    assert {name: len(found) for name, found in lines_of(tmp_path / "out").items()} == {
        "door": 1,
        "yard": 1,
    }
    assert "door       1        11" in out


def test_each_stream_has_ids_of_its_own(capsys, bundle, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("trackers", reason="the extra track is not installed")
    white = np.full((48, 64, 3), 255, np.uint8)  # or the box, which follows the grey, would jump
    monkeypatch.setattr(clips, "picture", lambda *_: white)
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", 5)
    sources = ["door=a.mp4", "yard=b.mp4", "--track", "-o", "out"]
    status, out, _ = run(capsys, "predict", bundle, *sources)
    assert status == 0
    assert "followed" in out
    for lines in lines_of(tmp_path / "out").values():
        ids = [line["detections"][0]["track_id"] for line in lines]
        assert ids[0] is None
        assert {*ids[2:]} == {0}


@pytest.mark.usefixtures("bundle")
def test_without_a_bundle_it_is_the_everyday_model(capsys, tmp_path: Path) -> None:
    status, out, _ = run(capsys, "predict", "door=a.mp4", "yard=b.mp4", "--no-images", "-o", "out")
    assert (status, "everyday: " in out) == (0, True)
    assert len(lines_of(tmp_path / "out")) == 2


def test_files_with_such_names_are_still_files(capsys, bundle, tmp_path: Path) -> None:
    write_picture(tmp_path / "door=1.png", 40, 40)
    write_picture(tmp_path / "door=2.png", 40, 40)
    for sources, count in ((["door=1.png"], 1), (["door=*.png"], 2), (["./door=2.png"], 1)):
        status, out, _ = run(capsys, "predict", bundle, *sources, "-o", "out", "--overwrite")
        assert (status, f"in {count} picture" in out) == (0, True)
    write_clip(tmp_path / "door=3.mp4", 3)
    assert run(capsys, "predict", bundle, "door=3.mp4", "-o", "out.mp4")[0] == 0
    status, *_ = run(capsys, "predict", bundle, "yard=door=3.mp4", "-o", "out", "--overwrite")
    assert (status, len(lines_of(tmp_path / "out")["yard"])) == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["door=rtps://host/1"], "door: rtps://host/1 is an address that is not read"),
        (["door=no.mp4", "yard=b.mp4"], "door: no.mp4 does not exist"),
        (["door=no/*.png"], "door: no/*.png does not exist"),
        (["door=camera"], "door: camera does not exist"),
        (["door=a.mp4", "door=b.mp4"], "two streams are called door"),
        (["door=a.mp4", "b.mp4"], "b.mp4 is no stream with a name, as door=a.mp4 is"),
        (["door="], "door= lacks its source"),
        (["=a.mp4"], "=a.mp4 lacks its name"),
        (["a.mp4", "--budget", "200ms/s"], "--budget 200ms/s is shared by several streams"),
        (["door=a.mp4", "--budget", "200ms"], "the budget is '200ms', expected milliseconds"),
        (["door=a.mp4", "--budget", "0ms/s"], "the budget is '0ms/s'"),
        (["door=a.mp4", "-o", "out.mp4"], "out.mp4 is the name of a video"),
        (["door=a.mp4", "--every", "3"], "--every 3 is for one video"),
        (["door=two.dyn"], "the folder two.dyn holds no pictures"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_in_one_line_and_leaves_nothing(
    capsys, bundle, tmp_path: Path, arguments, message
) -> None:
    before = support.files_below(tmp_path)
    status, _, err = run(capsys, "predict", bundle, *arguments)
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert support.files_below(tmp_path) == before


def test_one_that_fails_does_not_end_the_others(capsys, bundle, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    status, _, err = run(capsys, "predict", bundle, "door=text.mp4", "yard=b.mp4", "-o", "out")
    assert status == 1
    assert "1 stream failed: door: text.mp4 is not a video" in err
    assert len(lines_of(tmp_path / "out")["yard"]) == 7
