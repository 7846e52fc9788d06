from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.model import TooFewScenarios, fit
from dyninfer.benchmarks.latency.record import LatencyModel, ModelCheck
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario, ScenarioResult
from dyninfer.benchmarks.latency.step_costs import RowSpread, RunsFor, StepCost, predict_ms
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from tests.benchmarks.latency.made_results import (
    GRID,
    TWO_EXITS,
    exactly,
    forced_results,
    made_result,
    routed_result,
)
from tests.support import write_static, write_three_exits, write_two_exits

MILLISECONDS = st.floats(0.01, 50)


@pytest.fixture(scope="module")
def two_exits_manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(write_two_exits(tmp_path_factory.mktemp("two") / "two.dyn")).manifest


def costs(model: LatencyModel) -> dict[tuple[str, RunsFor], tuple[float, float]]:
    return {(s.name, s.runs_for): (s.first_ms, s.further_ms) for s in model.steps}


def test_nothing_measured_says_what_is_missing(two_exits_manifest: Manifest) -> None:
    with pytest.raises(TooFewScenarios, match=r"0 forced hard fractions were .*at least 2"):
        fit(two_exits_manifest, [])


def test_one_hard_fraction_does_not_tell_what_the_others_cost(
    two_exits_manifest: Manifest,
) -> None:
    with pytest.raises(TooFewScenarios, match="1 forced hard fraction was "):
        fit(two_exits_manifest, forced_results(TWO_EXITS, [(1, 0.5), (8, 0.5)]))


def test_a_step_that_a_scenario_lacks_has_cost_it_nothing(two_exits_manifest: Manifest) -> None:
    lacking, free = forced_results(TWO_EXITS), forced_results(TWO_EXITS)
    place = GRID.index((2, 0.5))
    spans = free[place].spans
    lacking[place] = replace(free[place], spans=tuple(s for s in spans if s.name != "router"))
    free[place] = replace(
        free[place],
        spans=tuple(
            replace(s, ms_per_image=exactly(0.0)) if s.name == "router" else s for s in spans
        ),
    )
    assert costs(fit(two_exits_manifest, lacking)) == costs(fit(two_exits_manifest, free))


def test_other_ways_to_call_do_not_count(two_exits_manifest: Manifest) -> None:
    one, other = forced_results(TWO_EXITS, [(1, 0.0), (1, 1.0)])
    for changes in ({"concurrency": 2}, {"rate_per_s": 5.0}, {"decode": True}):
        odd = replace(other, scenario=replace(other.scenario, **changes))
        with pytest.raises(TooFewScenarios):
            fit(two_exits_manifest, [one, odd])


def test_costs_are_found_again(two_exits_manifest: Manifest) -> None:
    model = fit(two_exits_manifest, forced_results(TWO_EXITS))
    found = costs(model)
    for step in TWO_EXITS:
        expected = pytest.approx((step.first_ms, step.further_ms), abs=1e-6)
        assert found[step.name, step.runs_for] == expected, step.name
    assert model.mean_error < 1e-6
    assert sum(check.held_out for check in model.checks) == len(GRID) - 2


@settings(max_examples=25, deadline=None)
@given(
    first=MILLISECONDS,
    further=st.floats(0.5, 2),
    second=MILLISECONDS,
    head=MILLISECONDS,
    batch=st.integers(1, 8),
    hard=st.floats(0, 1),
)
def test_any_costs_predict_any_batch_between(
    two_exits_manifest: Manifest,
    first: float,
    further: float,
    second: float,
    head: float,
    batch: int,
    hard: float,
) -> None:
    steps = (
        StepCost("first", first, first * further),
        StepCost("head", 0.5 + head, head, RunsFor.EASY),
        StepCost("second", 0.25 + second, second, RunsFor.HARD),
    )
    model = fit(two_exits_manifest, forced_results(steps))
    truth = LatencyModel(steps, (), 0.0)
    for spread in RowSpread:
        predicted = predict_ms(model.steps, batch, hard, spread)
        assert predicted == pytest.approx(predict_ms(truth.steps, batch, hard, spread), rel=1e-6)
    assert all(step.first_ms >= 0 and step.further_ms >= 0 for step in model.steps)


