from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.cli.demo import MOST_PHOTOS, _photographs
from dyninfer.demo.photographs import package_photographs
from tests.dyninfer.cli.run import run, write_picture


@pytest.mark.slow
def test_the_demo_leaves_a_verified_bundle_a_table_and_pictures(
    capsys: pytest.CaptureFixture[str],
    embedded_bundle: Path,
    stages_from: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages_from(embedded_bundle)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: tmp_path / "cache")
    folder = tmp_path / "demo"
    monkeypatch.setattr("dyninfer.cli.demo.CALIBRATION_SCENES", 40)
    status, out, _ = run(capsys, "demo", "--output", str(folder), "--scenes", "24")
    assert status == 0
    assert "verification passed" in out
    parity = Bundle.open(folder / "dy-digits.dyn").parity()
    assert parity is not None
    assert parity["passed"] is True
    summary = json.loads((folder / "summary.json").read_text())
    assert [point["policy"] for point in summary["points"]] == [
        "every image easy", "25% hard", "50% hard", "75% hard", "every image hard"
    ]  # fmt: skip
    shares = [point["hard_share"] for point in summary["points"]]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert "router over random" in out
    calibration = Bundle.open(folder / "dy-digits.dyn").calibration()
    assert calibration is not None
    assert calibration.images.count == 40
    assert calibration.ways[-1].scores.primary is not None
    names = [{p.name for p in (folder / d).glob("*.png")} for d in ("calibration", "held-out")]
    assert len(names[1]) == 24
    assert not names[0] & names[1]
    for name in ("easy-and-hard.jpg", "photographs.jpg", "curve.png", "everyday.jpg"):
        page = cv2.imread(str(folder / name))
        assert page is not None
        assert min(page.shape[:2]) > 500
    assert len(list((folder / "scenes").glob("*.jpg"))) == 24


def test_photographs_are_those_of_packages_or_the_first_that_are_given(tmp_path: Path) -> None:
    shipped = package_photographs()
    assert len(shipped) == 6
    assert all(picture.ndim == 3 for picture in shipped)
    for number in range(MOST_PHOTOS + 1):
        write_picture(tmp_path / f"{number:02d}.png", 8 + number, 8)
    own = _photographs([tmp_path])
    assert [len(picture) for picture in own] == [8 + number for number in range(MOST_PHOTOS)]


def test_photos_that_are_not_there_are_told_of_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "demo"
    status, _, err = run(capsys, "demo", "--output", str(folder), "--photos", str(tmp_path / "no"))
    assert (status, err.count("\n")) == (1, 1)
    assert "no does not exist" in err
    assert not folder.exists()


def test_an_output_that_is_a_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    status, _, err = run(capsys, "demo", "--output", str(path))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"error: {path}")
    assert path.read_text() == "mine"


def test_too_few_scenes_are_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, "demo", "--output", str(tmp_path), "--scenes", "3")
    assert status == 2
    assert "--scenes" in err
