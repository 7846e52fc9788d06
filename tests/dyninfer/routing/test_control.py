from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import InputError, PolicyError
from dyninfer.routing.control import Controller
from dyninfer.routing.control_law import (
    ControllerState,
    ControlSettings,
    Cost,
    affordable_share,
    debt_bound,
    decide,
    initial_state,
    next_threshold,
    observe,
)
from dyninfer.routing.policy import Observer, Policy
from dyninfer.routing.thresholds import SEND_ALL, SEND_NONE
from tests import support

HORIZON = 1000
TOLERANCE = 0.022
WINDOW = 100
relaxed = settings(deadline=None)
WARM_UP, CLOSE = 300, 0.05
IMAGES = WARM_UP + HORIZON
BETA = np.random.default_rng(99).beta(4, 2, 500)
FRACTIONS = (0.05, 0.1, 0.3, 0.5, 0.8)
EASY_MS, HARD_MS = 10.0, 20.0
HALF = ControlSettings(Cost.HARD, 0.5)


def beta_stream(kind: str, seed: int) -> np.ndarray:
    """(IMAGES,) easiness whose distribution, that of BETA at first, moves."""
    generator = np.random.default_rng(seed)
    time = np.arange(IMAGES)
    hardness = {
        "steady": np.zeros(IMAGES),
        "harder at 700": np.where(time < 700, 0.0, 6.0),
        "easier at 700": np.where(time < 700, 0.0, -3.0),
        "harder at 1200": np.where(time < 1200, 0.0, 6.0),
        "ever harder": np.linspace(-2, 8, IMAGES),
        "periodic": 4 * np.sin(2 * np.pi * time / 400) + 2,
        "blocks": np.where(time // 150 % 2, 6.0, -2.0),
    }[kind]
    return generator.beta(4 - np.minimum(hardness, 0), 2 + np.maximum(hardness, 0))


STREAMS = (
    "steady",
    "harder at 700",
    "easier at 700",
    "harder at 1200",
    "ever harder",
    "periodic",
    "blocks",
)


@dataclass(frozen=True)
class Outcome:
    hard: np.ndarray
    ms: np.ndarray
    state: ControllerState


def settings_of(cost: Cost, mean_cost: float, **more: float) -> ControlSettings:
    return ControlSettings(cost, mean_cost, **more)


def simulate(
    settings: ControlSettings,
    easiness: np.ndarray,
    batch: int,
    times: np.ndarray | None = None,
    delay: int = 0,
) -> Outcome:
    """Batch after batch; ``times`` (N, 2) are the images' milliseconds, easy and hard.

    A batch is observed once ``delay`` later ones were decided, as with several threads.
    """
    costs = (EASY_MS, HARD_MS) if settings.cost is Cost.MS else (0.0, 1.0)
    state = initial_state(settings, BETA, costs)
    hard: list[bool] = []
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    spent: list[float] = []
    for start in range(0, len(easiness), batch):
        mask, state = decide(settings, state, easiness[start : start + batch])
        hard += mask.tolist()
        if times is not None:
            exits = mask.astype(int)
            ms = times[np.arange(start, start + len(mask)), exits]
            spent += ms.tolist()
            waiting.append((exits, ms))
            if len(waiting) > delay:
                state = observe(settings, state, *waiting.pop(0))
    return Outcome(np.array(hard), np.array(spent), state)


def local_ranks(easiness: np.ndarray) -> np.ndarray:
    """Share of the 128 images around each that are less easy."""
    return np.array(
        [(easiness[max(0, i - 64) : i + 64] < easiness[i]).mean() for i in range(len(easiness))]
    )


# What is promised


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_share_of_hard_images_holds_on_moving_streams(fraction, stream, batch) -> None:
    for seed in range(4):
        easiness = beta_stream(stream, seed)
        hard = simulate(ControlSettings(Cost.HARD, fraction), easiness, batch).hard[WARM_UP:]
        assert len(hard) == HORIZON
        assert abs(hard.mean() / fraction - 1) <= CLOSE


@relaxed
@given(
    st.sampled_from(FRACTIONS) | st.floats(0.05, 1),
    st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]) | st.floats(0, 1, width=32), min_size=1),
    st.lists(st.integers(1, 80), min_size=1, max_size=20),
)
def test_no_stream_moves_the_share_out_of_bounds(fraction, values, runs) -> None:
    # an adversary's blocks of constant easiness
    stream = np.repeat(np.resize(values, len(runs)), runs)
    settings = ControlSettings(Cost.HARD, fraction)
    hard = simulate(settings, stream, 7).hard
    debts = np.cumsum(hard - fraction)
    bound = debt_bound(settings, (0.0, 1.0))
    assert bound <= max(TOLERANCE * HORIZON * fraction, 1)
    assert (np.abs(debts) <= bound + 1e-9).all()


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0)])
def test_images_beyond_all_earlier_ones_do_not_either(fraction, ends) -> None:
    # always easier, or always less easy, than everything in the window
    hard = simulate(ControlSettings(Cost.HARD, fraction), np.linspace(*ends, IMAGES), 1).hard
    debts = np.cumsum(hard - fraction)
    bound = debt_bound(ControlSettings(Cost.HARD, fraction), (0.0, 1.0))
    assert np.abs(debts).max() <= bound + 1e-9


