from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import nnls
from scipy.stats import binom

from dyninfer.benchmarks.latency.model import break_even_measured, fit
from dyninfer.benchmarks.latency.record import BaselineRatio, Baselines, LatencyModel
from dyninfer.benchmarks.latency.scenario_record import Estimate
from dyninfer.benchmarks.latency.scenarios import hard_rows_by_call
from dyninfer.benchmarks.latency.step_costs import (
    RowSpread,
    RunsFor,
    StepCost,
    break_even_of_steps,
    fit_span,
    hard_rows,
    mean_cost,
    nonnegative_least_squares,
    predict_ms,
    prepared_for,
    rows_run,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit
from dyninfer.evaluation.interleaved import RatioEstimate
from tests.benchmarks.latency.made_results import TWO_EXITS, forced_results
from tests.support import (
    channel_router,
    detecting_body,
    detecting_head,
    means_of,
    write_three_exits,
    write_tiny_bundle,
    write_two_exits,
)


@given(st.integers(1, 40), st.floats(0, 1))
def test_both_spreads_have_the_mean_asked_for(batch: int, hard: float) -> None:
    for spread in RowSpread:
        chances = hard_rows(batch, hard, spread)
        assert chances.shape == (batch + 1,)
        assert (chances >= 0).all()
        assert chances.sum() == pytest.approx(1)
        assert chances @ np.arange(batch + 1) == pytest.approx(batch * hard, abs=1e-6)


@given(st.integers(1, 16), st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5, 0.9, 1.0]))
def test_even_is_how_forced_fractions_fall(batch: int, hard: float) -> None:
    counts = hard_rows_by_call(hard, batch)
    share = counts.mean() / batch
    expected = np.bincount(counts, minlength=batch + 1) / len(counts)
    np.testing.assert_allclose(hard_rows(batch, share), expected, atol=1e-6)


def test_random_is_binomial() -> None:
    expected = binom.pmf(np.arange(9), 8, 0.3)
    np.testing.assert_allclose(hard_rows(8, 0.3, RowSpread.RANDOM), expected, atol=1e-12)
    assert hard_rows(1, 0.3).tolist() == pytest.approx([0.7, 0.3])


def test_rows_of_each_kind() -> None:
    rows = {part: rows_run(part, 3).tolist() for part in RunsFor}
    assert rows == {
        RunsFor.ALL: [3, 3, 3, 3],
        RunsFor.EASY: [3, 2, 1, 0],
        RunsFor.HARD: [0, 1, 2, 3],
        RunsFor.MIXED: [0, 3, 3, 0],
    }


def test_a_step_that_does_not_run_costs_nothing() -> None:
    step = StepCost("second", 11.0, 1.0, RunsFor.HARD)
    assert mean_cost(step, hard_rows(4, 0.0)) == 0
    # every fourth call runs it for one row
    assert mean_cost(step, hard_rows(1, 0.25)) == pytest.approx(11 / 4)
    assert mean_cost(step, hard_rows(4, 0.25)) == pytest.approx(11 / 4)
    # gathered by chance into fewer calls
    assert mean_cost(step, hard_rows(4, 0.25, RowSpread.RANDOM)) < 11 / 4


def test_least_squares_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for unknowns in (1, 2, 4):
        for _ in range(20):
            columns, wanted = rng.normal(size=(9, unknowns)), rng.normal(size=9)
            expected, _ = nnls(columns, wanted)
            np.testing.assert_allclose(
                nonnegative_least_squares(columns, wanted), expected, atol=1e-9
            )


@pytest.mark.parametrize(
    ("batches", "weights", "ms", "first", "further"),
    [
        ((1, 1), (1.0, 2.0), (1.0, 1.5), 1.4, 1.4),  # (1 + 4 * 1.5) / 5
        ((100, 101), (1.0, 1.0), (2.0, 2.2), 2.1, 2.1),  # hardly two different lengths of a call
        ((1, 4), (1.0, 2.0), (5.0, 2.0), 5.0, 1.0),
    ],
)
def test_calls_of_one_length_tell_what_a_row_costs_and_no_line(
    batches, weights, ms, first, further
) -> None:
    chances = [hard_rows(batch, 0.5) for batch in batches]
    spans = fit_span("it", [RunsFor.ALL], chances, np.array(ms), np.array(weights))
    assert len(spans) == 1
    assert (spans[0].name, spans[0].runs_for) == ("it", RunsFor.ALL)
    assert spans[0].first_ms == pytest.approx(first, rel=1e-3)
    assert spans[0].further_ms == pytest.approx(further, rel=1e-3)


