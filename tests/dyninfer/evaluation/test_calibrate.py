from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import InputError, PolicyError
from dyninfer.evaluation.calibrate import (
    PERCENTILES,
    cautions,
    check_calibratable,
    check_threshold,
    make_calibration,
)
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.outcomes import pictures_to_time, run_samples
from dyninfer.evaluation.runs import WayTimes
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import HardFraction
from dyninfer.routing.policy import AlwaysEasy, Threshold
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.support import refuses, write_select_detectors, write_static, write_two_exits

REDS = (0, 51, 102, 153, 204)  # easiness 0, .2, .4, .6, .8
TWO_TIMES = WayTimes(((1.0, 3.0), (10.0, 10.0)), ({}, {}))


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    pictures = write_coded(tmp_path / "pictures", REDS)
    labels = write_labels(tmp_path / "labels.json", pictures)
    return load_samples(pictures, labels, ("left", "right"))


def unlabelled(samples: Samples) -> Samples:
    return load_samples([item.path for item in samples.items], None, ("left", "right"))


def calibrated(detector: dyninfer.Detector, samples: Samples) -> Calibration:
    return make_calibration(detector, run_samples(detector, samples), TWO_TIMES, None)


def test_thresholds_are_numpy_percentiles_of_the_easiness(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    rows = calibrated(two_exits, samples).rows
    easiness = np.array(REDS, np.float32) / np.float32(255)
    assert [row.percentile for row in rows] == list(PERCENTILES)
    expected = np.percentile(easiness.astype(np.float64), PERCENTILES)
    np.testing.assert_allclose([row.threshold for row in rows], expected, atol=1e-7)


def test_a_row_tells_share_time_precision_and_agreement(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    calibration = calibrated(two_exits, samples)
    none, half, most = (calibration.rows[p] for p in (0, 50, 100))
    # the largest easiness is not below itself
    assert [row.hard_fraction for row in (none, half, most)] == [0, 0.4, 0.8]
    assert [row.mean_ms for row in (none, half, most)] == [2, 0.6 * 2 + 0.4 * 10, 0.2 * 2 + 8]
    # exit 0 finds every object exactly; exit 1 looks elsewhere
    assert none.scores.primary == pytest.approx(1)
    assert none.agreement == 0
    assert half.agreement == pytest.approx(0.4)
    assert half.scores.primary is not None
    assert 0 < half.scores.primary < 1
    assert calibration.ways[-1].scores == Scores(0, 0)


def test_without_labels_there_is_no_precision(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    calibration = calibrated(two_exits, unlabelled(samples))
    assert {row.scores for row in (*calibration.rows, *calibration.ways)} == {Scores()}
    assert calibration.images.labels_sha256 is None


def test_a_written_calibration_resolves_a_hard_fraction(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    written = calibrated(two_exits, samples)
    two_exits.bundle.write_calibration(written)
    assert two_exits.bundle.calibration() == written
    two_exits.policy = HardFraction(0.4)
    assert two_exits.active_policy == Threshold(written.rows[40].threshold)
    exits = [two_exits(item.path).exit_index for item in samples.items]
    assert exits == [1, 1, 0, 0, 0]


def test_the_table_says_what_the_detector_does_on_the_same_pictures(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    # thresholds between, and exactly at, values that float32 rounds; and many ties
    reds = [0, 1, 2, 3, 3, 3, 7, 77, 85, 85, 128, 254, 255]
    samples = load_samples(write_coded(tmp_path / "pictures", reds), None, ("left", "right"))
    two_exits.bundle.write_calibration(calibrated(two_exits, samples))
    written = two_exits.bundle.calibration()
    assert written is not None
    paths = [item.path for item in samples.items]
    easiness = written.easiness_array[0]
    for row in written.rows:
        assert row.threshold == np.percentile(easiness, row.percentile)
        two_exits.policy = Threshold(row.threshold)
        hard = [found.exit_index for found in two_exits(paths)]
        assert np.mean(hard) == row.hard_fraction
    for value in easiness:
        two_exits.policy = Threshold(float(value))
        hard = [found.exit_index for found in two_exits(paths)]
        assert hard == (easiness < value).astype(int).tolist()


def test_three_exits_share_one_threshold(three_exits: dyninfer.Detector, tmp_path: Path) -> None:
    pictures = write_coded(tmp_path / "pictures", REDS, green=128)
    outcomes = run_samples(three_exits, load_samples(pictures, None, ("left", "right")))
    assert outcomes.hardest == 2
    times = WayTimes(((1.0,), (2.0,), (4.0,)), ({}, {}, {}))
    calibration = make_calibration(three_exits, outcomes, times, None)
    assert calibration.easiness_array.shape == calibration.losses_array.shape == (2, 5)
    # the later router says 0.5 to all: only .6 and .8 leave at the first exit below that
    row = next(row for row in calibration.rows if row.threshold > 0.51)
    assert row.hard_fraction == pytest.approx(0.6)
    # none reaches the last exit, but those three leave at the second one
    assert calibration.rows[0].mean_ms == pytest.approx(0.4 * 1 + 0.6 * 2)


def test_the_policy_is_left_alone(two_exits: dyninfer.Detector, samples: Samples) -> None:
    two_exits.policy = AlwaysEasy()
    run_samples(two_exits, samples)
    assert two_exits.policy == AlwaysEasy()


def test_pictures_that_cannot_be_read_are_left_out_with_one_warning(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    for item in samples.items[:2]:
        item.path.write_bytes(b"no picture")
    outcomes = run_samples(two_exits, samples)
    assert len(outcomes.samples.items) == outcomes.easiness.shape[1] == 3
    assert outcomes.scores is not None
    assert outcomes.scores.at([0, 0, 0]).primary == pytest.approx(1)
    (warning,) = outcomes.samples.warnings
    assert warning.startswith("left out, unreadable: 2 pictures: ")
    assert "000.png" in warning


def test_one_readable_picture_is_refused(two_exits: dyninfer.Detector, samples: Samples) -> None:
    for item in samples.items[1:]:
        item.path.write_bytes(b"no picture")
    with refuses(InputError, "1 usable picture given", "at least 2", "100"):
        run_samples(two_exits, samples)


def test_what_does_not_decide_yet_is_refused(tmp_path: Path) -> None:
    static = Bundle.open(write_static(tmp_path / "static.dyn")).manifest
    check_calibratable(static, 10)
    with refuses(PolicyError, "one exit", "leave it out"):
        check_threshold(static, "no threshold; leave it out")
    select = Bundle.open(write_select_detectors(tmp_path / "select.dyn")).manifest
    check_calibratable(select, 10)
    with refuses(PolicyError, "chooser", "leave it out"):
        check_threshold(select, "no threshold; leave it out")
    plain = Bundle.open(write_two_exits(tmp_path / "plain.dyn", router=False)).manifest
    with refuses(PolicyError, "no router", "dyninfer fit-router"):
        check_calibratable(plain, 10)
    routed = Bundle.open(write_two_exits(tmp_path / "routed.dyn")).manifest
    check_calibratable(routed, 2)
    check_threshold(routed, "")
    with refuses(InputError, "1 usable picture given"):
        check_calibratable(routed, 1)


def test_what_a_user_should_know_is_one_line_each() -> None:
    rng = np.random.default_rng(0)
    assert cautions(rng.random((1, 100))) == []
    (few,) = cautions(rng.random((1, 99)))
    assert "99 pictures" in few
    constant = np.full((1, 200), 0.5)
    (same,) = cautions(constant)
    assert "same easiness" in same
    assert "HardFraction" in same
    (rounding,) = cautions(0.5 + 1e-6 * rng.random((1, 200)))
    assert "router collapsed: always the same exit; every easiness is 0.5000" in rounding
    tied = rng.random((1, 200))
    tied[0, :20] = 0.25
    zero = tied.copy()
    zero[0, :20] = 0
    assert cautions(zero)[0].startswith("20 of 200 pictures share one easiness (0)")
    (ties,) = cautions(tied)
    assert ties.startswith("20 of 200 pictures share one easiness (0.25)")
    broken = rng.random((2, 200))
    broken[1, :3] = np.nan
    (nans,) = cautions(broken)
    assert nans == "an easiness of NaN counts as hard; 3 pictures had it"
    broken[1, 3:50] = np.nan
    (nans,) = cautions(broken)
    assert nans == "an easiness of NaN counts as hard; 50 pictures had it"
    broken[:] = np.nan
    nans, same = cautions(broken)
    assert "same easiness" in same


@pytest.mark.parametrize(
    ("count", "tied", "told"), [(200, 10, False), (200, 11, True), (10, 1, False), (10, 2, True)]
)
def test_ties_are_told_beyond_a_twentieth_of_the_pictures_and_from_two_on(count, tied, told):
    easiness = np.linspace(0.1, 0.9, count)[None].copy()
    easiness[0, :tied] = 0.05
    found = cautions(easiness)
    shared = f"{tied} of {count} pictures share one easiness (0.05); no threshold can"
    assert [line[: len(shared)] for line in found if "share one" in line] == [shared] * told
    coarse = "percentiles of 10 pictures are coarse, steps of 10.0 %; give 100 or more"
    assert [line for line in found if "coarse" in line] == [coarse] * (count == 10)


def test_pictures_to_time_are_spread_evenly(samples: Samples) -> None:
    names = [item.path.name for item in pictures_to_time(samples, 3)]
    assert names == ["000.png", "002.png", "004.png"]
    assert len(pictures_to_time(samples, 100)) == 5
    assert len(pictures_to_time(samples, 1)) == 1


def test_pictures_of_another_size_than_annotated_are_told(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    pictures = write_coded(tmp_path / "pictures", REDS)
    labels = write_labels(tmp_path / "labels.json", pictures)
    document = json.loads(labels.read_text())
    for image in document["images"][:2]:
        image.update(width=16, height=12)
    for image in document["images"][2:4]:
        image.update(width=8, height=8)
    labels.write_text(json.dumps(document))
    samples = load_samples(pictures, labels, ("left", "right"))
    (warning,) = run_samples(two_exits, samples).samples.warnings
    assert warning.startswith("of another size than the annotations say: 2 pictures: ")
    assert "000.png has 8x8 (width, height), not 16x12" in warning
