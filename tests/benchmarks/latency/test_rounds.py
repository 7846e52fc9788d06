from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.benchmarks.latency.pictures import BenchPictures, synthetic_pictures
from dyninfer.benchmarks.latency.request import (
    CALLS_OF_A_CALLER,
    MOST_STRETCH,
    Effort,
    calls_by_round,
    planned_calls,
)
from dyninfer.benchmarks.latency.rounds import RoundsInterrupted, YardstickTimer, measure_rounds
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.slices import Slice, TimedCall
from dyninfer.benchmarks.latency.summary import summarise
from dyninfer.routing.policy import Threshold
from tests import support

REPEATS = 5
LEAST_ROUNDS = 5
SHORT = Effort(seconds=0.01, rounds=3, min_calls=6, warm_up_seconds=0.01)
PICTURES = synthetic_pictures(16, 24)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 12), st.integers(1, 20))
def test_rounds_share_the_calls_evenly_in_whole_periods(
    total: int, rounds: int, period: int
) -> None:
    plan = calls_by_round(total, rounds, period)
    assert len(plan) == rounds
    assert sum(plan) % period == 0
    assert total <= sum(plan) < max(total + period, MOST_STRETCH * total + 1, LEAST_ROUNDS + 1)
    assert max(plan) - min(plan) <= period
    assert sum(map(bool, plan)) >= min(rounds, LEAST_ROUNDS, sum(plan))
    if total > LEAST_ROUNDS * period:
        assert all(calls % period == 0 for calls in plan)


def test_fewer_slow_calls_than_rounds_leave_rounds_out_but_not_nearly_all() -> None:
    assert sorted(calls_by_round(6, 10)) == [0] * 4 + [1] * 6
    assert sorted(calls_by_round(2, 10)) == [0] * 5 + [1] * 5
    assert calls_by_round(1, 2) == (1, 1)


def test_whole_periods_are_added_where_they_are_short_and_cut_where_they_would_take_long() -> None:
    quarter, tenth = calls_by_round(12, 10, period=4), calls_by_round(12, 10, period=10)
    assert sorted(quarter) == [0] * 5 + [4] * 5
    assert tenth == (2,) * 10  # two periods, in all rounds instead of two


def test_a_long_period_is_cut_rather_than_run_whole() -> None:
    assert calls_by_round(10, 5, period=100) == (2, 2, 2, 2, 2)


@pytest.mark.parametrize(
    ("call_ms", "rate", "calls"),
    [(5, None, 1000), (500, None, 10), (4000, None, 6), (5, 30, 150), (5, 1, 50), (400, 30, 50)],
)
def test_calls_fill_the_time_that_was_given(call_ms: float, rate: float | None, calls: int) -> None:
    assert planned_calls(Scenario(rate_per_s=rate), call_ms, Effort()) == calls


def test_a_quick_look_too_makes_a_call_in_each_of_five_rounds() -> None:
    assert planned_calls(Scenario(), 4000, Effort(seconds=0.6, rounds=5, min_calls=3)) == 5
    assert planned_calls(Scenario(), 4000, Effort(seconds=0.6, rounds=2, min_calls=1)) == 2


def test_a_slow_mixture_is_spread_over_rounds_enough_for_an_interval(
    two_exits: dyninfer.Detector,
) -> None:
    slow = Effort(seconds=0.0, rounds=10, min_calls=6, warm_up_seconds=0.01)
    ((track,), _) = measure_rounds(two_exits, [Scenario(1, 0.1)], PICTURES, slow)
    assert len(track.slices) >= LEAST_ROUNDS
    exits = [e for piece in track.slices for call in piece.calls for e in call.exits]
    assert exits.count(1) / len(exits) == 0.1
    found = summarise(track.scenario, track.warm_up, track.slices, two_exits.manifest)
    assert found.latency.p50_ms.has_interval