def test_the_bounds_keep_the_promise() -> None:
    for fraction in FRACTIONS:
        bound = debt_bound(ControlSettings(Cost.HARD, fraction), (0.0, 1.0))
        assert 2 * bound <= CLOSE * HORIZON * fraction


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("stream", ["steady", "harder at 700", "ever harder"])
def test_hard_images_are_the_less_easy_ones(stream, fraction) -> None:
    for seed in range(3):
        easiness = beta_stream(stream, seed)
        hard = simulate(ControlSettings(Cost.HARD, fraction), easiness, 1).hard
        ranks = local_ranks(easiness)
        # perfect routing: (fraction / 2, (1 + fraction) / 2); mere alternation: (1/2, 1/2)
        assert ranks[hard].mean() < fraction / 2 + 0.15 * (1 - fraction)
        assert ranks[~hard].mean() > (1 + fraction) / 2 - 0.15 * fraction


def test_even_few_hard_images_are_chosen_and_not_just_counted_out() -> None:
    easiness = beta_stream("steady", 0)
    hard = simulate(ControlSettings(Cost.HARD, 0.05), easiness, 1).hard
    assert local_ranks(easiness)[hard].mean() < 0.12


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("budget", [12.0, 15.0, 18.0])
@pytest.mark.parametrize("drift", ["none", "hard +50 %", "easy +15 %", "both slower", "hiccups"])
def test_the_mean_time_holds_while_stages_become_slower(drift, budget, batch) -> None:
    time = np.arange(IMAGES)
    easy, hard = np.full(IMAGES, EASY_MS), np.full(IMAGES, HARD_MS)
    if drift == "hard +50 %":
        hard = np.where(time < 600, hard, 1.5 * hard)
    elif drift == "easy +15 %":
        easy = np.where(time < 600, easy, 1.15 * easy)
    elif drift == "both slower":
        easy, hard = easy + time / 1000, hard + time / 100
    for seed, stream in enumerate(("steady", "harder at 700", "periodic")):
        noise = np.random.default_rng(seed).gamma(25, 1 / 25, (IMAGES, 2))
        if drift == "hiccups":
            noise[::211] *= 20
        times = np.stack([easy, hard], axis=1) * noise
        settings = settings_of(Cost.MS, budget)
        for delay in (0, 3):
            found = simulate(settings, beta_stream(stream, seed), batch, times, delay)
            assert abs(found.ms[WARM_UP:].mean() / budget - 1) <= CLOSE


@pytest.mark.parametrize("percentile", [90, 95])
def test_a_tail_stays_within_its_limit(percentile) -> None:
    allowed = 1 - percentile / 100
    settings = settings_of(Cost.LATE, 0.95 * allowed, limit_ms=15.0)
    for seed, stream in enumerate(("steady", "harder at 700", "periodic")):
        noise = np.random.default_rng(seed).gamma(100, 1 / 100, (IMAGES, 2))
        times = np.array([EASY_MS, HARD_MS]) * noise
        found = simulate(settings, beta_stream(stream, seed), 8, times)
        late = (found.ms[WARM_UP:] > 15).mean()
        assert 0.85 * allowed <= late <= allowed