def test_in_batches_of_one_size_what_all_rows_cost_is_no_line() -> None:
    chances = [hard_rows(2, hard) for hard in (0.0, 0.25, 0.5, 0.75, 1.0)]
    # 3 for every row, and for hard ones 4 in a call that has one and 5 in a call that has two
    ms = np.array([3.0, 4.0, 5.0, 5.25, 5.5])
    found = fit_span("it", [RunsFor.ALL, RunsFor.HARD], chances, ms, np.ones(5))
    assert [step.runs_for for step in found] == [RunsFor.ALL, RunsFor.HARD]
    assert all(step.first_ms == step.further_ms for step in found)


def test_images_are_prepared_for_the_ways_that_read_them() -> None:
    """Of three ways those at the ends count, the cheapest and the costliest."""

    def ways(*reads: str) -> SimpleNamespace:
        stages = {
            name: SimpleNamespace(inputs=[SimpleNamespace(name=n) for n in (*read, "value")])
            for name, read in zip("abc", reads, strict=True)
        }
        inputs = dict.fromkeys("xyz")
        return SimpleNamespace(
            ways_by_cost=(2, 1, 0), stages_to="cba".__getitem__, stages=stages, image_inputs=inputs
        )

    assert prepared_for(ways("z", "xy", "x")) == (RunsFor.ALL, RunsFor.EASY, RunsFor.HARD)
    assert prepared_for(ways("xz", "xz", "x")) == (RunsFor.ALL, RunsFor.EASY)
    assert prepared_for(ways("x", "x", "xy")) == (RunsFor.ALL, RunsFor.HARD)
    assert prepared_for(ways("x", "xy", "x")) == (RunsFor.ALL,)


def test_where_nothing_helps_all_unknowns_are_0() -> None:
    found = nonnegative_least_squares(np.ones((3, 2)), -np.ones(3))
    assert found.tolist() == [0, 0]


WAYS = {"easy": "exit 0", "hard": "exit 1"}
NAMES = tuple(WAYS.values())


def baselines(off: float = 0.0, **ratio_by_side: float) -> Baselines:
    return Baselines(
        rounds=2,
        times=(),
        ratios=tuple(
            BaselineRatio(
                "always-last-exit",
                WAYS[side],
                RatioEstimate(ratio, ratio - off, ratio + off, 0.95, 2),
            )
            for side, ratio in ratio_by_side.items()
        ),
        memory=(),
    )


@pytest.mark.parametrize(
    ("easy", "hard", "expected"),
    [
        (0.5, 1.0, 1.0),  # even all-hard costs no more
        (0.5, 0.99, 1.0),
        (1.0, 1.5, 0.0),  # even all-easy costs as much
        (1.2, 1.1, 0.0),
        (1.0, 1.0, 0.0),
        (1.1, 0.9, 0.0),
        (0.5, 1.5, 0.5),
        (0.6, 1.1, 0.8),
    ],
)
def test_ratios_tell_where_the_cascade_stops_paying(
    easy: float, hard: float, expected: float
) -> None:
    found = break_even_measured(baselines(easy=easy, hard=hard), NAMES)
    assert found is not None
    assert found.value == pytest.approx(expected)


def test_the_break_even_is_as_uncertain_as_both_ratios() -> None:
    found = break_even_measured(baselines(0.1, easy=0.5, hard=1.5), NAMES)
    # low with both ratios high, (1 - 0.6) / (1.6 - 0.6); high with both low
    assert found == Estimate(0.5, pytest.approx(0.4), pytest.approx(0.6))
    ends = break_even_measured(baselines(0.3, easy=0.8, hard=1.2), NAMES)
    assert ends == Estimate(pytest.approx(0.5), 0.0, 1.0)


def test_without_both_sides_there_is_no_answer() -> None:
    assert break_even_measured(baselines(), NAMES) is None
    assert break_even_measured(baselines(easy=0.5), NAMES) is None
    assert break_even_measured(baselines(hard=1.5), NAMES) is None
    assert break_even_measured(baselines(easy=0.5), NAMES[:1]) is None  # no other way
    of_the_ends = break_even_measured(baselines(easy=0.5, hard=1.5), (NAMES[0], "mid", NAMES[1]))
    assert of_the_ends == Estimate(0.5, 0.5, 0.5)


def test_the_measured_one_is_in_the_model(tmp_path: Path) -> None:
    manifest = Bundle.open(write_two_exits(tmp_path / "two.dyn")).manifest
    results = forced_results(TWO_EXITS)
    assert fit(manifest, results).break_even is None
    model = fit(manifest, results, baselines(0.1, easy=0.5, hard=1.5))
    assert model.break_even == pytest.approx(0.5)
    assert model.break_even_interval == pytest.approx((0.4, 0.6))


