from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.folder import Bundle
from dyninfer.cli import calibrate as calibrate_module
from dyninfer.errors import PolicyError
from dyninfer.evaluation import runs
from dyninfer.evaluation.dataset import load_samples
from tests.dyninfer.cli.run import run, table_of
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.support import (
    files_below,
    refuses,
    reseal,
    write_priced_select,
    write_select_detectors,
    write_static,
    write_two_exits,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_two_exits(tmp_path / "two.dyn")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_coded(tmp_path / "pictures", range(0, 250, 10))
    return tmp_path / "pictures"


def labels_of(pictures: Path) -> Path:
    return write_labels(pictures / "labels.json", sorted(pictures.glob("*.png")))


def calibrate(capsys, bundle: Path, pictures: Path, *more: str) -> tuple[int, str, str]:
    return run(capsys, "calibrate", str(bundle), "--images", str(pictures), *more)


@pytest.mark.parametrize("labelled", [False, True])
def test_a_table_and_what_to_type_next(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    pictures: Path,
    labelled: bool,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    more = ("--annotations", str(labels_of(pictures))) if labelled else ()
    status, out, err = calibrate(capsys, bundle, pictures, *more)
    assert status == 0
    assert err.startswith("warning: percentiles of 25 pictures are coarse")
    rows = table_of(out)
    assert len(rows) == 12
    assert rows[0].split()[0] == "0.0%"
    assert rows[-1].split()[0] == "100.0%"
    assert max(map(len, table_of(out))) <= 80
    assert ("AP50" in out) is labelled
    # with labels it shows that the last exit finds nothing
    assert ("HardFraction(0.3)" in out) is not labelled
    assert ("the last exit is no better here: a cascade costs accuracy" in err) is labelled
    speed = "easy" if labelled else "30%"
    assert f"dyninfer predict {bundle} PICTURES --speed {speed}" in out
    assert Bundle.open(bundle).calibration() is not None


def test_the_thresholds_written_are_numpy_percentiles_of_what_the_detector_says(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    status, out, _ = calibrate(capsys, bundle, pictures, "--json", "--time-images", "3")
    assert status == 0
    document = json.loads(out)
    with dyninfer.load(bundle) as detector:
        easiness = [detector(path).easiness for path in sorted(pictures.glob("*.png"))]
    expected = np.percentile(np.array(easiness, np.float64), range(101))
    np.testing.assert_array_equal([row["threshold"] for row in document["rows"]], expected)
    # three pictures, in as many passes as it takes
    assert {len(samples) % 3 for samples in document["exit_ms"]} == {0}
    calibration = Bundle.open(bundle).calibration()
    assert calibration is not None
    assert json.loads(calibration.model_dump_json()) == document


def test_a_risk_is_certified_and_its_assumptions_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    status, out, _ = calibrate(capsys, bundle, pictures, "--risk", "0.3", "--confidence", "0.9")
    assert status == 0
    assert "expected loss at most 0.3 with 0.9 confidence" in out
    assert "assumed" in out
    calibration = Bundle.open(bundle).calibration()
    assert calibration is not None
    assert calibration.certificate is not None
    assert calibration.certificate.measured_risk <= 0.3


def test_exits_that_disagree_too_much_are_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    write_coded(tmp_path / "same", [100] * 40)  # here the exits never agree
    more = ("--risk", "0.3", "--confidence", "0.9")
    status, out, _ = calibrate(capsys, bundle, tmp_path / "same", *more)
    assert status == 0
    assert "only all pictures hard can be certified" in out
    assert "40 pictures" in out


def test_too_few_pictures_for_a_risk_are_told_how_many_are_needed(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    from dyninfer.routing.certify import images_needed

    status, out, _ = calibrate(capsys, bundle, pictures, "--risk", "0.01")
    assert status == 0
    assert f"25 pictures will not do: {images_needed(0.01, 0.95)} would be needed" in out


def test_an_impossible_risk_is_refused_at_once(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    status, _, err = calibrate(capsys, bundle, pictures, "--risk", "1.5")
    assert status == 2
    assert "risk is 1.5" in err
    assert not (bundle / "calibration.json").exists()


def test_equal_easiness_is_told_and_no_fraction_is_suggested(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    write_coded(tmp_path / "same", [100] * 4)
    status, out, err = calibrate(capsys, bundle, tmp_path / "same")
    assert status == 0
    assert "router collapsed: always the same exit; every picture has the same easiness" in err
    assert "HardFraction(0.3)" not in out
    assert "AlwaysHard()" in out
    assert [row.split()[0] for row in table_of(out)] == ["0.0%", "100.0%"]


def test_a_calibration_that_was_changed_is_told_and_replaced(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    calibrate(capsys, bundle, pictures)
    path = bundle / "calibration.json"
    path.write_text(path.read_text().replace('"count": 25', '"count": 26'))
    status, out, err = run(capsys, "info", str(bundle))
    assert (status, err) == (0, "")
    assert "run dyninfer calibrate again" in out
    status, out, err = run(capsys, "info", str(bundle), "--json")
    assert (status, json.loads(out)["calibration"]) == (0, None)
    assert "was changed" in err
    before = files_below(bundle)
    assert calibrate(capsys, bundle, pictures.with_name("nowhere"))[0] == 1
    assert files_below(bundle) == before
    status, _, err = calibrate(capsys, bundle, pictures)
    assert status == 0
    assert "it is replaced" in err
    calibration = Bundle.open(bundle).calibration()
    assert calibration is not None
    assert calibration.images.count == 25


def test_a_last_exit_that_finds_nothing_is_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    assert "finds nothing" not in calibrate(capsys, bundle, pictures)[2]
    reseal(bundle, lambda manifest: manifest.update(postprocess={"confidence": 1.0}))
    _, _, err = calibrate(capsys, bundle, pictures)
    told = "the last exit finds nothing above its confidence of 1 in any picture (25)"
    assert told in err


def test_one_exit_for_all_by_default_is_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    write_coded(tmp_path / "easy", range(130, 250, 10))  # easiness above 0.5
    _, _, err = calibrate(capsys, bundle, tmp_path / "easy")
    assert "by default (threshold 0.5) every picture leaves at the same exit, exit 0" in err
    assert "collapsed" not in err
    select = write_select_detectors(tmp_path / "select.dyn")
    _, _, err = calibrate(capsys, select, tmp_path / "easy")
    assert "chooser collapsed: always the same branch" in err


def test_times_that_do_not_settle_and_the_load_they_are_of_are_told(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundle: Path,
    pictures: Path,
) -> None:
    monkeypatch.setattr(runs, "NARROW", 0.0)
    monkeypatch.setattr(
        calibrate_module, "disturbances_of", lambda _log: ["other processes used 1.3 cores"]
    )
    status, out, err = calibrate(capsys, bundle, pictures, "--time-images", "5")
    assert status == 0
    assert "warning: times did not settle: exit 0 " in err
    assert "warning: other processes used 1.3 cores" in err
    assert f"means of {5 * runs.MOST_PASSES} calls with one picture" in out


def test_labels_with_nothing_to_find_are_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    labels = labels_of(pictures)
    document = json.loads(labels.read_text())
    labels.write_text(json.dumps({**document, "annotations": []}))
    status, out, err = calibrate(capsys, bundle, pictures, "--annotations", str(labels))
    assert status == 0
    assert "so there is no AP" in err
    assert "AP50" not in out


def test_a_router_that_was_fitted_on_these_pictures_is_told(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    paths = sorted(pictures.glob("*.png"))
    seen = load_samples(paths, None, ()).sha256()
    (bundle / "router.json").write_text(dump_sealed({"images_sha256": seen}))
    assert "fitted on these very pictures" in calibrate(capsys, bundle, pictures)[2]
    paths[0].unlink()
    assert "fitted on these very pictures" not in calibrate(capsys, bundle, pictures)[2]


def test_pictures_that_cannot_be_read_are_left_out_with_a_warning(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path
) -> None:
    (pictures / "broken.png").write_bytes(b"no picture")
    status, out, err = calibrate(capsys, bundle, pictures)
    assert status == 0
    assert "broken.png" in err
    assert out.startswith("25 pictures")


@pytest.mark.parametrize(
    ("reds", "message"), [([], "holds no pictures"), ([5], "1 usable picture given")]
)
def test_too_few_pictures_are_refused(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    tmp_path: Path,
    reds: list[int],
    message: str,
) -> None:
    write_coded(tmp_path / "few", reds)
    before = files_below(bundle)
    status, out, err = calibrate(capsys, bundle, tmp_path / "few")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert message in err
    assert files_below(bundle) == before


def test_what_does_not_decide_yet_and_risks_without_a_threshold_are_refused(
    capsys: pytest.CaptureFixture[str], pictures: Path, tmp_path: Path
) -> None:
    static = write_static(tmp_path / "static.dyn")
    status, _, err = calibrate(capsys, static, pictures, "--risk", "0.1")
    assert (status, "one exit" in err, "--risk" in err) == (1, True, True)
    assert not (static / "calibration.json").exists()
    plain = write_two_exits(tmp_path / "plain.dyn", router=False)
    status, _, err = calibrate(capsys, plain, pictures)
    assert (status, "dyninfer fit-router" in err) == (1, True)


def test_a_failure_leaves_the_older_calibration(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    calibrate(capsys, bundle, pictures)
    before = files_below(bundle)
    for path in sorted(pictures.glob("*.png"))[1:]:
        path.write_bytes(b"no picture")
    status, _, err = calibrate(capsys, bundle, pictures)
    assert status == 1
    assert "1 usable picture" in err
    labels = labels_of(tmp_path)
    status, _, _ = calibrate(capsys, bundle, pictures, "--annotations", str(labels))
    assert status == 1
    assert files_below(bundle) == before


def test_info_shows_the_calibration_and_whether_it_fits(
    capsys: pytest.CaptureFixture[str], bundle: Path, pictures: Path, tmp_path: Path
) -> None:
    _, out, _ = run(capsys, "info", str(bundle))
    assert "not calibrated yet" in out
    calibrate(capsys, bundle, pictures, "--annotations", str(labels_of(pictures)))
    _, out, _ = run(capsys, "info", str(bundle))
    assert "calibrated on 25 pictures (AP 100.0 to 0.0)" in out
    _, out, _ = run(capsys, "info", str(bundle), "--json")
    document = json.loads(out)["calibration"]
    assert document["fits_stages"] is True
    assert "easiness" not in document

    def rename(manifest: dict) -> None:
        manifest["stages"]["head"]["sha256"] = manifest["stages"]["first"]["sha256"]
        manifest["stages"]["head"]["file"] = manifest["stages"]["first"]["file"]

    reseal(bundle, rename)
    _, out, _ = run(capsys, "info", str(bundle))
    assert "calibrated before its stages changed" in out
    plain = write_two_exits(tmp_path / "plain.dyn", router=False)
    _, out, _ = run(capsys, "info", str(plain))
    assert "dyninfer fit-router" in out


def test_a_choosers_table_goes_along_its_cost_bias(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    bundle = write_priced_select(tmp_path / "select.dyn")
    pictures = write_coded(tmp_path / "pictures", range(0, 250, 10), green=100)
    labels = write_labels(tmp_path / "labels.json", pictures)
    status, out, _ = calibrate(capsys, bundle, tmp_path / "pictures", "--annotations", str(labels))
    assert status == 0
    _, along = out.split("along the cost bias")
    assert max(map(len, table_of(along))) <= 80
    rows = [line.split() for line in table_of(along)]
    # branch 1, of 300 million, is right for red below 100: 10 of 25 pictures; the chooser costs 10
    assert ["0", "190", "M", "60/40"] in [row[:4] for row in rows]
    assert (rows[0][1:4], rows[-1][1:4]) == (["110", "M", "100/0"], ["310", "M", "0/100"])
    assert [row[-3] for row in rows] == sorted((row[-3] for row in rows), key=float, reverse=True)
    expected = "expected as chosen: 190 M MACs per image (branch 0 60.0%, branch 1 40.0%)"
    assert expected in " ".join(out.split())
    assert "--speed 0.21GMACs" in out
    assert "dyninfer.MacsBudget(gmacs=0.21)" in out
    _, told, _ = run(capsys, "info", str(bundle))
    assert expected in " ".join(told.split())
    assert table_of(told.split("along the cost bias")[1]) == table_of(along)
    _, told, _ = run(capsys, "info", str(bundle), "--json")
    document = json.loads(told)["calibration"]
    assert (document["routed"]["mean_macs"], "choice_scores" in document) == (190e6, False)


def test_what_the_table_says_of_a_bias_is_what_predict_does_with_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = write_priced_select(tmp_path / "select.dyn")
    pictures = write_coded(tmp_path / "pictures", range(0, 250, 10), green=100)
    calibrate(capsys, bundle, tmp_path / "pictures")
    (calibration,) = Bundle.open(bundle).calibrations()
    images = list(map(str, pictures))
    with dyninfer.load(bundle) as detector:
        for row in calibration.biases:
            detector.policy = dyninfer.parse_speed(f"bias={row.bias:.6g}")
            ways = [found.exit_index for found in detector(images)]
            assert np.bincount(ways, minlength=2).tolist() == pytest.approx(
                25 * np.array(row.shares)
            )
        detector.policy = dyninfer.MacsBudget(gmacs=0.15)  # 0.11 G, and 0.2 G of five pictures
        assert sum(found.exit_index for found in detector(images)) == 5
        with refuses(PolicyError, "HardFraction reads an easiness", "MacsBudget"):
            detector.policy = dyninfer.HardFraction(0.3)
    status, out, _ = run(
        capsys,
        "predict",
        str(bundle),
        images[0],
        "--speed",
        "150MMACs",
        "-o",
        str(tmp_path / "out"),
    )
    assert (status, "0.15 GMACs on average: cost bias" in out) == (0, True)