def test_a_tail_sends_all_on_once_the_hard_path_is_fast_enough() -> None:
    settings = settings_of(Cost.LATE, 0.0475, limit_ms=25.0)
    times = np.tile([EASY_MS, HARD_MS], (IMAGES, 1))
    hard = simulate(settings, beta_stream("steady", 0), 8, times).hard
    assert hard[-200:].all()


# Decisions


def test_an_empty_batch_changes_nothing() -> None:
    state = initial_state(HALF, BETA, (0.0, 1.0))
    hard, after = decide(HALF, state, np.empty(0, np.float32))
    assert hard.shape == (0,)
    assert hard.dtype == np.bool_
    assert after == state
    assert observe(HALF, state, [], []) == state


def test_it_works_from_the_first_image_on() -> None:
    state = initial_state(ControlSettings(Cost.HARD, 0.3), BETA, (0.0, 1.0))
    assert len(state.window) == WINDOW
    threshold = next_threshold(ControlSettings(Cost.HARD, 0.3), state)
    assert threshold == pytest.approx(np.quantile(BETA, 0.3), abs=0.02)


def test_every_part_of_the_seeded_window_is_balanced() -> None:
    window = np.array(initial_state(HALF, BETA, (0.0, 1.0)).window)
    for start in range(0, WINDOW - 20, 10):
        assert np.median(window[start : start + 20]) == pytest.approx(np.median(BETA), abs=0.05)


@pytest.mark.parametrize("length", [5, 13, 34])
def test_any_run_of_the_seeded_window_is_spread_evenly(length) -> None:
    """Its largest gap is a fifth above that of equal ones, as of multiples of the golden ratio."""
    window = np.array(initial_state(HALF, np.linspace(0, 1, 1001), (0.0, 1.0)).window)
    for start in range(WINDOW - length + 1):
        run = np.sort(window[start : start + length])
        gaps = np.diff(np.append(run, run[0] + 1))
        assert gaps.max() < 1.2 / length


@pytest.mark.parametrize(
    ("share", "debt", "threshold"),
    [
        (0.1, 0.0, SEND_NONE),
        (0.1, -1e-9, "above 0.2"),
        (0.25, 0.0, 0.2),
        (0.25, 0.1, 0.2),
        (0.25, -0.1, "above 0.2"),
        (0.5, 0.0, 0.4),
        (0.75, 0.0, 0.6),
        (0.75, -0.1, "above 0.6"),
        (0.9, 0.0, SEND_ALL),
    ],
)
def test_the_threshold_is_that_quantile_and_a_debt_decides_for_those_who_tie(
    share, debt, threshold
) -> None:
    settings = ControlSettings(Cost.HARD, share)
    state = replace(initial_state(settings, BETA, (0.0, 1.0)), window=(0.4, 0.2, 0.6), debt=debt)
    if isinstance(threshold, str):
        threshold = math.nextafter(float(threshold.split()[-1]), 1)
    assert next_threshold(settings, state) == threshold


@pytest.mark.parametrize(
    ("debt", "least", "most"),
    [
        (10.5, 0.01, 0.1),  # one more hard image makes it 11, the bound of 1000 that are half hard
        (10.51, SEND_NONE, SEND_NONE),
        (-10.5, 0.9, 0.999),
        (-10.51, SEND_ALL, SEND_ALL),
    ],
)
def test_a_choice_remains_until_one_image_more_would_pass_the_bound(debt, least, most) -> None:
    state = initial_state(HALF, np.linspace(0, 1, 1001), (0.0, 1.0))
    assert least <= next_threshold(HALF, replace(state, debt=debt)) <= most


@pytest.mark.parametrize(
    ("mean_cost", "costs", "debt", "threshold"),
    [
        (0.0, (0.0, 1.0), -1.0, SEND_NONE),
        (1.0, (0.0, 1.0), 22.0, SEND_ALL),
        (10.0, (10.0, 20.0), -5.0, SEND_NONE),
        (20.0, (10.0, 20.0), 5.0, SEND_ALL),
    ],
)
def test_no_debt_changes_what_all_or_no_images_cost(mean_cost, costs, debt, threshold) -> None:
    settings = ControlSettings(Cost.MS, mean_cost)
    state = replace(initial_state(settings, BETA, costs), debt=debt)
    assert next_threshold(settings, state) == threshold


