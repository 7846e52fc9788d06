from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dyninfer
from dyninfer.evaluation import routed_curve
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import run_samples
from dyninfer.evaluation.routed_curve import (
    CurveRow,
    break_even,
    evaluate_curve,
    oracle_exits,
    routing_quality,
    shuffled,
)
from dyninfer.evaluation.routed_precision import RoutedPrecision, match_picture
from dyninfer.evaluation.runs import WayTimes
from dyninfer.results.answers import Detections
from dyninfer.results.scores import Scores
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.dyninfer.evaluation.test_routed_precision import random_pictures


def row(hard: float, ms: float, ap: float, random: tuple[float, ...], oracle: float) -> CurveRow:
    return CurveRow(0.5, hard, ms, Scores(ap, ap), random, oracle)


ROWS = [
    row(0, 4, 0.5, (0.5, 0.5), 0.5),
    row(0.25, 5, 0.6, (0.52, 0.54), 0.7),
    row(0.75, 7, 0.66, (0.58, 0.6), 0.7),
    row(1, 8, 0.65, (0.65, 0.65), 0.65),
]


def test_quality_is_the_mean_over_the_rows_between_the_ends() -> None:
    quality = routing_quality(ROWS, last_exit_alone_ms=6, error_ms=1)
    assert quality.over_random.mean == pytest.approx(0.63 - 0.56)
    assert quality.over_random.std == pytest.approx(0.01)
    assert quality.below_oracle == pytest.approx(0.7 - 0.63)
    assert quality.share_of_oracle == pytest.approx(0.5)
    assert quality.break_even == pytest.approx(0.5)
    assert quality.break_even_interval == pytest.approx((0.25, 0.75))
    unknown = routing_quality(ROWS, last_exit_alone_ms=6, error_ms=math.inf)
    assert unknown.break_even_interval == (0, 1)


def test_an_oracle_that_gains_nothing_has_no_share() -> None:
    flat = [row(h, 1, 0.5, (0.5,), 0.5) for h in (0, 0.5, 1)]
    assert routing_quality(flat, 1, 0).share_of_oracle is None


@pytest.mark.parametrize(
    ("alone_ms", "expected"), [(3, 0), (4, 0), (4.5, 0.125), (7.5, 0.875), (8, 1), (9, 1)]
)
def test_break_even_is_where_the_cascade_takes_as_long(alone_ms: float, expected: float) -> None:
    assert break_even(ROWS, alone_ms) == pytest.approx(expected)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 99))
def test_chance_and_oracle_send_as_many_to_each_exit(exits: list[int], seed: int) -> None:
    array = np.array(exits)
    gains = np.random.default_rng(seed).normal(size=len(exits))
    for other in (shuffled(array, seed), oracle_exits(array, gains)):
        assert sorted(other) == sorted(exits)


def test_the_oracle_sends_on_what_gains_most() -> None:
    exits = oracle_exits(np.array([0, 2, 0, 1]), np.array([0.1, -0.5, 0.9, 0.4]))
    assert exits.tolist() == [0, 0, 2, 1]


def test_a_gain_is_the_picture_s_own_precision_at_the_last_exit_less_the_first() -> None:
    truths, found = random_pictures(1, 6, exits=3)
    pairs = list(zip(truths, found, strict=True))
    gains = RoutedPrecision([match_picture(t, ways) for t, ways in pairs]).gains()
    backwards = RoutedPrecision([match_picture(t, ways[::-1]) for t, ways in pairs]).gains()
    assert np.abs(gains).max() > 0
    np.testing.assert_array_equal(gains, -backwards)
    assert RoutedPrecision([]).gains().shape == (0,)
    truth, box = Truth(np.array([[0.0, 0, 9, 9]]), np.array([1])), [[0, 0, 9, 9]]
    exact, missed = (
        Detections(np.array(box, np.float32), np.ones(1, np.float32), np.array([class_id]), ("",))
        for class_id in (1, 0)
    )
    for ways, gain in (((missed, exact), 1), ((exact, missed), -1), ((exact, missed, exact), 0)):
        assert RoutedPrecision([match_picture(truth, ways)]).gains() == pytest.approx([gain])


def test_the_curve_runs_from_all_easy_to_all_hard(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    pictures = write_coded(tmp_path / "pictures", range(0, 250, 10))
    labels = write_labels(tmp_path / "labels.json", pictures)
    outcomes = run_samples(two_exits, load_samples(pictures, labels, ("left", "right")))
    steps = {"prepare": 1.0, "first": 3.0, "router": 1.0, "second": 3.0, "postprocess": 0.0}
    times = WayTimes(((6.0,), (8.0,)), ({"prepare": 1.0, "postprocess": 0.0}, steps))
    curve = evaluate_curve(two_exits.manifest, outcomes, times, seeds=3)
    assert [exit_.primary for exit_ in curve.exits] == [pytest.approx(1), 0]
    hard = [row.hard_fraction for row in curve.rows]
    assert hard == sorted(hard)
    assert (hard[0], hard[-1]) == (0, 1)
    assert hard[10] == pytest.approx(0.48)  # 12 of 25: the median itself is not below itself
    assert [len(row.by_chance) for row in curve.rows] == [3] * 21
    assert curve.rows[0].score == curve.rows[0].oracle == pytest.approx(1)
    assert [curve.rows[-1].score, curve.rows[-1].oracle, *curve.rows[-1].by_chance] == [0] * 5
    # the second body reads the image alone: 1 + 3 + 0 ms
    assert curve.last_exit_alone_ms == pytest.approx(4)
    assert curve.quality.break_even == 0
    assert [line.partition(" ms")[0] for line in curve.advice] == [
        "the last exit is no better here: a cascade costs accuracy (AP 0.0, exit 0 100.0, on 25 "
        "pictures)",
        "do not cascade: with every image easy it is 6.00",
    ]
    assert curve.exit_ms == (6, 8)
    again = evaluate_curve(two_exits.manifest, outcomes, times, seeds=3)
    assert again.rows == curve.rows
    told: list[int] = []
    usual = evaluate_curve(two_exits.manifest, outcomes, times, progress=lambda: told.append(1))
    assert len(told) == len(usual.rows) == routed_curve.ROWS
    assert {len(row.by_chance) for row in usual.rows} == {20}
    better = WayTimes(((2.0,), (8.0,)), times.step_ms)
    assert len(evaluate_curve(two_exits.manifest, outcomes, better, seeds=1).advice) == 1
