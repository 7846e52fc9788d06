"""What a calibration's own tables and lines say, each by a small computation beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.calibration import Calibration
from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.folder import ROUTER_FILE, Bundle
from dyninfer.evaluation.calibrate import (
    FITTED_ON_THESE,
    cautions,
    make_biases,
    make_calibration,
    remarks,
)
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import Outcomes, run_samples
from dyninfer.evaluation.runs import WayTimes
from dyninfer.results.scores import Scores
from tests.dyninfer.calibrations import calibration_of, choosing, spread
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.support import (
    write_priced_select,
    write_static,
    write_three_exits,
    write_two_exits,
)

BIASES = 11
MACS = (110_000_000, 310_000_000)  # of branches behind a chooser of 10 million


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[dyninfer.Detector, Outcomes]:
    """A chooser's scores are red and green; of 21 pictures it sends 8 to the dear branch."""
    folder = tmp_path_factory.mktemp("priced")
    detector = dyninfer.load(write_priced_select(folder / "priced.dyn"))
    pictures = write_coded(folder / "pictures", range(0, 252, 12), green=95)
    labels = write_labels(folder / "labels.json", pictures)
    samples = load_samples(pictures, labels, detector.class_names)
    return detector, run_samples(detector, samples)


TIMES = WayTimes(((2.0, 4.0), (10.0, 12.0)), ({}, {}))