def test_what_was_decided_is_added_to_what_is_pending() -> None:
    settings = ControlSettings(Cost.MS, 15.0, least_threshold=0.5)
    begun = replace(
        initial_state(settings, BETA, (10.0, 30.0)),
        pending=(2, 5),
        pending_costs=(22.0, 160.0),
        images=17,
        hard_images=9,
    )
    hard, after = decide(settings, begun, [0.99, 0.1, 0.98])
    assert hard.tolist() == [False, True, False]
    assert (after.pending, after.pending_costs) == ((4, 6), (42.0, 190.0))
    assert (after.images, after.hard_images) == (20, 10)
    assert after.debt == 10 + 10 + 30 - 3 * 15


def test_a_batch_is_decided_one_image_after_the_other() -> None:
    easiness = beta_stream("steady", 1)[:200]
    settings = ControlSettings(Cost.HARD, 0.3)
    at_once, end = decide(settings, initial_state(settings, BETA, (0.0, 1.0)), easiness)
    state = initial_state(settings, BETA, (0.0, 1.0))
    for value, expected in zip(easiness, at_once, strict=True):
        assert (np.float32(value) < next_threshold(settings, state)) == expected
        single, state = decide(settings, state, [value])
        assert single.tolist() == [expected]
    assert state.window == end.window
    assert state.debt == pytest.approx(end.debt)
    assert (state.images, state.hard_images) == (200, at_once.sum())
    assert end.window == tuple(easiness[-WINDOW:].astype(np.float32).tolist())


def test_nan_is_hard_and_counts_but_stays_out_of_the_window() -> None:
    state = initial_state(HALF, BETA, (0.0, 1.0))
    hard, after = decide(HALF, state, [math.nan] * 3)
    assert hard.all()
    assert after.window == state.window
    assert after.debt == 1.5
    # later images pay for them
    assert next_threshold(HALF, after) < next_threshold(HALF, state)


@pytest.mark.parametrize(("debt", "threshold"), [(-1.0, SEND_ALL), (1.0, SEND_NONE)])
def test_an_empty_window_does_what_the_debt_asks_for(debt, threshold) -> None:
    state = replace(initial_state(HALF, [], (0.0, 1.0)), debt=debt)
    assert next_threshold(HALF, state) == threshold


def test_nan_alone_is_always_hard() -> None:
    state = initial_state(HALF, [math.nan], (0.0, 1.0))
    assert state.window == ()
    hard, state = decide(HALF, state, [math.nan] * 500)
    assert hard.all()
    assert state.debt <= 1.5 * debt_bound(HALF, (0.0, 1.0))  # and is not paid back for ever
    hard, _ = decide(HALF, state, np.full(200, 0.5))
    assert 0 < hard[-100:].mean() < 1


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_constant_router_alternates(fraction, value) -> None:
    settings = ControlSettings(Cost.HARD, fraction)
    state = initial_state(settings, [value], (0.0, 1.0))
    hard, _ = decide(settings, state, np.full(1000, value))
    assert hard.mean() == pytest.approx(fraction, abs=0.002)


def test_of_two_values_only_the_lower_is_split() -> None:
    easiness = np.random.default_rng(0).choice([0.2, 0.9], 1000, p=[0.6, 0.4])
    settings = ControlSettings(Cost.HARD, 0.3)
    state = initial_state(settings, easiness, (0.0, 1.0))
    hard, _ = decide(settings, state, easiness)
    assert hard.mean() == pytest.approx(0.3, abs=0.01)
    assert not hard[easiness == 0.9].any()


@pytest.mark.parametrize(("mean_cost", "threshold"), [(0.0, SEND_NONE), (1.0, SEND_ALL)])
def test_none_and_all_are_exactly_that(mean_cost, threshold) -> None:
    settings = ControlSettings(Cost.HARD, mean_cost)
    found = simulate(settings, beta_stream("periodic", 0), 8)
    assert (found.hard == bool(mean_cost)).all()
    assert next_threshold(settings, found.state) == threshold
    nothing_known = initial_state(settings, [], (0.0, 1.0))
    assert next_threshold(settings, nothing_known) == threshold


def test_the_certified_range_is_never_left() -> None:
    settings = ControlSettings(Cost.HARD, 0.1, least_threshold=0.6)
    state = initial_state(settings, BETA, (0.0, 1.0))
    for value in beta_stream("periodic", 0):
        assert next_threshold(settings, state) >= 0.6
        hard, state = decide(settings, state, [value])
        if np.float32(value) < 0.6:
            assert hard[0]
    # what the certificate cost is not paid back for ever
    assert state.debt <= 1.5 * debt_bound(settings, (0.0, 1.0))


