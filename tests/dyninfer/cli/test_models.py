"""Shipped models on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dyninfer.bundle.calibration import CALIBRATION_FILE
from dyninfer.bundle.shipped import SHIPPED
from dyninfer.cli.common import built_in_photos
from tests import support
from tests.dyninfer.cli.run import run, table_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "cache" / "dyninfer" / "models"


def test_models_lists_what_ships_in_80_columns(capsys) -> None:
    status, out, err = run(capsys, "models")
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    rows = [line.split() for line in table_of(out)]
    named = {row[0]: row for row in rows if row and row[0] in SHIPPED}
    assert set(named) == set(SHIPPED)
    assert "80" in named["everyday"]
    assert "Apache-2.0" in named["digits"]


def test_models_as_json(capsys) -> None:
    listed = {entry["name"]: entry for entry in json.loads(run(capsys, "models", "--json")[1])}
    assert list(listed) == list(SHIPPED)
    assert len(listed["everyday"]["classes"]) == 80
    assert listed["digits"]["route"] == "cascade"
    assert listed["everyday-sizes"]["route"] == "select"
    assert all(entry["size_bytes"] > 1e6 for entry in listed.values())


def test_predict_with_a_shipped_model_needs_no_other_step(capsys, tmp_path) -> None:
    (tmp_path / "my-photos").mkdir()
    for photo in built_in_photos():
        shutil.copy(photo, tmp_path / "my-photos")
    status, out, err = run(capsys, "predict", "everyday", "my-photos/")
    assert (status, err) == (0, "")
    lines = Path("predictions/predictions.jsonl").read_text().splitlines()
    found = {each["class_name"] for line in lines for each in json.loads(line)["detections"]}
    assert {"person", "cat", "cup"} <= found
    assert "80 classes" in out


def test_a_calibration_of_a_shipped_model_is_kept_in_the_cache_and_used(capsys, cache) -> None:
    photos = [str(path) for path in built_in_photos()[:2]]
    images = [part for photo in photos for part in ("--images", photo)]
    status, out, err = run(capsys, "calibrate", "digits", *images, "--time-images", "1")
    assert status == 0, err
    (kept,) = cache.glob(f"digits-*.dyn/{CALIBRATION_FILE}")
    assert str(kept) in out.replace("\n", "")
    assert "next: dyninfer predict digits PICTURES" in out
    status, _, err = run(capsys, "predict", "digits", *photos, "--speed", "50%", "--json")
    assert status == 0, err


def test_info_and_bench_take_the_name_too(capsys, tmp_path) -> None:
    status, out, err = run(capsys, "info", "everyday")
    assert (status, err) == (0, "")
    assert out.startswith("everyday  cascade, detect")
    quick = ("--quick", "--seconds=0.05", "--rounds=2", "--min-calls=2", "--batch=1", "--hard=0")
    record = tmp_path / "record.json"
    status, _, err = run(capsys, "bench", "digits", *quick, "--output", str(record))
    assert status == 0, err
    assert "digits" in record.read_text()


@pytest.mark.slow
def test_everyday_is_above_60_points_of_ap50_on_real_photos_with_a_quarter_of_them_hard(
    capsys,
) -> None:
    folder = support.shared_folder() / "data" / "photos50"
    if not (folder / "annotations.json").exists():
        pytest.skip(f"no photos in {folder}; set DYNINFER_SHARED to the folder that holds them")
    labels = ("--annotations", str(folder / "annotations.json"), "--json")
    status, out, err = run(capsys, "eval", "everyday", "--images", str(folder / "images"), *labels)
    assert status == 0, err
    measured = json.loads(out)
    assert measured["precision"]["ap50"] > 0.6
    assert 0.2 <= measured["hard_fraction"] <= 0.3


def test_a_misspelt_name_is_one_line_with_the_name(capsys, tmp_path) -> None:
    status, _, err = run(capsys, "predict", "evryday", str(built_in_photos()[0]))
    assert (status, err.count("\n")) == (1, 1)
    assert "did you mean the model everyday" in err
    assert not (tmp_path / "predictions").exists()
