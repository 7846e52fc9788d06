"""Many streams at once: each in order, nobody waits for another, one budget for all."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict

import numpy as np
import pytest

import dyninfer
from dyninfer.routing.sharing import longest_wait_s
from dyninfer.runtime import many_streams
from dyninfer.runtime.stream_budget import StreamBudget, parse_budget, prior_losses
from tests import support
from tests.dyninfer.runtime.test_detector_goals import opened  # noqa: F401  # a fixture
from tests.dyninfer.runtime.test_streaming import Made


@pytest.fixture
def fixed_costs(monkeypatch) -> None:
    """Answers cost 10 and 40 ms for all that the budget knows, whatever they take here."""
    monkeypatch.setattr(many_streams.ManyStreams, "_measure", lambda *_: np.array([10.0, 40.0]))

    def spent(self, requests, _found, _ms):
        return self._budget.ms[[request.way for request in requests]]

    monkeypatch.setattr(many_streams.ManyStreams, "_spent", spent)


def left_over() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("dyninfer cam")]


def test_each_stream_comes_in_order_with_what_a_call_finds(two_exits) -> None:
    sources = {"cam1": Made(20), "cam2": Made(7), "cam3": Made(0)}
    by_stream = defaultdict(list)
    with dyninfer.run_streams(sources, two_exits) as streams:
        for result in streams:
            by_stream[result.stream].append(result)
    assert {name: len(found) for name, found in by_stream.items()} == {"cam1": 20, "cam2": 7}
    for found in by_stream.values():
        assert [result.frame.index for result in found] == list(range(len(found)))
        for result in found:
            called = two_exits(result.frame.image)
            np.testing.assert_array_equal(result.detections.boxes_xyxy, called.boxes_xyxy)
            assert result.detections.exit_index == called.exit_index
            assert result.skipped == 0
    assert streams.ended == dict.fromkeys(sources)
    assert all(source.closed for source in sources.values())
    assert not left_over()


def test_frames_of_all_streams_run_as_one_batch(two_exits) -> None:
    with dyninfer.run_streams({f"cam{n}": Made(10) for n in range(4)}, two_exits) as streams:
        assert len(list(streams)) == 40
    first = two_exits.engines["first"]
    assert (first.run_count, first.row_count) == (10, 40)


def test_one_that_fails_is_reported_and_the_others_go_on(two_exits, caplog) -> None:
    torn = dyninfer.InputError("the film tore")
    sources = {"cam1": Made(3, torn), "cam2": Made(9), "cam3": "no.mp4"}
    with dyninfer.run_streams(sources, two_exits) as streams:
        counts = Counter(result.stream for result in streams)
    assert counts == {"cam1": 3, "cam2": 9}
    assert streams.ended["cam1"] is torn
    assert "no.mp4 does not exist" in str(streams.ended["cam3"])
    assert streams.ended["cam2"] is None
    assert "cam1 has ended: the film tore" in caplog.text


def test_where_no_stream_gives_a_frame_that_is_an_error(two_exits) -> None:
    with support.refuses(dyninfer.InputError, "no.mp4 does not exist"):
        list(dyninfer.run_streams({"cam1": "no.mp4"}, two_exits))
    assert not left_over()


def test_a_stalled_stream_holds_nobody_up(two_exits, monkeypatch) -> None:
    monkeypatch.setattr("dyninfer.runtime.cameras.PATIENCE_S", 0.05)
    stalled = Made(2, "wait")
    start = time.monotonic()
    with dyninfer.run_streams({"cam1": stalled, "cam2": Made(60)}, two_exits) as streams:
        counts = Counter()
        for result in streams:
            counts[result.stream] += 1
            if counts["cam2"] == 60:
                break
    assert counts == {"cam1": 2, "cam2": 60}
    assert time.monotonic() - start < 20
    stalled.close()


def test_leaving_ends_everything_at_once(two_exits) -> None:
    sources = {"cam1": Made(1000), "cam2": Made(1, "wait", live=True)}
    streams = dyninfer.run_streams(sources, two_exits)
    next(streams)
    streams.close()
    for _ in range(100):
        if not left_over():
            break
        time.sleep(0.05)
    assert not left_over()
    assert all(source.closed for source in sources.values())
    assert sources["cam1"].taken < 10


def test_every_stream_has_a_previous_frame_of_its_own(two_exits) -> None:
    policy = dyninfer.PreviousFrame(dyninfer.Threshold(0.5))
    alone = {}
    for name, count in (("cam1", 20), ("cam2", 9)):
        mine = dyninfer.PreviousFrame(dyninfer.Threshold(0.5))
        frames = list(Made(count + 3))[3 if name == "cam2" else 0 :][:count]
        alone[name] = [two_exits(frame.image, policy=mine).exit_index for frame in frames]
    later = Made(12)
    for _ in range(3):
        next(later)
    found = defaultdict(list)
    with dyninfer.run_streams(
        {"cam1": Made(20), "cam2": later}, two_exits, policy=policy
    ) as all_of:
        for result in all_of:
            found[result.stream].append(result.detections.exit_index)
    assert found == alone
    assert {0, 1} == set(alone["cam1"])


def test_policies_may_differ_by_stream(two_exits) -> None:
    policy = {"cam1": dyninfer.AlwaysHard(), "cam2": dyninfer.Threshold(0)}
    sources = {"cam1": Made(5), "cam2": Made(5)}
    with dyninfer.run_streams(sources, two_exits, policy=policy) as streams:
        taken = {(result.stream, result.detections.exit_index) for result in streams}
    assert taken == {("cam1", 1), ("cam2", 0)}


@pytest.mark.usefixtures("fixed_costs")
@pytest.mark.parametrize("budget", [60, 100, 400, 5000])
def test_a_budget_is_held_and_nobody_is_starved(two_exits, budget) -> None:
    """Frames come ten times a second, and four streams would take 400 to 1600 ms a second."""
    last, gaps, skipped = defaultdict(float), defaultdict(float), Counter()
    sources = {f"cam{n}": Made(100) for n in range(4)}
    with dyninfer.run_streams(sources, two_exits, budget=budget, fairness=0.5) as streams:
        for result in streams:
            name, seconds = result.stream, result.frame.time_s
            gaps[name] = max(gaps[name], seconds - last[name])
            last[name] = seconds
            skipped[name] += result.skipped
        assert streams.spent_ms <= budget * streams.seconds + 4 * 40 + 1e-6
        assert streams.spent_ms >= min(0.5 * budget, 600) * 10
    assert streams.seconds == pytest.approx(10)
    assert max(gaps.values()) <= longest_wait_s(4, budget, 0.5, 40) + 0.2
    assert len(gaps) == 4
    if budget == 5000:
        assert sum(streams.skipped.values()) == 0
    else:
        assert 0 < sum(skipped.values()) <= sum(streams.skipped.values())


def test_what_cannot_be_is_said(two_exits) -> None:
    one = {"cam1": Made(1)}
    for arguments, message in (
        ({"budget": "200"}, "the budget is '200', expected milliseconds of work a second"),
        ({"budget": "200ms"}, "such as 200ms/s"),
        ({"budget": 0}, "the budget is 0"),
        ({"budget": float("nan")}, "the budget is nan"),
        ({"fairness": 0}, "fairness is 0, expected a share above 0"),
        ({"fairness": 1.5}, "fairness is 1.5"),
    ):
        with support.refuses(dyninfer.PolicyError, message):
            dyninfer.run_streams(one, two_exits, **arguments)
    with support.refuses(dyninfer.InputError, "the streams are []"):
        dyninfer.run_streams([], two_exits)
    with support.refuses(dyninfer.InputError, "policies are given for cam2, expected one for each"):
        dyninfer.run_streams(one, two_exits, policy={"cam2": dyninfer.AlwaysHard()})
    assert parse_budget(" 2.5 MS/s") == 2.5
    assert parse_budget(300) == 300


@pytest.mark.usefixtures("fixed_costs")
def test_the_calibration_is_what_is_believed_of_an_exit(opened) -> None:  # noqa: F811
    first, last = prior_losses(opened)(0.5)
    assert (0 <= first <= 1, last) == (True, 0.0)
    with dyninfer.run_streams({"cam1": Made(4)}, opened, budget=500) as streams:
        assert len(list(streams)) == 4
    assert streams.way_ms == (10, 40)


def test_without_a_calibration_it_is_the_easiness(two_exits) -> None:
    assert prior_losses(two_exits)(0.8) == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("losses", [[0.0, 0.0], [1.0, 0.0]], ids=["cheap", "dear"])
def test_the_first_answer_leaves_nothing_to_buy_another(losses) -> None:
    """Even where less than the dearest was wanted, and answers cost less than was measured."""
    budget = StreamBudget(["cam1"], 2, 0.01, 0.5, lambda _: losses)
    budget.measured(np.array([10.0, 40.0]))
    first = budget.choose(["cam1"])
    assert [way for _, way in first] == [0, 1]  # its audit
    assert budget.ms is not None
    budget.ms /= 10
    budget.go_on(1.0)
    assert budget.choose(["cam1"]) == []


@pytest.mark.usefixtures("fixed_costs")
@pytest.mark.parametrize("budget", [100, 400])
def test_an_exit_that_finds_other_things_is_seldom_paid_for(two_exits, budget) -> None:
    """What its router calls easy (the frames grow light) its first exit gets wrong all the same."""
    exits = Counter()
    sources = {f"cam{n}": Made(200) for n in range(4)}
    with dyninfer.run_streams(sources, two_exits, budget=budget) as streams:
        for result in streams:
            exits[result.detections.exit_index] += 1
    assert exits[0] <= 0.1 * exits[1]