def test_a_certificate_below_the_threshold_changes_nothing() -> None:
    easiness = beta_stream("steady", 0)
    free = ControlSettings(Cost.HARD, 0.5)
    certified = replace(free, least_threshold=0.1)
    kept = simulate(certified, easiness, 8).hard[easiness >= 0.1]
    assert (kept == simulate(free, easiness, 8).hard[easiness >= 0.1]).all()


@pytest.mark.parametrize(
    ("costs", "mean_cost", "share"),
    [
        ((10.0, 20.0), 13.0, 0.3),
        ((10.0, 20.0), 9.0, 0.0),
        ((10.0, 20.0), 10.0, 0.0),
        ((10.0, 20.0), 25.0, 1.0),
        ((20.0, 10.0), 12.0, 1.0),  # the hard path is the faster one
        ((10.0, 10.0), 10.0, 1.0),
    ],
)
def test_the_share_that_can_be_afforded(costs, mean_cost, share) -> None:
    settings = settings_of(Cost.MS, mean_cost)
    assert affordable_share(settings, costs) == pytest.approx(share)


def test_after_a_time_when_the_budget_could_not_be_had_it_is_held_again() -> None:
    times = np.tile([EASY_MS, HARD_MS], (IMAGES, 1))
    times[:WARM_UP] *= 3
    found = simulate(settings_of(Cost.MS, 15.0), beta_stream("steady", 0), 8, times)
    assert not found.hard[100:WARM_UP].any()
    assert found.ms[WARM_UP:].mean() == pytest.approx(15, rel=CLOSE)


# Observations


def test_the_debt_is_what_was_really_spent() -> None:
    settings = settings_of(Cost.MS, 15.0)
    times = np.array([EASY_MS, HARD_MS]) * np.random.default_rng(0).gamma(25, 0.04, (IMAGES, 2))
    found = simulate(settings, beta_stream("steady", 0), 8, times)
    assert found.state.debt == pytest.approx(found.ms.sum() - 15 * IMAGES)
    assert found.state.pending == (0, 0)
    assert found.state.pending_costs == (0, 0)


def test_expected_times_follow_the_measured_ones_but_not_one_hiccup() -> None:
    settings = settings_of(Cost.MS, 15.0)
    state = initial_state(settings, BETA, (EASY_MS, HARD_MS))
    once = observe(settings, state, [1], [100 * HARD_MS])
    assert once.exit_costs[1] <= 1.2 * HARD_MS
    often = observe(settings, state, [1] * 60, [100.0] * 60)
    assert often.exit_costs == (EASY_MS, pytest.approx(100, rel=0.02))


@pytest.mark.parametrize(
    ("costs", "ms", "after", "debt"),
    [
        ((8.0, 20.0), 40.0, 22.0, 20.0),  # a tenth of the way
        ((8.0, 20.0), 60.0, 24.0, 40.0),
        ((8.0, 20.0), 100.0, 24.0, 80.0),  # what is beyond three times counts as three times
        ((8.0, 20.0), 1000.0, 24.0, 330.0),  # 1.5 times 22 of a thousand images' 10 ms
        ((8.0, 0.0), 5.0, 0.5, 5.0),  # nothing is known that it could be beyond
        ((8.0, 1.0), 100.0, 1.2, 99.0),
    ],
)
def test_a_time_moves_what_is_expected_and_the_debt_by_its_rules(costs, ms, after, debt) -> None:
    settings = ControlSettings(Cost.MS, 10.0)
    found = observe(settings, initial_state(settings, BETA, costs), [1], [ms])
    assert found.exit_costs == (8.0, pytest.approx(after))
    assert (found.pending, found.pending_costs) == ((0, 0), (0.0, 0.0))  # nor was it before
    assert found.debt == pytest.approx(debt)