def test_an_estimated_break_even_is_as_uncertain_as_the_model(tmp_path: Path) -> None:
    manifest = Bundle.open(write_two_exits(tmp_path / "two.dyn")).manifest
    exact = fit(manifest, forced_results(TWO_EXITS))
    assert exact.break_even_intervals_by_batch[1] == pytest.approx(
        (exact.break_even_by_batch[1],) * 2
    )
    rng = np.random.default_rng(0)
    noisy = fit(manifest, forced_results(TWO_EXITS, noise=lambda: float(rng.normal(1, 0.2))))
    for batch, share in noisy.break_even_by_batch.items():
        low, high = noisy.break_even_intervals_by_batch[batch]
        assert low < share < high
        last_alone, least, most = (predict_ms(noisy.steps, batch, at) for at in (share, low, high))
        assert least == pytest.approx(last_alone * (1 - noisy.mean_error))
        assert most == pytest.approx(last_alone * (1 + noisy.mean_error))


def test_a_record_of_intercepts_is_read_as_first_and_further_rows() -> None:
    read = TypeAdapter(StepCost).validate_python
    before = {"name": "second", "fixed_ms": -2.0, "per_image_ms": 14.0, "runs_for": "hard"}
    assert read(before) == StepCost("second", 12.0, 14.0, RunsFor.HARD)
    for first, further in ((-1.0, 2.0), (2.0, -1.0)):
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            read({"name": "second", "first_ms": first, "further_ms": further})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        read({**before, "fixed_ms": -15.0})
    for half in ("fixed_ms", "per_image_ms"):
        with pytest.raises(ValidationError, match="first_ms"):
            read({name: value for name, value in before.items() if name != half})


def test_a_detector_that_reads_features_loses_only_the_router(tmp_path: Path) -> None:
    models = {
        "first": means_of("images", 8, 8, "value"),
        "router": channel_router("value", 0),
        "head": detecting_head("value", 0),
        "second": detecting_body("images", 8, 1000, carried="value"),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    path = write_tiny_bundle(
        tmp_path / "reads.dyn", models, CascadeRoute(exits=exits), {"images": 8}
    )
    manifest = Bundle.open(path).manifest
    steps = (
        StepCost("first", 10.0, 10.0),
        StepCost("router", 0.5, 0.0),
        StepCost("head", 5.0, 5.0, RunsFor.EASY),
        StepCost("second", 15.0, 15.0, RunsFor.HARD),
    )
    # alone: 10 + 15; the cascade: 15.5 + 10 h
    assert break_even_of_steps(steps, manifest, 1) == pytest.approx(0.95)


def test_unrelated_detectors_lose_all_of_the_first(tmp_path: Path) -> None:
    manifest = Bundle.open(write_two_exits(tmp_path / "two.dyn")).manifest
    steps = (
        StepCost("prepare", 1.0, 1.0),
        StepCost("first", 10.0, 10.0),
        StepCost("head", 5.0, 5.0, RunsFor.EASY),
        StepCost("second", 40.0, 40.0, RunsFor.HARD),
    )
    # both read the same images, so 41 alone; the cascade: 16 + 35 h
    assert break_even_of_steps(steps, manifest, 1) == pytest.approx(25 / 35)
    assert break_even_of_steps([StepCost("first", 50.0, 50.0), *steps[3:]], manifest, 1) == 0
    assert break_even_of_steps(steps[3:], manifest, 1) == 1


def test_images_that_only_earlier_exits_read_are_not_prepared_alone(tmp_path: Path) -> None:
    manifest = Bundle.open(write_three_exits(tmp_path / "three.dyn")).manifest
    steps = (
        StepCost("prepare", 1.0, 1.0),
        StepCost("prepare", 2.0, 2.0, RunsFor.HARD),
        StepCost("body_1", 5.0, 5.0),
        StepCost("head_1", 4.0, 4.0, RunsFor.EASY),
        StepCost("body_2", 6.0, 6.0, RunsFor.HARD),
        StepCost("body_3", 9.0, 9.0, RunsFor.HARD),
    )
    # the third body reads images and the first body: 1 + 5 + 9 alone, and what only the second
    # exit reads is not prepared; the cascade: 10 + 13 h
    assert break_even_of_steps(steps, manifest, 1) == pytest.approx(5 / 13)


def test_in_a_batch_the_first_crossing_counts(tmp_path: Path) -> None:
    manifest = Bundle.open(write_two_exits(tmp_path / "two.dyn")).manifest
    steps = (StepCost("first", 2.0, 2.0), StepCost("second", 11.0, 1.0, RunsFor.HARD))
    # alone 14 / 4 an image; one hard row of four costs (8 + 11) / 4
    model = LatencyModel(steps, (), 0.0)
    found = break_even_of_steps(steps, manifest, 4)
    assert predict_ms(model.steps, 4, found) == pytest.approx(14 / 4)
    assert 0 < found < 0.25
