"""Engines that run for one frame in n, and budgets on top of that and of frames before."""

from __future__ import annotations

import itertools
import pickle
import time

import numpy as np
import pytest

import dyninfer
from dyninfer import (
    AlwaysHard,
    EveryNth,
    FramesPerSecond,
    LatencyBudget,
    PolicyError,
    PreviousFrame,
    Threshold,
)
from tests import support
from tests.dyninfer.calibrations import EXIT_MS
from tests.dyninfer.monitoring import watching
from tests.dyninfer.runtime.test_detector_goals import EASINESS, opened  # noqa: F401  # a fixture

MS = np.mean(EXIT_MS, axis=1)  # 10 and 20


class Clip(dyninfer.FrameSource):
    """Frames of these pictures, 25 a second; live ones were left out before each."""

    def __init__(self, pictures: list[np.ndarray], *, live: bool = False) -> None:
        super().__init__("made", len(pictures))
        self._frames = enumerate(pictures)
        self.live = live

    def __next__(self) -> dyninfer.Frame:
        index, image = next(self._frames)
        left_out = 2 * self.live
        return dyninfer.Frame(image, index * (1 + left_out), index / 25, "made", left_out)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("trackers", reason="the extra track is not installed")


def predicted(detector: dyninfer.Detector, clip: Clip, policy: object) -> list[bool]:
    return [here.predicted for _, here in detector.stream(clip, policy=policy)]


@pytest.mark.parametrize("live", [False, True], ids=["file", "live"])
@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_one_frame_in_n_is_run(two_exits, monkeypatch, n, live) -> None:
    pictures = [np.full((9, 12, 3), 10 * number, np.uint8) for number in range(8)]
    ran = []
    engine = two_exits.engines["first"]
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda *given: ran.append(1) or run(*given))
    found = predicted(two_exits, Clip(pictures, live=live), EveryNth(n))
    assert found == [number % n != 0 for number in range(8)]
    assert len(ran) == found.count(False)


def test_frames_that_are_run_are_answered_as_by_a_call(two_exits) -> None:
    pictures = [np.full((9, 12, 3), 30 * number, np.uint8) for number in range(8)]
    for policy, exits in ((AlwaysHard(), {1}), (Threshold(0), {0})):
        stream = two_exits.stream(Clip(pictures), policy=EveryNth(4, policy))
        for number, (frame, here) in enumerate(stream):
            assert here.exit_index in exits  # in between it is that of the frame that was run
            if number % 4 == 0:
                called = two_exits(frame.image, policy=policy)
                np.testing.assert_array_equal(here.boxes_xyxy, called.boxes_xyxy)
                assert {*here.timings_ms} == {"decode", *called.timings_ms}
            else:
                assert here.timings_ms == {}
    two_exits.policy = AlwaysHard()
    assert {
        here.exit_index for _, here in two_exits.stream(Clip(pictures), policy=EveryNth(2))
    } == {1}