def test_a_credit_is_limited_as_a_debt_is_and_what_was_decided_counts_as_expected_then() -> None:
    settings = ControlSettings(Cost.MS, 10.0)
    state = initial_state(settings, BETA, (8.0, 20.0))
    assert observe(settings, replace(state, debt=-329.0), [1], [0.0]).debt == pytest.approx(-330)
    waiting = replace(state, pending=(2, 1), pending_costs=(30.0, 25.0))
    once = observe(settings, waiting, [0], [10.0])
    assert (once.debt, once.pending, once.pending_costs) == (-5.0, (1, 1), (15.0, 25.0))
    twice = observe(settings, once, [0], [10.0])
    assert (twice.debt, twice.pending, twice.pending_costs) == (-10.0, (0, 1), (0.0, 25.0))


@pytest.mark.parametrize(("ms", "after", "debt"), [(10.0, 0.196, -0.2), (10.01, 0.216, 0.8)])
def test_an_image_is_late_beyond_its_limit_and_that_is_learnt_slowly(ms, after, debt) -> None:
    settings = ControlSettings(Cost.LATE, 0.1, limit_ms=10.0)
    found = observe(settings, initial_state(settings, BETA, (0.2, 0.6)), [0], [ms])
    assert found.exit_costs == (pytest.approx(after), 0.6)
    assert found.debt == pytest.approx(debt)


def test_the_bound_of_a_debt_is_of_a_thousand_images_or_of_one_decision() -> None:
    assert debt_bound(ControlSettings(Cost.LATE, 0.1), (0.2, 0.6)) == pytest.approx(2.2)
    assert debt_bound(ControlSettings(Cost.LATE, 0.01), (0.2, 0.6)) == pytest.approx(0.4)
    assert debt_bound(ControlSettings(Cost.LATE, 0.01), (0.6, 0.2)) == pytest.approx(0.4)


def test_an_image_without_a_time_counts_as_expected() -> None:
    settings = settings_of(Cost.MS, 15.0)
    before = initial_state(settings, BETA, (EASY_MS, HARD_MS))
    hard, decided = decide(settings, before, BETA[:50])
    after = observe(settings, decided, hard.astype(int), np.full(50, math.nan))
    assert after.debt == decided.debt
    assert after.exit_costs == (EASY_MS, HARD_MS)
    assert (after.pending, after.pending_costs) == ((0, 0), (0.0, 0.0))


def test_images_without_times_do_not_spoil_later_ones() -> None:
    settings, mean_cost = settings_of(Cost.MS, 30.0), 30.0
    state = initial_state(settings, BETA, (EASY_MS, HARD_MS))
    easiness = beta_stream("steady", 0)
    hard, state = decide(settings, state, easiness)
    state = observe(settings, state, hard.astype(int), np.full(len(hard), math.nan))
    spent = []
    for value in np.tile(easiness, 2):  # times have doubled
        hard, state = decide(settings, state, [value])
        spent.append(2 * (HARD_MS if hard[0] else EASY_MS))
        state = observe(settings, state, hard.astype(int), [spent[-1]])
    assert np.mean(spent[-HORIZON:]) == pytest.approx(mean_cost, rel=CLOSE)


def test_a_share_of_hard_images_does_not_look_at_times() -> None:
    _, state = decide(HALF, initial_state(HALF, BETA, (0.0, 1.0)), BETA[:8])
    after = observe(HALF, state, [0, 1], [1e6, 1e-6])
    assert after.debt == state.debt
    assert after.exit_costs == (0, 1)


@pytest.mark.parametrize(
    ("exits", "ms"), [([0], [1.0, 2.0]), ([2], [1.0]), ([-1], [1.0]), ([0], [math.inf]), (0, 1.0)]
)
def test_observations_that_fit_no_image_are_refused(exits, ms) -> None:
    state = initial_state(HALF, BETA, (0.0, 1.0))
    with support.refuses(InputError, "observed", "expected"):
        observe(HALF, state, exits, ms)


# State


FINITE = st.floats(-1e6, 1e6)
STATES = st.builds(
    ControllerState,
    cost=st.sampled_from(Cost),
    window=st.lists(st.floats(0, 1, width=32), max_size=WINDOW).map(tuple),
    exit_costs=st.tuples(FINITE, FINITE),
    debt=FINITE,
    pending=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    pending_costs=st.tuples(FINITE, FINITE),
    images=st.integers(0),
    hard_images=st.integers(0),
)


@relaxed
@given(STATES)
def test_a_state_survives_json(state) -> None:
    assert ControllerState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


