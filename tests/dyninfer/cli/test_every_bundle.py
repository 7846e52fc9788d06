"""The same commands on every kind of route and task."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from tests import support
from tests.dyninfer.cli.onnx_alone import write_onnx_alone
from tests.dyninfer.cli.run import run, table_of
from tests.dyninfer.evaluation.coded import SIDE, write_coded, write_labels
from tests.exporters.drnet.narrow import write_by_colour
from tests.exporters.efficientdet.narrow import write_whole

REDS, GREEN = (0, 51, 102, 153, 204, 255), 120  # easiness 0 to 1, and later 0.47


@dataclass(frozen=True)
class Case:
    """A bundle, and what is known of it without running it: the way of each picture."""

    write: Callable[[Path], Path]
    kind: str
    ways: tuple[str, ...]
    taken: tuple[int, ...]
    classifies: bool = False
    hard: int = -1  # the way that hard pictures take


EXITS, BRANCHES = ("exit 0", "exit 1", "exit 2"), ("branch 0", "branch 1")
CASES = {
    "static": Case(support.write_static_two_stages, "static", EXITS[:1], (0,) * 6),
    "cascade": Case(support.write_three_exits, "cascade", EXITS, (2, 2, 2, 0, 0, 0)),
    "select detectors": Case(
        support.write_select_detectors, "select", BRANCHES, (1, 1, 1, 0, 0, 0)
    ),
    "select classifiers": Case(
        support.write_select_classifiers, "select", BRANCHES, (1, 1, 1, 0, 0, 0), classifies=True
    ),
    "cascade of classifiers": Case(
        support.write_cascade_classifiers,
        "cascade",
        EXITS[:2],
        (1, 1, 1, 0, 0, 0),
        classifies=True,
    ),
    "one ONNX file": Case(write_onnx_alone, "static", EXITS[:1], (0,) * 6),
    "EfficientDet": Case(write_whole, "static", EXITS[:1], (0,) * 6),
    "DRNet": Case(write_by_colour, "select", BRANCHES, (1, 1, 1, 0, 0, 0), classifies=True, hard=0),
    "static classifier": Case(
        support.write_static_classifier, "static", EXITS[:1], (0,) * 6, classifies=True
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def bundle(request: pytest.FixtureRequest, case: Case, made_once, tmp_path: Path) -> Path:
    made = made_once(f"{request.node.callspec.params['case']}.dyn", case.write)
    return shutil.copytree(made, tmp_path / "some.dyn")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Half of them are greener than red; the folder calls all of them green."""
    write_coded(tmp_path / "green", REDS, green=GREEN)
    return tmp_path / "green"


@pytest.fixture
def labels(case: Case, pictures: Path) -> tuple[str, ...]:
    """Boxes that the first way finds exactly; of classifiers the folder says it."""
    if case.classifies:
        return ()
    path = write_labels(pictures / "labels.json", sorted(pictures.glob("*.png")))
    return ("--annotations", str(path))


