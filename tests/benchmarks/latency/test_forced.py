from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.benchmarks.latency.forced import (
    ForcedHard,
    ForcedWay,
    as_fraction,
    calls_in_period,
    hard_rows_by_call,
    spread_rows,
)
from dyninfer.routing.policy import DecisionPoint, Policy
from tests import support

percents = st.integers(0, 100).map(lambda percent: percent / 100)
batches = st.integers(1, 16)


def masks_of(policy: ForcedHard, calls: int) -> np.ndarray:
    """(calls, batch), as the first exit asks; what the easiness is must not matter."""
    easiness = np.linspace(0, 1, policy.batch, dtype=np.float32)
    point = first_of_two(policy.batch)
    return np.array([policy.decide(easiness, point) == 1 for _ in range(calls)])


def first_of_two(images: int) -> DecisionPoint:
    ways = (frozenset({0}), frozenset({1}))
    return DecisionPoint(0, "easiness", ways, np.arange(images))


def test_a_quarter_of_eight_is_two_rows_in_every_call() -> None:
    masks = masks_of(ForcedHard(0.25, 8), 40)
    assert (masks.sum(axis=1) == 2).all()


def test_a_quarter_of_single_images_is_one_in_every_four_calls() -> None:
    hard = masks_of(ForcedHard(0.25, 1), 40).reshape(-1, 4)
    assert (hard.sum(axis=1) == 1).all()


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, False), (1.0, True)])
def test_none_and_all(fraction: float, expected: bool) -> None:
    assert (masks_of(ForcedHard(fraction, 3), 7) == expected).all()


@settings(deadline=None)
@given(percents, batches)
def test_every_period_holds_the_exact_share(fraction: float, batch: int) -> None:
    period = calls_in_period(fraction, batch)
    counts = masks_of(ForcedHard(fraction, batch), 2 * period).sum(axis=1)
    exact = as_fraction(fraction) * batch * period
    assert counts[:period].sum() == counts[period:].sum() == exact
    assert set(counts.tolist()) <= {math.floor(fraction * batch + 1e-9), math.ceil(exact / period)}


@settings(deadline=None)
@given(percents, batches)
def test_no_part_of_a_run_is_far_from_the_share(fraction: float, batch: int) -> None:
    share = as_fraction(fraction) * batch
    total = np.cumsum(hard_rows_by_call(fraction, batch))
    drift = [abs(Fraction(int(sum_)) - share * (call + 1)) for call, sum_ in enumerate(total)]
    assert max(drift) <= 6  # shuffled among ten neighbours, of which each is off by less than one


@settings(deadline=None)
@given(batches, st.data())
def test_hard_rows_lie_evenly_apart(batch: int, data: st.DataObject) -> None:
    hard = data.draw(st.integers(0, batch))
    mask = spread_rows(hard, batch, data.draw(st.integers(0, 100)))
    assert mask.sum() == hard
    rows = np.flatnonzero(mask)
    if hard:
        gaps = np.diff([*rows, rows[0] + batch])
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("fraction", "batch"), [(0.25, 8), (0.5, 4), (0.05, 4), (0.1, 2)])
def test_every_row_of_a_batch_is_hard_at_some_time(fraction: float, batch: int) -> None:
    assert masks_of(ForcedHard(fraction, batch), 100).any(axis=0).all()


def test_callers_at_once_share_one_sequence() -> None:
    policy = ForcedHard(0.25, 1)
    easiness, point = np.ones(1, np.float32), first_of_two(1)
    with ThreadPoolExecutor(8) as threads:
        masks = list(threads.map(lambda _: policy.decide(easiness, point), range(400)))
    assert np.concatenate(masks).sum() == 100


def test_the_same_images_are_hard_in_every_run() -> None:
    first, again = (masks_of(ForcedHard(0.3, 4, seed=7), 20) for _ in range(2))
    assert (first == again).all()


def test_hard_images_go_on_to_the_last_of_three_exits(three_exits: dyninfer.Detector) -> None:
    three_exits.policy = ForcedHard(0.5, 4)
    pictures = support.random_pictures(4)
    exits = [found.exit_index for found in three_exits(pictures)]
    assert sorted(exits) == [0, 0, 2, 2]


def test_every_way_of_a_cascade_can_be_forced_and_the_routers_run(
    three_exits: dyninfer.Detector,
) -> None:
    for way in range(3):
        found = three_exits(support.random_pictures(2), policy=ForcedWay(way))
        assert [result.exit_index for result in found] == [way, way]
        assert all(result.easiness is not None for result in found)


def test_a_chooser_runs_before_the_branch_that_is_forced(tmp_path) -> None:
    with dyninfer.load(support.write_select_detectors(tmp_path / "s.dyn")) as detector:
        for way in range(2):
            (found,) = detector(support.random_pictures(1), policy=ForcedWay(way))
            assert found.exit_index == way
            assert "chooser" in found.timings_ms


def test_it_is_a_policy_that_reads_the_router(two_exits: dyninfer.Detector) -> None:
    policy = ForcedHard(0.5, 2)
    assert isinstance(policy, Policy)
    two_exits.policy = policy
    found = two_exits(support.random_pictures(2))
    assert sorted(result.exit_index for result in found) == [0, 1]
    assert all(result.easiness is not None for result in found)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_outside_0_to_1_is_refused(fraction: float) -> None:
    with support.refuses(dyninfer.PolicyError, "hard fraction", "0 to 1"):
        ForcedHard(fraction, 1)


@pytest.mark.parametrize("fraction", [0.0004, 0.00049, 0.3333, 0.9999])
def test_a_share_too_fine_to_be_exact_is_refused_and_not_rounded(fraction: float) -> None:
    with support.refuses(dyninfer.PolicyError, "finer than 1/1000", "rounder"):
        ForcedHard(fraction, 1)


@pytest.mark.parametrize("fraction", [0.001, 33.3 / 100, 1 / 3, 0.999])
def test_the_finest_shares_are_exact(fraction: float) -> None:
    assert float(as_fraction(fraction)) == pytest.approx(fraction, abs=1e-12)


def test_a_call_of_another_size_is_refused() -> None:
    with support.refuses(dyninfer.PolicyError, "2 images", "expected 4"):
        ForcedHard(0.5, 4).decide(np.ones(2, np.float32), first_of_two(2))


def test_one_exit_is_refused(tmp_path) -> None:
    with (
        dyninfer.load(support.write_static(tmp_path / "one.dyn")) as detector,
        support.refuses(dyninfer.PolicyError, "one way"),
    ):
        detector.policy = ForcedHard(0.5, 1)