@relaxed
@given(STATES, st.lists(st.floats(0, 1) | st.just(math.nan), max_size=20))
def test_any_state_that_was_saved_can_go_on(state, values) -> None:
    settings = ControlSettings(state.cost, 0.4, limit_ms=10.0)
    hard, after = decide(settings, state, values)
    assert len(hard) == len(values)
    after = observe(settings, after, hard.astype(int), np.full(len(values), 12.0))
    assert ControllerState.from_dict(after.to_dict()) == after


@pytest.mark.parametrize(
    "change",
    [
        {"cost": "fuel"},
        {"window": "abc"},
        {"window": [math.nan]},
        {"debt": math.inf},
        {"debt": None},
        {"exit_costs": [1.0]},
        {"pending_costs": [1.0, math.nan]},
        {"images": "many"},
        {"unknown": 1},
    ],
)
def test_a_state_that_is_none_is_refused(change) -> None:
    payload = initial_state(HALF, BETA, (0.0, 1.0)).to_dict() | change
    with support.refuses(InputError, "state"):
        ControllerState.from_dict(payload)
    with support.refuses(InputError, "state"):
        ControllerState.from_dict({})


# The policy


def controller(settings: ControlSettings = HALF) -> Controller:
    costs = (EASY_MS, HARD_MS) if settings.cost is Cost.MS else (0.0, 1.0)
    return Controller(settings, initial_state(settings, BETA, costs), "half hard")


def test_a_controller_is_a_policy_that_observes() -> None:
    made = controller()
    assert isinstance(made, Policy)
    assert isinstance(made, Observer)
    assert str(made) == "half hard"
    made.check([support.at_exit(0, 0)], None)
    with support.refuses(PolicyError, "3 exits", "expected 2"):
        made.check([support.at_exit(index, 0, 3) for index in range(2)], None)
    with support.refuses(PolicyError, "Controller", "one way"):
        made.check([], None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_a_thread_that_it_does_not_have() -> None:
    made, asked, answered = controller(), threading.Event(), threading.Event()

    class Slow:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            asked.set()
            answered.wait()
            return np.zeros(1, np.float32)

    slow = (Slow(), support.at_exit(0, 0))
    other = threading.Thread(target=made.decide, args=slow, daemon=True)
    other.start()
    asked.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(5)  # ends a child that waits
        made.decide(np.zeros(1, np.float32), support.at_exit(0, 0))
        os._exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    answered.set()
    other.join()


def test_equal_controllers_decide_equally_and_go_on_where_they_were_saved() -> None:
    easiness = beta_stream("periodic", 3).astype(np.float32)
    first, second, third = controller(), controller(), controller()
    for start in range(0, 640, 8):
        batch = easiness[start : start + 8]
        assert (support.go_on(first, batch) == support.go_on(second, batch)).all()
    assert first.state == second.state
    third.restore(ControllerState.from_dict(json.loads(json.dumps(first.state.to_dict()))))
    assert third.threshold == first.threshold
    assert (support.go_on(third, easiness[640:]) == support.go_on(first, easiness[640:])).all()


def test_the_state_of_another_cost_is_refused() -> None:
    with support.refuses(PolicyError, "'ms'", "'hard'"):
        controller().restore(controller(settings_of(Cost.MS, 15.0)).state)


def test_a_state_that_was_handed_out_does_not_change() -> None:
    made = controller()
    before = made.state
    copy = before.to_dict()
    support.go_on(made, np.float32([0.1, 0.9]))
    assert made.state != before
    assert before.to_dict() == copy


@pytest.fixture
def eager_threads():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_many_threads_lose_no_image() -> None:
    made = controller(settings_of(Cost.MS, 15.0))
    sent = []

    def work(seed: int) -> None:
        easiness = np.random.default_rng(seed).beta(4, 2, (50, 8)).astype(np.float32)
        for batch in easiness:
            hard = support.go_on(made, batch)
            made.observe(hard.astype(int), np.where(hard, HARD_MS, EASY_MS))
            sent.append(int(hard.sum()))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = made.state
    assert state.images == 8 * 50 * 8
    assert state.hard_images == sum(sent)
    assert state.pending == (0, 0)
    spent = sum(sent) * HARD_MS + (state.images - sum(sent)) * EASY_MS
    assert state.debt == pytest.approx(spent - 15 * state.images)
    assert sum(sent) / state.images == pytest.approx(0.5, abs=0.06)
