"""A frame takes the way of the frames before it, and nobody waits for its own router."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dyninfer
from dyninfer import (
    AlwaysEasy,
    Chosen,
    Forced,
    HardFraction,
    LatencyBudget,
    PolicyError,
    PreviousFrame,
    Threshold,
    parse_speed,
)
from tests import support
from tests.dyninfer.monitoring import watching
from tests.dyninfer.runtime.test_detector_goals import calibrate, opened  # noqa: F401  # a fixture
from tests.engines.trt.rig import make_rig

EASY, HARD = 0.9, 0.1


def ways(policy: PreviousFrame, frames: list[float]) -> list[int]:
    """Exits of frames with this easiness, one after the other."""
    found = []
    for easiness in frames:
        point = support.at_exit(0, 1)
        found += policy.decide(np.full(1, np.nan, np.float32), point).tolist()
        policy.learn(np.array([easiness], np.float32), point)
    return found


def test_the_first_frame_takes_the_dearest_way_and_each_other_that_of_the_one_before() -> None:
    policy = PreviousFrame(Threshold(0.5))
    assert ways(policy, [EASY, EASY, HARD, EASY, HARD]) == [1, 0, 0, 1, 0]
    assert ways(policy, [EASY]) == [1]  # of the last hard one
    policy.reset()
    assert ways(policy, [EASY, HARD]) == [1, 0]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.floats(0, 1))
def test_without_smoothing_all_is_one_frame_later(frames: list[float], threshold: float) -> None:
    policy = Threshold(threshold)
    alone = policy.decide(np.array(frames, np.float32), support.at_exit(0, len(frames)))
    assert ways(PreviousFrame(policy), frames) == [1, *alone.tolist()[:-1]]


def test_a_smoothed_signal_follows_slowly() -> None:
    # 0.9, 0.45, 0.225: below 0.3 after the second dark frame
    assert ways(PreviousFrame(Threshold(0.3), smoothing=0.5), [0.9, 0, 0, 0]) == [1, 0, 0, 1]


@given(
    st.lists(st.sampled_from([EASY, HARD]), min_size=2, max_size=40),
    st.integers(1, 5),
)
def test_a_way_is_held_for_as_many_frames(frames: list[float], hold: int) -> None:
    found = ways(PreviousFrame(Threshold(0.5), hold=hold), frames)[1:]  # the first is not held
    changes = [0, *(place for place in range(1, len(found)) if found[place] != found[place - 1])]
    assert all(later - earlier >= hold for earlier, later in itertools.pairwise(changes))
    held = found[:1]  # what follows is the wanted way, wherever it may change
    for wanted in (int(easiness == HARD) for easiness in frames[1:-1]):
        free = held[-hold:] == [held[-1]] * hold
        held.append(wanted if free else held[-1])
    assert found == held


def test_a_broken_router_sends_the_next_frame_on_and_is_forgotten() -> None:
    policy = PreviousFrame(Threshold(0.5), smoothing=0.9)
    assert ways(policy, [EASY, float("nan"), EASY, EASY]) == [1, 0, 1, 0]


def test_frames_of_one_call_are_decided_by_those_before_it(two_exits) -> None:
    policy = PreviousFrame(Threshold(0.5), smoothing=0.5)
    images = {"images": support.coded_images([(0.9, 0, 0), (0.9, 0, 1), (0.05, 0, 2)])}
    found = two_exits.infer(images, policy=policy)
    assert [output.exit_index for output in found] == [1, 1, 1]
    assert [output.easiness for output in found] == pytest.approx([0.9, 0.9, 0.05], abs=1e-3)
    found = two_exits.infer(images, policy=policy)  # 0.9, 0.9, 0.475
    assert [output.exit_index for output in found] == [1, 1, 1]
    assert [o.exit_index for o in two_exits.infer(images, policy=Threshold(0.5))] == [0, 0, 1]


def test_three_exits_remember_every_router(three_exits) -> None:
    policy = PreviousFrame(Threshold(0.5))

    def exits(*codes: tuple[float, float]) -> list[int]:
        batch = [(*code, 0.0) for code in codes]
        feed = {
            "images": support.coded_images(batch),
            "images_2": support.coded_images(batch, 4),
        }
        return [output.exit_index for output in three_exits.infer(feed, policy=policy)]

    assert exits((0.1, 0.9)) == [2]
    assert exits((0.9, 0.1)) == [1]
    assert exits((0.1, 0.9)) == [0]
    assert exits((0.1, 0.9)) == [2]  # the second router last saw the second frame
    assert exits((0.1, 0.9)) == [1]


def test_a_chooser_s_scores_are_remembered_too(tmp_path) -> None:
    path = support.write_select_detectors(tmp_path / "select.dyn")
    codes = [(0.9, 0.1, 0.0)], [(0.1, 0.9, 0.0)], [(0.1, 0.9, 0.0)]
    frames = [
        {"images": support.coded_images(code), "images_2": support.coded_images(code, 4)}
        for code in codes
    ]
    with dyninfer.load(path) as detector:
        alone = [detector.infer(frame)[0].exit_index for frame in frames]
        assert set(alone) == {0, 1}
        policy = PreviousFrame(Chosen())
        found = [detector.infer(frame, policy=policy)[0].exit_index for frame in frames]
        assert found == [1, alone[0], alone[1]]


def test_a_goal_is_held_by_its_calibration_s_threshold(opened) -> None:  # noqa: F811
    opened.policy = PreviousFrame(HardFraction(0.3))
    assert opened.active_policy.policy == opened.resolve(HardFraction(0.3))
    frames = np.repeat(watching.quantised(np.linspace(0, 1, 100)), 2)
    exits = [opened(watching.picture(easiness)).exit_index for easiness in frames]
    assert exits[0] == 1
    assert np.mean(exits[1:]) == pytest.approx(0.3, abs=0.03)
    assert opened.policy.policy == HardFraction(0.3)


def test_an_adaptive_budget_learns_on(opened) -> None:  # noqa: F811
    opened.policy = PreviousFrame(LatencyBudget(ms=13, adaptive=True))
    for _ in range(5):
        opened(watching.picture(0.5))
    assert opened.active_policy.policy.state.images == 4  # the first frame was not its decision


def test_what_a_call_of_another_size_remembers_is_kept(opened) -> None:  # noqa: F811
    policy = PreviousFrame(HardFraction(0.3))
    assert opened(watching.picture(0.9), policy=policy).exit_index == 1
    found = opened(watching.pictures([0.1, 0.1]), policy=policy)
    assert [answer.exit_index for answer in found] == [0, 0]
    assert opened(watching.picture(0.9), policy=policy).exit_index == 1


def test_on_a_gpu_nobody_waits_for_the_router(tmp_path) -> None:
    """Engines and waits come in the order in which they come where the way is forced."""
    path = support.write_two_exits(tmp_path / "two.dyn")
    one = {"images": support.coded_images([(0.1, 0, 0)])}
    orders = {}
    for policy in (Forced([1]), PreviousFrame(Threshold(0.5)), Threshold(0.5)):
        rig, events = make_rig(), []
        wait, enqueue = rig.machine.wait, rig.machine.enqueue

        def watch_wait(event, wait=wait, events=events):
            events.append("wait")
            return wait(event)

        def watch(handle, operation, enqueue=enqueue, events=events):
            events.append(operation.name)
            return enqueue(handle, operation)

        with rig.detector(path) as detector:
            rig.machine.wait, rig.machine.enqueue = watch_wait, watch
            for _ in range(3):
                (found,) = detector.infer(one, policy=policy)
                assert found.exit_index == 1
                events.append("answer")
            rig.machine.wait, rig.machine.enqueue = wait, enqueue
        orders[type(policy)] = events
    assert orders[PreviousFrame] == orders[Forced]
    assert orders[PreviousFrame] != orders[Threshold]


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: PreviousFrame(AlwaysEasy()), ("AlwaysEasy", "reads the router")),
        (lambda: PreviousFrame(Forced([0])), ("Forced", "reads the router")),
        (lambda: PreviousFrame(PreviousFrame(Threshold(0.5))), ("reads the router",)),
        (lambda: PreviousFrame(0.5), ("0.5", "Threshold(0.5)")),
        (lambda: PreviousFrame(Threshold), ("Threshold", "reads the router")),
        (lambda: PreviousFrame(Threshold(0.5), smoothing=1), ("smoothing is 1",)),
        (lambda: PreviousFrame(Threshold(0.5), smoothing="a"), ("smoothing",)),
        (lambda: PreviousFrame(Threshold(0.5), hold=0), ("hold is 0", "from 1 up")),
        (lambda: PreviousFrame(Threshold(0.5), hold=True), ("hold is True",)),
        (lambda: parse_speed("easy+previous"), ("AlwaysEasy", "reads the router")),
        (lambda: parse_speed("30%+previous+adaptive"), ("none of the forms",)),
    ],
)
def test_what_makes_no_sense_is_refused(make, parts) -> None:
    with support.refuses(PolicyError, *parts):
        make()


def test_a_route_that_does_not_fit_is_refused(two_exits, tmp_path) -> None:
    with support.refuses(PolicyError, "2 thresholds given, expected 1"):
        two_exits.policy = PreviousFrame(Threshold((0.5, 0.5)))
    with (
        dyninfer.load(support.write_static(tmp_path / "static.dyn")) as static,
        support.refuses(PolicyError, "PreviousFrame", "one way for all images"),
    ):
        static.policy = PreviousFrame(Threshold(0.5))


def test_it_is_written_read_and_pickled() -> None:
    policy = parse_speed("30%+adaptive+previous")
    assert isinstance(policy, PreviousFrame)
    assert policy.policy == HardFraction(0.3, adaptive=True)
    text = "PreviousFrame(Threshold(value=0.5), smoothing=0.5, hold=3)"
    other = PreviousFrame(Threshold(0.5), smoothing=0.5, hold=3)
    assert (repr(other), str(other)) == (text, "threshold 0.5, by the previous frame")
    ways(other, [EASY])
    assert ways(pickle.loads(pickle.dumps(other)), [EASY]) == [0]