@pytest.mark.parametrize(("ms", "settles"), [(400, True), (1000, True), (1500, False)])
def test_only_calls_that_are_long_themselves_need_none_to_settle(
    two_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch, ms: float, settles: bool
) -> None:
    slices = []

    def run_slice(_detect, batches, _rate, _callers) -> Slice:
        slices.append(len(batches))
        calls = tuple(TimedCall(0, 0, 0, round(ms * 1e6), (0,), ({},)) for _ in batches)
        return Slice(calls, ms * len(batches))

    monkeypatch.setattr("dyninfer.benchmarks.latency.rounds.run_slice", run_slice)
    effort = Effort(seconds=10.0, rounds=2, min_calls=8, warm_up_seconds=1.0)
    ((track,), _) = measure_rounds(two_exits, [Scenario(1, 0.0)], PICTURES, effort)
    measured = list(track.plan)
    with_settling = [1, measured[0], 1, measured[1]]
    assert slices[-4:] == with_settling if settles else slices[-2:] == measured


def test_a_rate_is_kept_in_the_calls_that_count_and_not_in_the_warm_up(
    two_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float | None] = []

    def run_slice(_detect, batches, rate, callers) -> Slice:
        rates.append(rate)
        assert callers == 1
        return Slice(tuple(TimedCall(0, 0, 0, 10**9, (0,), ({},)) for _ in batches), 1e3)

    monkeypatch.setattr("dyninfer.benchmarks.latency.rounds.run_slice", run_slice)
    effort = Effort(seconds=0.1, rounds=2, min_calls=2, warm_up_seconds=1.0)
    ((track,), _) = measure_rounds(two_exits, [Scenario(1, 0.0, rate_per_s=50.0)], PICTURES, effort)
    measured = [rate for rate in rates if rate is not None]
    assert measured == [50.0] * len(track.slices)
    assert rates[0] is None


def test_every_scenario_is_run_in_every_round_at_its_exact_share(
    two_exits: dyninfer.Detector,
) -> None:
    scenarios = [Scenario(1, 0.25), Scenario(4, 0.0), Scenario(4, 0.5), Scenario(4, 1.0)]
    own = two_exits.policy
    steps: list[str] = []
    tracks, yardstick = measure_rounds(two_exits, scenarios, PICTURES, SHORT, steps.append)
    assert two_exits.policy == own
    assert steps[:4] == [f"warming up: {scenario.name}" for scenario in scenarios]
    for number in range(3):
        told = {f"round {number + 1}/3: {scenario.name}" for scenario in scenarios}
        assert set(steps[4 * (number + 1) : 4 * (number + 2)]) == told
    assert len(steps) == len(scenarios) * 4
    assert len(yardstick.rounds_ms) == 3
    assert [track.scenario for track in tracks] == scenarios
    for track in tracks:
        exits = [e for piece in track.slices for call in piece.calls for e in call.exits]
        assert exits.count(1) / len(exits) == track.scenario.hard_fraction
        assert sum(track.plan) >= 6
        assert [len(piece.calls) for piece in track.slices] == [n for n in track.plan if n]
        assert track.warm_up.calls > 0


@pytest.mark.parametrize("after", [0, 3, 5])
def test_an_interruption_gives_what_was_measured_if_anything_was(
    two_exits: dyninfer.Detector, after: int
) -> None:
    """Of two scenarios in each round."""
    ran: list[str] = []

    def run_or_stop(scenario: Scenario, run) -> Slice:
        if len(ran) == after:
            raise KeyboardInterrupt
        ran.append(scenario.name)
        return run()

    scenarios = [Scenario(1, 0.0), Scenario(1, 1.0)]
    effort = replace(SHORT, rounds=4, min_calls=40)
    with pytest.raises(KeyboardInterrupt) as stopped:
        measure_rounds(two_exits, scenarios, PICTURES, effort, on_slice=run_or_stop)
    found = stopped.value
    assert isinstance(found, RoundsInterrupted) is (after > 0)
    if isinstance(found, RoundsInterrupted):
        assert sum(len(track.slices) for track in found.tracks) == after
        assert found.number == after // 2
        assert len(found.yardstick.rounds_ms) == after // 2 + 1