def test_predict(capsys, case: Case, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    status, out, err = run(capsys, "predict", str(bundle), str(pictures), "-o", str(target))
    assert (status, err) == (0, "")
    lines = (target / "predictions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert tuple(record["exit_index"] for record in records) == case.taken
    with dyninfer.load(bundle) as detector:
        for record in records:
            found = detector(record["image"]).to_dict()
            key = "classes" if case.classifies else "detections"
            assert record[key] == found[key]
            drawn = cv2.imread(str(target / record["annotated"]))
            assert drawn is not None
            assert drawn.shape == (SIDE, SIDE, 3)
    for name in case.ways:
        assert name in out
    assert (", every image hard; " in out) is False  # of one way, either
    assert "likeliest classes in 6 pictures" in out or "6 detections in 6 pictures" in out


def test_options_of_boxes(capsys, case: Case, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    more = ("--confidence", "0.8", "-o", str(target))
    status, out, err = run(capsys, "predict", str(bundle), str(pictures), *more)
    if case.classifies:
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "about boxes" in err
        assert "classify" in err
        assert not target.exists()
    else:
        assert "0 detections in 6 pictures" in out


def test_info(capsys, monkeypatch, case: Case, bundle: Path, pictures: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, narrow, _ = run(capsys, "info", str(bundle))
    assert max(map(len, table_of(narrow))) <= 80
    assert "…" not in narrow
    status, out, _ = run(capsys, "info", str(bundle))
    assert status == 0
    assert f"{case.kind} route ({', '.join(case.ways)})" in out
    assert ("classify" if case.classifies else "detect") in out
    assert ("count 5" if case.classifies else "confidence 0.25") in out
    assert ("chooser" in out) is (case.kind == "select")
    assert "not calibrated yet" in out
    assert run(capsys, "calibrate", str(bundle), "--images", str(pictures))[0] == 0
    told = run(capsys, "info", str(bundle))[1]
    (line,) = (line for line in told.splitlines() if line.startswith("calibrated on 6 pictures"))
    spans = re.findall(
        r"([\d.]+) to ([\d.]+)", line
    )  # ways may be as good and as fast to two digits
    assert all(first != last for first, last in spans)
    assert not spans or len(case.ways) > 1
    document = json.loads(run(capsys, "info", str(bundle), "--json")[1])
    assert len(document["calibration"]["ways"]) == len(case.ways)
    assert set(document["roles"]) == set(document["stages"])
    assert {f"body of {name}" for name in case.ways} <= set(document["roles"].values())


def test_calibrate(
    capsys, monkeypatch, case: Case, bundle: Path, pictures: Path, labels: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    images = ("--images", str(pictures), *labels)
    status, out, err = run(capsys, "calibrate", str(bundle), *images)
    assert status == 0, err
    assert "agreement" in out
    assert ("top-1" if case.classifies else "AP50") in out
    for name in case.ways:
        assert name in out
    assert "next: dyninfer predict" in out
    with dyninfer.load(bundle) as detector:
        calibration = detector.bundle.calibration()
        assert calibration is not None
        assert calibration.policy == str(detector.policy)
        taken = np.bincount(case.taken, minlength=len(case.ways)) / len(case.taken)
        assert [way.share for way in calibration.ways] == pytest.approx(taken.tolist())
        assert calibration.ways[case.hard].agreement == 1
        assert calibration.ways[0].scores.primary == pytest.approx(0.5 if case.classifies else 1)
        assert calibration.routed is not None
        spent = sum(way.mean_ms * share for way, share in zip(calibration.ways, taken, strict=True))
        assert calibration.routed.mean_ms == pytest.approx(spent)
        assert bool(calibration.rows) is (case.kind == "cascade")
        if case.kind != "cascade":
            table = table_of(out)
            assert len(table) == len(case.ways) + (len(case.ways) > 1)
            with pytest.raises(dyninfer.PolicyError):
                detector.policy = dyninfer.HardFraction(0.3)


def test_eval(capsys, case: Case, bundle: Path, pictures: Path, labels: tuple[str, ...]) -> None:
    images = ("--images", str(pictures), *labels)
    status, out, err = run(capsys, "eval", str(bundle), *images, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    taken = np.bincount(case.taken, minlength=len(case.ways)) / len(case.taken)
    assert document["exit_shares"] == pytest.approx(taken.tolist())
    assert document["hard_fraction"] == pytest.approx(taken[case.hard])
    if case.classifies:
        assert document["accuracy"] == {"top1": 0.5, "top5": 1}
    else:
        assert 0 < document["precision"]["ap"] <= 1
    _, out, _ = run(capsys, "eval", str(bundle), *images)
    assert ", ".join(f"{n} {s:.1%}" for n, s in zip(case.ways, taken, strict=True)) in out
    assert ("one way for all" in out) is (len(case.ways) == 1)
    assert ("every image hard" in out) is False
    easy = json.loads(run(capsys, "eval", str(bundle), *images, "--speed", "easy", "--json")[1])
    assert easy["hard_fraction"] == (len(case.ways) == 1)
    assert easy["exit_shares"][1 + case.hard] == 1


def test_curve(capsys, case: Case, bundle: Path, pictures: Path, labels: tuple[str, ...]) -> None:
    images = ("--images", str(pictures), *labels)
    status, out, err = run(capsys, "eval", str(bundle), *images, "--curve")
    if case.kind == "cascade":
        assert status == 0
        assert "router over random" in out
    else:
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "no curve; leave --curve out" in err


def test_eval_without_labels(capsys, case: Case, bundle: Path, pictures: Path) -> None:
    unknown = pictures.rename(pictures.with_name("gren"))
    status, out, err = run(capsys, "eval", str(bundle), "--images", str(unknown))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "--annotations" in err
    assert ("the nearest class is green" in err) is case.classifies


@pytest.mark.usefixtures("needs_rtx")
def test_build(capsys, bundle: Path) -> None:
    options = ("--backend", "tensorrt-rtx", "--for", "rtx30", "--json")
    status, out, err = run(capsys, "build", str(bundle), *options)
    assert status == 0, err
    with dyninfer.load(bundle) as detector:
        names = set(detector.engines)
    assert set(json.loads(out)["stages"]) == names
    status, out, _ = run(capsys, "info", str(bundle), "--json")
    assert status == 0
    assert len(json.loads(out)["builds"]) == 1
