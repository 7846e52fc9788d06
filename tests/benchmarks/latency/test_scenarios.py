from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.scenarios import (
    Choices,
    ForcedHard,
    ForcedWay,
    as_fraction,
    calls_in_period,
    hard_rows_by_call,
    make_scenarios,
    spread_rows,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.routing.policy import DecisionPoint, Policy
from tests import support
from tests.support import refuses


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(support.write_two_exits(tmp_path_factory.mktemp("b") / "two.dyn")).manifest


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(support.write_static(tmp_path_factory.mktemp("b") / "one.dyn")).manifest


@pytest.fixture(scope="module")
def without_router(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path: Path = tmp_path_factory.mktemp("b") / "none.dyn"
    return Bundle.open(support.write_two_exits(path, router=False)).manifest


def test_a_cascade_is_run_easy_mixed_and_hard_at_two_batch_sizes(routed: Manifest) -> None:
    assert make_scenarios(routed, Choices()) == tuple(
        Scenario(batch, hard) for batch in (1, 8) for hard in (0.0, 0.5, 1.0)
    )


def test_everything_is_the_product_of_what_was_asked_for(routed: Manifest) -> None:
    choices = Choices((1, 4), (0.25,), (1, 2), (5.0,), decode=True, as_routed=True)
    found = make_scenarios(routed, choices)
    closed = {s for s in found if s.rate_per_s is None and not s.decode}
    assert closed == {
        Scenario(batch, hard, callers)
        for batch in (1, 4)
        for hard in (0.25, None)
        for callers in (1, 2)
    }
    assert {s for s in found if s.decode} == {Scenario(1, h, decode=True) for h in (0.25, None)}
    assert {s for s in found if s.rate_per_s} == {
        Scenario(1, hard, callers, 5.0) for hard in (0.25, None) for callers in (1, 2)
    }
    assert len({s.name for s in found}) == len(found)


def test_decoding_is_run_by_itself_whatever_the_batches_and_callers(routed: Manifest) -> None:
    found = make_scenarios(routed, Choices((8,), (0.0, 1.0), (2,), decode=True))
    assert found == (
        Scenario(8, 0.0, 2),
        Scenario(8, 1.0, 2),
        Scenario(1, 0.0, decode=True),
        Scenario(1, 1.0, decode=True),
    )


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        (Scenario(), "batch 1, as routed"),
        (Scenario(1, 0.07), "batch 1, 7 % hard"),
        (Scenario(8, 1.0, 2), "batch 8, 100 % hard, 2 callers"),
        (Scenario(1, 0.001, rate_per_s=20.0), "batch 1, 0.1 % hard, 20 calls/s"),
        (Scenario(1, 0.0, decode=True), "batch 1, 0 % hard, with decoding"),
        (Scenario(2, way="branch 1", concurrency=3), "batch 2, branch 1, 3 callers"),
    ],
)
def test_a_scenario_has_a_name(scenario: Scenario, name: str) -> None:
    assert scenario.name == name


def test_one_exit_has_one_way_to_go(static: Manifest) -> None:
    only = Scenario(way="exit 0")
    both = (only, replace(only, batch=8))
    assert make_scenarios(static, Choices(as_routed=True)) == both
    assert make_scenarios(static, Choices((1,), (1.0,))) == (only,)
    with refuses(dyninfer.PolicyError, "one exit", "leave --hard out"):
        make_scenarios(static, Choices(hard=(0.5,)))


def test_a_refusal_names_the_bundle_as_it_was_typed(static: Manifest) -> None:
    with refuses(dyninfer.PolicyError, "models/my.dyn has one exit"):
        make_scenarios(static, Choices(hard=(0.5,)), "models/my.dyn")


def test_without_a_router_only_the_ends_can_be_forced(without_router: Manifest) -> None:
    assert make_scenarios(without_router, Choices((1,), as_routed=True)) == (
        Scenario(1, 0.0),
        Scenario(1, 1.0),
    )
    with refuses(dyninfer.PolicyError, "no router", "0.25", "0,100%"):
        make_scenarios(without_router, Choices(hard=(0.0, 0.25)))


def test_a_scenario_is_run_once(routed: Manifest) -> None:
    assert len(make_scenarios(routed, Choices((1, 1), (0.5, 0.5)))) == 1


@pytest.fixture(scope="module", params=["three", "classifiers", "detectors"])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    write = {
        "three": support.write_three_exits,
        "classifiers": support.write_select_classifiers,
        "detectors": support.write_select_detectors,
    }[request.param]
    return Bundle.open(write(tmp_path_factory.mktemp("b") / "some.dyn")).manifest


def test_every_way_is_measured_and_what_a_chooser_makes_of_them(several: Manifest) -> None:
    found = [scenario.name for scenario in make_scenarios(several, Choices((1,)))]
    if len(several.ways) == 3:
        assert found == [
            "batch 1, 0 % hard",
            "batch 1, exit 1",
            "batch 1, 50 % hard",
            "batch 1, 100 % hard",
        ]
    else:
        assert found == ["batch 1, branch 0", "batch 1, branch 1", "batch 1, as routed"]


def test_shares_that_were_asked_for_take_the_place_of_the_ways(several: Manifest) -> None:
    found = [s.name for s in make_scenarios(several, Choices((4,), (0.25, 1.0)))]
    last = "100 % hard" if len(several.ways) == 3 else "branch 1"
    own = [] if len(several.ways) == 3 else ["batch 4, as routed"]
    assert found == ["batch 4, 25 % hard", f"batch 4, {last}", *own]


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


def test_hard_images_take_the_dearest_branch_wherever_it_stands(tmp_path) -> None:
    bundle = support.write_dear_first(tmp_path / "dear.dyn")
    scenarios = make_scenarios(Bundle.open(bundle).manifest, Choices((4,), (0.0, 0.25, 1.0)))
    names = [scenario.name for scenario in scenarios]
    routed = "batch 4, as routed"
    assert names == ["batch 4, branch 1", "batch 4, 25 % hard", "batch 4, branch 0", routed]
    with dyninfer.load(bundle) as detector:
        found = detector(support.random_pictures(4), policy=ForcedHard(0.25, 4))
    assert sorted(result.exit_index for result in found) == [0, 1, 1, 1]


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