def test_each_round_has_an_order_of_its_own(two_exits: dyninfer.Detector) -> None:
    scenarios = [Scenario(1, hard) for hard in (0.0, 0.25, 0.5, 1.0)]
    order: list[str] = []

    def note(scenario: Scenario, run) -> Slice:
        order.append(scenario.name)
        return run()

    effort = replace(SHORT, rounds=4, min_calls=40)
    measure_rounds(two_exits, scenarios, PICTURES, effort, on_slice=note)
    rounds = [order[start : start + 4] for start in range(0, len(order), 4)]
    assert len(rounds) == 4
    assert all(sorted(names) == sorted(rounds[0]) for names in rounds)
    assert rounds[1] == rounds[0][::-1]
    assert rounds[2] != rounds[0]


def test_images_go_as_the_router_says_where_nothing_is_forced(
    two_exits: dyninfer.Detector,
) -> None:
    easy, hard = (support.coded_images([(code, 0, 0)]) for code in (0.9, 0.1))
    arrays = tuple(
        (image[0].transpose(1, 2, 0)[..., ::-1] * 255).astype("uint8")
        for image in (easy, hard, hard)
    )
    two_exits.policy = Threshold(0.5)
    pictures = BenchPictures("coded", arrays)
    tracks, _ = measure_rounds(two_exits, [Scenario(3, None)], pictures, SHORT)
    exits = {call.exits for piece in tracks[0].slices for call in piece.calls}
    assert exits == {(0, 1, 1)}


def test_a_bundle_of_one_exit_and_one_without_a_router_are_run(tmp_path: Path) -> None:
    with dyninfer.load(support.write_static(tmp_path / "one.dyn")) as detector:
        tracks, _ = measure_rounds(detector, [Scenario(2, 1.0)], PICTURES, SHORT)
        assert {e for p in tracks[0].slices for c in p.calls for e in c.exits} == {0}
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    with dyninfer.load(path) as detector:
        tracks, _ = measure_rounds(detector, [Scenario(1, 0.0), Scenario(1, 1.0)], PICTURES, SHORT)
        left = [{e for p in t.slices for c in p.calls for e in c.exits} for t in tracks]
        assert left == [{0}, {1}]


def test_a_way_is_forced_by_its_name_and_a_share_is_that_of_the_last(tmp_path: Path) -> None:
    with dyninfer.load(support.write_three_exits(tmp_path / "three.dyn")) as detector:
        scenarios = [Scenario(1, 0.0), Scenario(2, 1.0), Scenario(1, way="exit 1")]
        tracks, _ = measure_rounds(detector, scenarios, PICTURES, SHORT)
        left = [{e for p in t.slices for c in p.calls for e in c.exits} for t in tracks]
        assert left == [{0}, {2}, {1}]


def test_pictures_take_turns(two_exits: dyninfer.Detector) -> None:
    seen: Counter[int] = Counter()

    class Watched(dyninfer.Detector):
        def answers(self, images, **options):
            seen.update(id(image) for image in images)
            return super().answers(images, **options)

    two_exits.__class__ = Watched
    # a call before every round begins with the first picture: a large share of few calls
    measure_rounds(two_exits, [Scenario(2, 0.5)], PICTURES, replace(SHORT, min_calls=60))
    assert set(seen) == {id(array) for array in PICTURES.arrays}
    assert max(seen.values()) - min(seen.values()) <= math.ceil(sum(seen.values()) / 10)


def test_files_are_decoded_within_the_call_where_that_was_asked_for(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    import cv2

    from dyninfer.benchmarks.latency.pictures import load_pictures
    from dyninfer.evaluation.dataset import Sample, Samples

    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), PICTURES.arrays[0])
    pictures = load_pictures(Samples((Sample(path),)))
    tracks, _ = measure_rounds(
        two_exits, [Scenario(1, 0.0), Scenario(1, 0.0, decode=True)], pictures, SHORT
    )
    plain, decoding = (t.slices[0].calls[0].timings_ms[0] for t in tracks)
    assert "decode" in decoding
    assert "decode" not in plain
    assert tracks[1].scenario.decode