def test_biases_stand_evenly_between_the_cheapest_and_the_dearest(priced) -> None:
    detector, outcomes = priced
    rows = make_biases(outcomes, TIMES, detector.points)
    red, green = outcomes.choice_scores.astype(np.float64).T
    for row in rows:
        dear = float((green - row.bias > red).mean())
        assert row.shares == pytest.approx((1 - dear, dear))
        assert row.mean_macs == pytest.approx(np.dot(row.shares, MACS))
        assert row.mean_ms == pytest.approx(3 * (1 - dear) + 11 * dear)
    dear = [row.shares[1] for row in rows]
    assert dear == sorted(set(dear))
    # 21 pictures in tenths, rounded down to whole ones; and the chooser's own 8
    steps = {21 * tenth // (BIASES - 1) for tenth in range(BIASES)}
    assert dear == pytest.approx([step / 21 for step in sorted(steps | {8})])
    assert [row.shares[1] for row in rows if row.bias == 0] == pytest.approx([8 / 21])


def test_a_choosers_calibration_holds_its_scores_by_branch(priced) -> None:
    detector, outcomes = priced
    made = make_calibration(detector, outcomes, TIMES, None)
    red = np.arange(0, 252, 12) / 255
    np.testing.assert_allclose(made.choice_scores_array, [red, np.full(21, 95 / 255)], atol=1e-6)
    assert (made.rows, made.easiness) == ((), ())
    assert [way.share for way in made.ways] == pytest.approx([13 / 21, 8 / 21])
    assert made.macs == MACS
    assert made.exit_ms == TIMES.ms
    assert made.routed is not None
    assert made.routed.mean_macs == pytest.approx(np.dot((13 / 21, 8 / 21), MACS))
    # branch 0 finds every object, the dearest none of them
    assert [way.scores.primary for way in made.ways] == [pytest.approx(1), 0]
    assert [way.agreement for way in made.ways] == [0, 1]
    assert made.routed.agreement == pytest.approx(8 / 21)


def test_few_pictures_and_ties_are_told_from_where_they_matter() -> None:
    (few,) = cautions(np.linspace(0, 1, 40)[None])
    assert few.startswith("percentiles of 40 pictures are coarse, steps of 2.5 %; give 100 or more")
    tied = np.linspace(0, 1, 200)[None].copy()
    tied[0, :10] = 0.5  # a twentieth, which is not yet many
    assert cautions(tied) == []
    tied[0, 10] = 0.5
    (line,) = cautions(tied)
    assert line.startswith("11 of 200 pictures share one easiness (0.5)")
    ten = np.linspace(0, 1, 10)[None].copy()
    assert len(cautions(ten)) == 1  # one picture shares nothing
    ten[0, 0] = ten[0, 1]
    assert len(cautions(ten)) == 2


def with_scores(calibration: Calibration, *primary: float | None) -> Calibration:
    ways = tuple(
        way.model_copy(update={"scores": Scores(score)})
        for way, score in zip(calibration.ways, primary, strict=True)
    )
    return calibration.model_copy(update={"ways": ways})


def write_router_record(bundle: Bundle, record: dict[str, str]) -> None:
    (bundle.path / ROUTER_FILE).write_text(dump_sealed(record), encoding="utf-8")


def test_a_calibration_is_remarked_on_line_by_line(tmp_path: Path) -> None:
    bundle = Bundle.open(write_two_exits(tmp_path / "two.dyn"))
    made = calibration_of(spread(200))
    assert remarks(bundle, made) == []
    (worse,) = remarks(bundle, with_scores(made, 0.4, 0.3))
    assert worse.endswith("a cascade costs accuracy (AP 30.0, exit 0 40.0, on 200 pictures)")
    assert remarks(bundle, with_scores(made, 0.3, 0.4)) == []
    labelled = made.model_copy(
        update={"images": made.images.model_copy(update={"labels_sha256": "d"})}
    )
    (nothing,) = remarks(bundle, labelled)
    assert nothing == "the annotations list no objects in these pictures, so there is no AP"
    assert remarks(bundle, with_scores(labelled, 0.3, 0.4)) == []
    write_router_record(bundle, {"images_sha256": "another"})
    assert remarks(bundle, made) == []
    write_router_record(bundle, {"images_sha256": "c"})
    assert remarks(bundle, made) == [FITTED_ON_THESE]


def test_a_policy_that_always_decides_alike_is_told(tmp_path: Path) -> None:
    bundle = Bundle.open(write_two_exits(tmp_path / "two.dyn"))
    made = calibration_of(spread(200)).model_copy(update={"policy": "threshold 0"})
    for taken, name in ((0, "exit 0"), (1, "exit 1")):
        ways = tuple(
            way.model_copy(update={"share": float(number == taken)})
            for number, way in enumerate(made.ways)
        )
        (line,) = remarks(bundle, made.model_copy(update={"ways": ways}))
        assert line == f"by default (threshold 0) every picture leaves at the same exit, {name}"
    same = calibration_of(np.full((1, 200), 0.25))
    ways = tuple(way.model_copy(update={"share": 1.0 - n}) for n, way in enumerate(same.ways))
    (collapsed,) = remarks(bundle, same.model_copy(update={"ways": ways}))
    assert "router collapsed" in collapsed


def test_of_an_ordinary_detector_there_is_nothing_to_remark(tmp_path: Path) -> None:
    made = calibration_of(spread(200))
    one = {"ways": (made.ways[0].model_copy(update={"share": 1.0}),), "exit_ms": made.exit_ms[:1]}
    static = made.model_copy(update=one | {"easiness": (), "rows": (), "losses": ()})
    assert remarks(Bundle.open(write_static(tmp_path / "static.dyn")), static) == []


def test_the_last_exit_is_the_one_without_a_score_where_there_is_nothing_to_find(tmp_path) -> None:
    bundle = Bundle.open(write_three_exits(tmp_path / "three.dyn"))
    made = calibration_of(np.repeat(spread(200), 2, axis=0), ((1.0,), (2.0,), (3.0,)))
    images = made.images.model_copy(update={"labels_sha256": "d"})
    labelled = made.model_copy(update={"images": images})
    assert remarks(bundle, with_scores(labelled, 0.2, None, 0.3)) == []
    assert len(remarks(bundle, with_scores(labelled, 0.2, 0.3, None))) == 1


def test_a_chooser_that_always_chooses_alike_is_told(tmp_path: Path) -> None:
    bundle = Bundle.open(write_priced_select(tmp_path / "priced.dyn"))
    scores = np.array([[0.9, 0.1]] * 100)
    (line,) = remarks(bundle, choosing(scores, MACS, ((2.0,), (10.0,))))
    assert line == "chooser collapsed: always the same branch, branch 0"
    scores[0] = 0.1, 0.9
    assert remarks(bundle, choosing(scores, MACS, ((2.0,), (10.0,)))) == []