@settings(max_examples=25, deadline=None)
@given(
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=6),
    batch=st.sampled_from([1, 3, 8]),
)
def test_more_hard_images_take_longer_where_hard_ones_do(shares: list[float], batch: int) -> None:
    model = LatencyModel(
        (
            StepCost("first", 6.0, 5.0),
            StepCost("head", 2.0, 2.0, RunsFor.EASY),
            StepCost("second", 6.0, 6.0, RunsFor.HARD),
        ),
        (),
        0.0,
    )
    predicted = [predict_ms(model.steps, batch, share) for share in sorted(shares)]
    assert (np.diff(predicted) >= -1e-9).all()


def test_noise_of_5_percent_in_every_call_is_averaged_out(two_exits_manifest: Manifest) -> None:
    rng = np.random.default_rng(0)
    noisy = forced_results(TWO_EXITS, noise=lambda: float(rng.normal(1, 0.05)))
    model = fit(two_exits_manifest, noisy)
    assert model.mean_error < 0.02
    truth = LatencyModel(TWO_EXITS, (), 0.0)
    for batch, hard in ((1, 0.1), (3, 0.4), (6, 0.9)):
        expected = predict_ms(truth.steps, batch, hard)
        assert predict_ms(model.steps, batch, hard) == pytest.approx(expected, rel=0.02)


def test_the_noise_of_what_was_measured_is_told(two_exits_manifest: Manifest) -> None:
    results = forced_results(TWO_EXITS)
    assert fit(two_exits_manifest, results).mean_noise == 0
    wide = [
        replace(r, ms_per_image=Estimate(ms, 0.9 * ms, 1.1 * ms))
        for r in results
        for ms in [r.ms_per_image.value]
    ]
    assert fit(two_exits_manifest, wide).mean_noise == pytest.approx(0.1)


def test_a_machine_that_slowed_down_shows_in_the_error(two_exits_manifest: Manifest) -> None:
    results = forced_results(TWO_EXITS)
    place = GRID.index((4, 0.5))
    slow = results[place]
    spans = tuple(replace(s, ms_per_image=exactly(s.ms_per_image.value * 1.5)) for s in slow.spans)
    results[place] = replace(slow, spans=spans, ms_per_image=exactly(slow.ms_per_image.value * 1.5))
    check = fit(two_exits_manifest, results).checks[place]
    assert check.held_out
    assert check.error == pytest.approx(1 / 1.5 - 1, abs=0.03)


def test_the_error_is_that_of_the_scenarios_that_were_left_out(
    two_exits_manifest: Manifest,
) -> None:
    results = forced_results(TWO_EXITS)
    for place, factor in ((GRID.index((1, 0.0)), 1.1), (GRID.index((4, 0.5)), 1.3)):
        here = results[place]
        spans = tuple(
            replace(s, ms_per_image=exactly(s.ms_per_image.value * factor)) for s in here.spans
        )
        ms = exactly(here.ms_per_image.value * factor)
        results[place] = replace(here, spans=spans, ms_per_image=ms)
    model = fit(two_exits_manifest, results)
    held_out = [abs(check.error) for check in model.checks if check.held_out]
    assert 0 < len(held_out) < len(model.checks)
    assert model.mean_error == pytest.approx(np.mean(held_out))
    assert model.mean_error != pytest.approx(
        np.mean([abs(c.error) for c in model.checks]), rel=0.01
    )
    for place, check in enumerate(model.checks):
        others = fit(two_exits_manifest, [*results[:place], *results[place + 1 :]])
        without = predict_ms(others.steps, *GRID[place], RowSpread.EVEN)
        if check.held_out:
            assert check.predicted_ms == pytest.approx(without)
        else:
            assert check.predicted_ms != pytest.approx(without)


def test_the_ends_are_not_predicted_from_the_others(two_exits_manifest: Manifest) -> None:
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, [(1, 0.0), (1, 0.5), (1, 1.0)]))
    assert [check.held_out for check in model.checks] == [True, True, True]
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, [(1, 0.0), (1, 1.0)]))
    assert [check.held_out for check in model.checks] == [False, False]
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, [(1, 0.0), (1, 0.5)]))
    assert [check.held_out for check in model.checks] == [False, False]
    assert model.mean_error < 1e-9
    grid = [(batch, hard) for batch in (1, 8) for hard in (0.0, 0.5, 1.0)]
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, grid))
    assert [check.held_out for check in model.checks] == [True, True, True, False, True, False]
    # a stage that a scenario never runs needs no other that runs it as seldom
    grid = [(2, 0.0), (2, 0.5), (4, 0.5), (4, 0.25)]
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, grid))
    assert [check.held_out for check in model.checks] == [True, False, False, False]