def test_callers_at_once_and_schedules_are_run(two_exits: dyninfer.Detector) -> None:
    scenarios = [Scenario(1, 0.5, concurrency=2), Scenario(1, 0.5, rate_per_s=500.0)]
    tracks, _ = measure_rounds(two_exits, scenarios, PICTURES, SHORT)
    for track in tracks:
        exits = [e for piece in track.slices for call in piece.calls for e in call.exits]
        assert exits.count(1) == len(exits) / 2
    scheduled = tracks[1].slices[0]
    due = [call.due_ns for call in scheduled.calls]
    assert {b - a for a, b in pairwise(due)} == {2_000_000}
    assert all(call.start_ns >= call.due_ns for call in scheduled.calls)


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 20), st.integers(2, 8))
def test_several_callers_always_have_calls_enough_to_meet(
    total: int, rounds: int, period: int, callers: int
) -> None:
    plan, least = calls_by_round(total, rounds, period, callers), CALLS_OF_A_CALLER * callers
    assert len(plan) == rounds
    assert all(calls >= least for calls in plan if calls)
    assert sum(plan) >= max(total, least)
    assert sum(plan) % period == 0
    assert sum(plan) < max(total, MOST_STRETCH * total, LEAST_ROUNDS, least) + 2 * period
    if MOST_STRETCH * total >= LEAST_ROUNDS * (least + period):
        assert sum(map(bool, plan)) >= min(rounds, LEAST_ROUNDS)


def test_slow_calls_of_several_callers_fill_fewer_rounds() -> None:
    assert sorted(calls_by_round(6, 10, callers=4)) == [0] * 9 + [12]
    assert sorted(calls_by_round(16, 10, callers=4)) == [0] * 8 + [12] * 2
    assert sorted(calls_by_round(40, 10, callers=4)) == [0] * 5 + [12] * 5
    assert calls_by_round(120, 10, callers=4) == (12,) * 10


def test_slow_calls_of_several_callers_overlap(two_exits: dyninfer.Detector) -> None:
    slow = Effort(seconds=0.0, rounds=10, min_calls=6, warm_up_seconds=0.01)
    ((track,), _) = measure_rounds(two_exits, [Scenario(1, 0.0, concurrency=4)], PICTURES, slow)
    assert track.slices
    assert all(len(piece.calls) >= 12 for piece in track.slices)


def test_the_yardstick_is_the_median_without_the_first_in_milliseconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent_ms = [900, *range(10, 10 + 2 * REPEATS, 2)]
    ticks = iter([at for ms in spent_ms for at in (0, round(ms * 1e6))])
    clock = SimpleNamespace(perf_counter_ns=lambda: next(ticks))
    monkeypatch.setattr("dyninfer.benchmarks.latency.rounds.time", clock)
    assert YardstickTimer().median_ms() == 10 + REPEATS - 1
    assert next(ticks, None) is None


def test_every_call_takes_the_pictures_after_those_of_the_call_before(
    two_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {id(array): index for index, array in enumerate(PICTURES.arrays)}
    taken: list[int] = []

    def run_slice(_detect, batches, _rate, _callers) -> Slice:
        taken.extend(place[id(picture)] for batch in batches for picture in batch)
        calls = tuple(TimedCall(0, 0, 0, 2 * 10**9, (0,), ({},)) for _ in batches)
        return Slice(calls, 2e3 * len(batches))  # so long that only the first has to settle

    monkeypatch.setattr("dyninfer.benchmarks.latency.rounds.run_slice", run_slice)
    effort = Effort(seconds=0.1, rounds=3, min_calls=3, warm_up_seconds=1.0)
    ((track,), _) = measure_rounds(two_exits, [Scenario(3, 1.0)], PICTURES, effort)
    assert sum(track.plan) >= 3
    warm = 3 * track.warm_up.calls
    assert taken[warm : warm + 3] == [0, 1, 2]  # to settle
    del taken[warm : warm + 3]
    assert taken == [index % len(place) for index in range(len(taken))]