def test_what_remembers_sees_the_frames_that_are_run_in_their_order(two_exits, monkeypatch) -> None:
    """Each waits for the one that was run before it, over the frames in between, however slow."""
    picture = np.ones((9, 12, 3), np.uint8)
    pictures = [picture * (200 if number // 2 % 3 else 20) for number in range(16)]
    policy = PreviousFrame(Threshold(0.5))
    called = [two_exits(image, policy=policy).exit_index for image in pictures[::2]]
    assert {*called} == {0, 1}
    engine, order = two_exits.engines["first"], itertools.count()
    run = engine.run

    def slowly(*given: object) -> object:
        if next(order) % 2 == 0:  # so that the next one would overtake it
            time.sleep(0.02)
        return run(*given)

    monkeypatch.setattr(engine, "run", slowly)
    everyone = EveryNth(2, PreviousFrame(Threshold(0.5)))
    found = [here for _, here in two_exits.stream(Clip(pictures), policy=everyone)]
    assert [here.exit_index for here in found[::2]] == called


def test_streams_have_ids_of_their_own(two_exits) -> None:
    picture = np.full((9, 12, 3), 255, np.uint8)
    streams = [two_exits.stream(Clip([picture] * 6), track=True) for _ in range(2)]
    ids = np.array([[here.track_ids for _, here in pair] for pair in zip(*streams, strict=True)])
    assert ids.shape == (6, 2, 1)
    np.testing.assert_array_equal(ids[:, 0], ids[:, 1])
    assert ids[-1, 0, 0] >= 0


def mean_ms(results: list[dyninfer.Detections]) -> float:
    """By the calibration's milliseconds, in which budgets count; what is predicted takes none."""
    return sum(MS[here.exit_index] for here in results if not here.predicted) / len(results)


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [
        (LatencyBudget(13), 12.5, 13),
        (FramesPerSecond(80), 12, 12.5),
        (PreviousFrame(LatencyBudget(13)), 12.5, 13.05),  # the first frame takes the dearest way
        (PreviousFrame(FramesPerSecond(80)), 12, 12.55),
        (PreviousFrame(LatencyBudget(13), smoothing=0.5, hold=3), 10, 13.05),
        (EveryNth(4, LatencyBudget(13)), 12 / 4, 13 / 4),
        (EveryNth(4, PreviousFrame(LatencyBudget(13))), 12 / 4, 13.2 / 4),
        (EveryNth(4, FramesPerSecond(320)), 12 / 4, 12.5 / 4),  # each may take four times as long
        (EveryNth(4, PreviousFrame(FramesPerSecond(320))), 12 / 4, 12.7 / 4),
    ],
    ids=str,
)
def test_budgets_hold_over_a_stream(opened, policy, least, most) -> None:  # noqa: F811
    easiness = np.repeat(np.random.default_rng(0).permutation(np.tile(EASINESS[0], 4)), 4)
    stream = opened.stream(Clip([watching.picture(value) for value in easiness]), policy=policy)
    assert least <= mean_ms([here for _, here in stream]) <= most


def test_a_rate_that_every_frame_could_not_have_is_possible_for_some(opened) -> None:  # noqa: F811
    clip = Clip([watching.picture(0.9)] * 3)
    with support.refuses(PolicyError, "200 frames per second"):
        list(opened.stream(clip, policy=FramesPerSecond(200)))
    clip = Clip([watching.picture(0.9)] * 8)
    assert predicted(opened, clip, EveryNth(4, FramesPerSecond(200))).count(False) == 2


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: EveryNth(0), ["n is 0", "from 1 up"]),
        (lambda: EveryNth(True), ["n is True"]),
        (lambda: EveryNth(2.5), ["n is 2.5"]),
        (lambda: EveryNth(2, "hard"), ["'hard'", "such as Threshold(0.5)"]),
        (lambda: EveryNth(2, EveryNth(2)), ["EveryNth(n=2", "such as Threshold(0.5)"]),
        (lambda: EveryNth(2, AlwaysHard), ["expected a policy or a goal"]),
    ],
)
def test_what_makes_no_sense_is_refused(make, parts) -> None:
    with support.refuses(PolicyError, *parts):
        make()


def test_it_is_for_streams_of_boxes_alone(two_exits, tmp_path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with support.refuses(dyninfer.InputError, "EveryNth is for detector.stream alone"):
        two_exits(image, policy=EveryNth(2))
    with support.refuses(dyninfer.InputError, "EveryNth is for detector.stream alone"):
        two_exits.policy = EveryNth(2)
    for given in ({"policy": EveryNth(2)}, {"track": True}):
        with support.refuses(dyninfer.InputError, "images one after the other"):
            two_exits.stream([image], **given)
    classifier = dyninfer.load(support.write_static_classifier(tmp_path / "c.dyn"))
    with classifier, support.refuses(dyninfer.InputError, "tracking follows boxes", "classif"):
        classifier.stream(Clip([image]), track=True)
    assert len(list(two_exits.stream([image], policy=EveryNth(1, AlwaysHard())))) == 1


def test_it_is_written_and_pickled() -> None:
    policy = EveryNth(5, LatencyBudget(20))
    assert str(policy) == "20 ms on average, one frame in 5"
    assert str(EveryNth(5)) == "one frame in 5"
    assert pickle.loads(pickle.dumps(policy)) == policy