def test_batch_1_alone_takes_rows_to_cost_the_same(two_exits_manifest: Manifest) -> None:
    model = fit(two_exits_manifest, forced_results(TWO_EXITS, [(1, 0.0), (1, 0.5), (1, 1.0)]))
    assert model.mean_error < 1e-9
    assert predict_ms(model.steps, 4, 1.0) == pytest.approx(predict_ms(model.steps, 1, 1.0))


def test_routed_scenarios_are_compared_and_not_fitted(two_exits_manifest: Manifest) -> None:
    routed = [routed_result(TWO_EXITS, batch, 0.3) for batch in (1, 8)]
    model = fit(two_exits_manifest, [*forced_results(TWO_EXITS), *routed])
    assert costs(model) == costs(fit(two_exits_manifest, forced_results(TWO_EXITS)))
    checks = [check for check in model.checks if check.scenario.hard_fraction is None]
    assert len(checks) == 2
    assert all(check.held_out and abs(check.error) < 0.02 for check in checks)


def test_a_head_that_starts_before_the_decision_runs_for_all(
    two_exits_manifest: Manifest,
) -> None:
    steps = [replace(s, runs_for=RunsFor.ALL) if s.name == "head" else s for s in TWO_EXITS]
    assert ("head", RunsFor.ALL) in costs(fit(two_exits_manifest, forced_results(steps)))


def test_one_exit_has_batches_only(tmp_path: Path) -> None:
    manifest = Bundle.open(write_static(tmp_path / "static.dyn")).manifest
    steps = (StepCost("body", 5.0, 3.0), StepCost("postprocess", 1.0, 1.0))

    def result(batch: int) -> ScenarioResult:
        return made_result(steps, Scenario(batch, 1.0), [batch])

    model = fit(manifest, [result(batch) for batch in (1, 2, 8)])
    assert costs(model)["body", RunsFor.ALL] == pytest.approx((5.0, 3.0))
    assert predict_ms(model.steps, 4, 0.0) == predict_ms(model.steps, 4, 1.0) == pytest.approx(4.5)
    assert model.break_even is None
    assert model.break_even_by_batch == {}
    with pytest.raises(TooFewScenarios, match=r"1 batch size was"):
        fit(manifest, [result(4)])


def test_three_exits_with_images_of_their_own(tmp_path: Path) -> None:
    manifest = Bundle.open(write_three_exits(tmp_path / "three.dyn")).manifest
    steps = (
        StepCost("prepare", 1.0, 1.0),
        StepCost("prepare", 2.0, 2.0, RunsFor.HARD),
        StepCost("body_1", 6.0, 5.0),
        StepCost("router_1", 0.25, 0.0),
        StepCost("head_1", 2.0, 2.0, RunsFor.EASY),
        StepCost("body_2", 8.0, 7.0, RunsFor.HARD),
        StepCost("router_2", 0.25, 0.0, RunsFor.HARD),
        StepCost("body_3", 9.0, 9.0, RunsFor.HARD),
    )
    routed = routed_result(steps, 4, 0.3)
    model = fit(manifest, [*forced_results(steps), routed])
    assert costs(model)["prepare", RunsFor.HARD] == pytest.approx((2.0, 2.0))
    assert costs(model)["body_2", RunsFor.HARD] == pytest.approx((8.0, 7.0))
    assert model.mean_error < 1e-6
    # images may leave in between, of which the model says nothing
    assert routed.scenario not in [check.scenario for check in model.checks]


def test_steps_add_up(two_exits_manifest: Manifest) -> None:
    model = fit(two_exits_manifest, forced_results(TWO_EXITS))
    # all easy comes first among the scenarios, without the second exit
    names = list(dict.fromkeys(step.name for step in TWO_EXITS))
    assert list(dict.fromkeys(step.name for step in model.steps)) == names
    by_name = {
        name: predict_ms([step for step in model.steps if step.name == name], 4, 0.25)
        for name in names
    }
    assert by_name["second"] == pytest.approx((4 + 12) / 4)
    assert sum(by_name.values()) == pytest.approx(predict_ms(model.steps, 4, 0.25))


def test_only_what_was_held_out_and_predicted_well_makes_a_model_tested() -> None:
    def checked(held_out: bool, error: float) -> bool:
        checks = (ModelCheck(Scenario(), 10.0, 10.0, held_out),)
        return LatencyModel((), checks, error).is_tested

    assert checked(True, 0.2)
    assert not checked(True, 0.21)
    assert not checked(False, 0.0)
