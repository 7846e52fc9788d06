"""Many streams through one detector, batched together, under one budget of milliseconds."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from dyninfer.errors import InputError, PolicyError
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.sources import open_source
from dyninfer.results.answers import Detections
from dyninfer.results.tasks import Options, disagreement
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Blind, DecisionPoint, Forced, Later, LeaveAt, Policy
from dyninfer.routing.previous import PreviousFrame
from dyninfer.routing.sharing import Ledger, Offer, losses_near, share_out
from dyninfer.runtime.cameras import Camera, Cameras
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.spans import total_ms
from dyninfer.types import Float32Array, Float64Array, Int64Array, as_float, shown

logger = logging.getLogger("dyninfer")

Source = str | os.PathLike[str] | int | FrameSource
_TOGETHER_S = 0.02  # frames of files that are no further apart are answered together
_STEP_S = 0.04  # of sources without times
_CHANGE = 0.2  # loss a second by which an answer ages, until the stream itself tells
_NEWS = 0.2  # share of its latest in what an answer is expected to cost


class StreamResult(NamedTuple):
    """What was found in a frame of one of many streams.

    ``skipped`` counts the frames of this stream, since its last answer, that the budget did not
    allow; those that a live source left out itself are ``frame.dropped``.
    """

    stream: str
    frame: Frame
    detections: Detections
    skipped: int


def parse_budget(text: str | float | None) -> float | None:
    """Milliseconds a second: ``200ms/s``, or the number alone.

    Raises:
        PolicyError: it is something else, or not above 0.
    """
    if text is None:
        return None
    found = as_float(text)
    if isinstance(text, str):
        number = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*ms\s*/\s*s\s*", text, re.IGNORECASE)
        found = float(number[1]) if number else math.nan
    if not 0 < found < math.inf:
        raise PolicyError(
            f"the budget is {shown(text)}, expected milliseconds of work a second above 0, "
            "such as 200ms/s"
        )
    return found


class ManyStreams(Iterator[StreamResult]):
    """Results as they come, in the order of each stream's frames; see :func:`run_streams`.

    Use it as a context manager, or :meth:`close` it.

    Attributes:
        ended: streams that gave their last frame, each with the error that ended it, or None.
        skipped: frames of each stream that the budget did not allow so far.
        spent_ms: of work so far.
        seconds: that the streams' clock has gone on meanwhile.
    """

    def __init__(
        self,
        detector: Detector,
        sources: Mapping[str, Source],
        budget: float | None,
        fairness: float,
        options: Options | None,
        policies: Mapping[str, Policy] | None,
        opened: Callable[[Source], FrameSource],
        at_end: Callable[[], None],
    ) -> None:
        self.ended: dict[str, Exception | None] = {}
        self.skipped = dict.fromkeys(sources, 0)
        self.spent_ms = self.seconds = 0.0
        self._detector, self._options = detector, options
        self._budget, self._fairness, self._policies = budget, fairness, policies
        self._at_end = at_end
        self._ledger = Ledger(dict.fromkeys(sources, 0.0))
        self._ways = 1 if policies else len(detector.manifest.ways)
        self._ms: Float64Array | None = None
        self._easiness: dict[str, float] = {}
        self._answered = dict.fromkeys(sources, 0.0)  # when, by the streams' clock
        self._last: dict[str, Any] = {}
        self._change = dict.fromkeys(sources, _CHANGE)
        self._worse = dict.fromkeys(sources, 0.0)
        self._unanswered = dict.fromkeys(sources, 0)
        self._times = dict.fromkeys(sources, 0.0)
        self._easiness_known, self._losses = _calibrated(detector)
        self._start = time.monotonic()
        self._seen = False
        self._cameras = Cameras((name, _opener(opened, of)) for name, of in sources.items())
        self._results = self._run()

    @property
    def way_ms(self) -> tuple[float, ...]:
        """What an answer on each way is expected to cost by now; empty without a budget."""
        return () if self._ms is None else tuple(self._ms.tolist())

    def __next__(self) -> StreamResult:
        return next(self._results)

    def _run(self) -> Iterator[StreamResult]:
        try:
            while here := self._cameras.ready():
                self._seen = True
                self._note_ended()
                if frames := self._due(here):
                    yield from self._round(frames)
            self._note_ended()
            errors = [error for error in self.ended.values() if error is not None]
            if errors and not self._seen:
                raise errors[0]
        finally:
            self.close()

    def _note_ended(self) -> None:
        for camera in self._cameras.all:
            if camera.ended and camera.frame is None and camera.name not in self.ended:
                self.ended[camera.name] = camera.error
                self._ledger = self._ledger.without(camera.name)
                if camera.error is not None and self._seen:  # else it is raised
                    logger.warning("%s has ended: %s", camera.name, camera.error)

    def _due(self, here: Sequence[Camera]) -> dict[str, Frame]:
        """Frames whose turn is now; beside live streams those of files keep their times."""
        live = any(camera.live for camera in self._cameras.all)
        times = {camera.name: self._time_of(camera) for camera in here}
        # who was stalled and is late holds nobody up
        in_time = [at for at in times.values() if at >= self.seconds] or [*times.values()]
        now = time.monotonic() - self._start if live else min(in_time) + _TOGETHER_S
        due = [camera for camera in here if camera.live or times[camera.name] <= now]
        if not due:
            time.sleep(min(0.005, min(times.values()) - now))
            return {}
        clock = now if live else max(times[camera.name] for camera in due)
        self._earn(max(0.0, clock - self.seconds))
        self.seconds = max(self.seconds, clock)
        with self._cameras.change:
            frames = {camera.name: camera.take() for camera in due}
        for name in frames:
            self._times[name] = times[name]
        return frames

    def _time_of(self, camera: Camera) -> float:
        frame = camera.frame
        assert frame is not None  # only those with a frame are asked
        return self._times[camera.name] + _STEP_S if frame.time_s is None else frame.time_s

    def _earn(self, seconds: float) -> None:
        if self._budget is not None and self._ms is not None:
            dearest = dict.fromkeys(self._ledger.own, float(self._ms.max()))
            self._ledger = self._ledger.earn(seconds, self._budget, self._fairness, dearest)

    def _round(self, frames: Mapping[str, Frame]) -> Iterator[StreamResult]:
        """Answer those of the frames that the budget allows, together."""
        if self._budget is not None and self._ms is None:
            self._ms = self._measure(next(iter(frames.values())))
            self._ledger = self._ledger.advance(float(self._ms.max()))
        ways = self._choose(frames)
        for name in frames.keys() - ways.keys():
            self._unanswered[name] += 1
            self.skipped[name] += 1
        names = list(ways)
        if not names:
            return
        start = time.perf_counter()
        found = self._detector.answers(
            [frames[name].image for name in names],
            options=self._options,
            policy=self._policy_for(names, ways),
        )
        self._learn(names, ways, found, (time.perf_counter() - start) * 1e3)
        for name, detections in zip(names, found, strict=True):
            skipped, self._unanswered[name] = self._unanswered[name], 0
            yield StreamResult(name, frames[name], cast(Detections, detections), skipped)

    def _choose(self, frames: Mapping[str, Frame]) -> dict[str, int]:
        if self._budget is None:
            return dict.fromkeys(frames, 0)
        assert self._ms is not None  # _round has measured
        ms = self._ms.tolist()
        offers = {name: Offer(ms, self._gain(name)) for name in frames}
        chosen, self._ledger = share_out(self._ledger, offers)
        return chosen

    def _gain(self, name: str) -> list[float]:
        """Of an answer on each way: how much less is lost by it than by the last one, by now.

        That was as good as its way, and what there is to see has changed since.
        """
        lost = self._lost(name)
        last = self._last.get(name)
        if last is None:
            return [1.0 - loss for loss in lost]
        age = max(self.seconds - self._answered[name], _STEP_S)
        by_now = min(1.0, lost[last.exit_index if len(lost) > 1 else 0] + self._change[name] * age)
        return [max(0.0, by_now - loss) for loss in lost]

    def _lost(self, name: str) -> list[float]:
        """Expected loss of an answer on each way, against the best."""
        if self._policies or self._ways == 1:
            return [0.0]
        easiness = self._easiness.get(name, 0.5)
        if self._losses is None:  # no calibration: the easiness tells how good the first exit is
            lost = (1 - easiness) * np.linspace(1, 0, self._ways)
        elif self._easiness_known is None:
            lost = np.append(self._losses.mean(axis=1), 0.0)
        else:
            lost = losses_near(self._easiness_known, self._losses, easiness)
        worse = self._worse[name]
        return [min(1.0, max(0.0, loss + worse)) for loss in lost.tolist()[:-1]] + [0.0]

    def _note_change(self, name: str, answer: Any) -> None:
        """Follow how quickly the best answers age, and what others lose on this stream."""
        last, age = self._last.get(name), max(self.seconds - self._answered[name], _STEP_S)
        if last is not None and not self._policies:
            ways, lost = (last.exit_index, answer.exit_index), self._lost(name)
            expected = lost[min(ways)] if ways[0] != ways[1] else 0.0
            surprise = disagreement(last, answer) - expected - self._change[name] * age
            if min(ways) == self._ways - 1:
                self._change[name] += _NEWS * surprise / age
            elif max(ways) == self._ways - 1:
                self._worse[name] += _NEWS * surprise
        self._last[name] = answer
        self._answered[name] = self.seconds
        if answer.easiness is not None:
            self._easiness[name] = answer.easiness

    def _policy_for(self, names: Sequence[str], ways: Mapping[str, int]) -> Policy | None:
        if self._policies is not None:
            return _each([self._policies[name] for name in names])
        return None if self._budget is None else Forced([ways[name] for name in names])

    def _measure(self, frame: Frame) -> Float64Array:
        """(ways,) milliseconds of an answer, the quicker one of two."""
        found = []
        for way in range(self._ways):
            policy = None if self._policies else LeaveAt(way)
            spent = []
            for _ in range(2):
                start = time.perf_counter()
                self._detector.answers([frame.image], options=self._options, policy=policy)
                spent.append((time.perf_counter() - start) * 1e3)
            found.append(min(spent))
        return np.array(found)

    def _learn(
        self, names: Sequence[str], ways: Mapping[str, int], found: Sequence[Any], ms: float
    ) -> None:
        spent = self._spent(names, ways, found, ms)
        self.spent_ms += float(spent.sum())
        if self._ms is None:
            return
        expected = 0.0
        for name, answer, own in zip(names, found, spent.tolist(), strict=True):
            self._note_change(name, answer)
            expected += float(self._ms[ways[name]])
            self._ms[ways[name]] += _NEWS * (own - self._ms[ways[name]])
        self._ledger = self._ledger.settle(expected, float(spent.sum()))

    def _spent(
        self, names: Sequence[str], ways: Mapping[str, int], found: Sequence[Any], ms: float
    ) -> Float64Array:
        """(N,) milliseconds of each answer: its own steps, and its share of what is left."""
        del names, ways
        own = np.array([total_ms(answer.timings_ms, decode=False) for answer in found])
        return np.asarray(own + max(0.0, ms - float(own.sum())) / len(own), np.float64)

    def close(self) -> None:
        """End all streams; who waits for a result gets no more."""
        self._cameras.close()
        self._at_end()

    def __enter__(self) -> ManyStreams:
        return self

    def __exit__(self, *_: object) -> None:
        self._results.close()  # type: ignore[attr-defined]  # it is a generator
        self.close()


def run_streams(
    sources: Mapping[str, Source],
    detector: Detector | str | os.PathLike[str] = "everyday",
    *,
    budget: str | float | None = None,
    fairness: float = 0.5,
    options: Options | None = None,
    policy: Policy | Goal | Mapping[str, Policy | Goal] | None = None,
    **opening: Any,
) -> ManyStreams:
    """Detect objects in the frames of many cameras or videos, batched together.

    Each source is read in a thread of its own, so that one that stalls, fails or ends is nothing to
    the others: they go on, and :attr:`ManyStreams.ended` and the log say what became of it. Frames
    that are there at the same time run as one batch. Live sources give their newest frame; files
    alone go as fast as they can, by the clock of their own times, and keep pace with live ones.

    With a budget, each stream is sure of an answer as often as it can pay the dearest from an even
    share, ``fairness``, of the budget: of n streams and c milliseconds for that, every
    ``n * c / (fairness * budget)`` seconds, to which comes the time until its next frame. The rest
    goes, frame by frame, to whatever gains most per millisecond: how much less is lost than by
    keeping the stream's last answer, which is known of the easiness of that frame, the bundle's
    calibration, and how quickly the stream's answers came to differ so far. Where the budget allows
    no answer, or it gains nothing, a frame is left out and counted.

    Args:
        sources: by name, whatever :func:`dyninfer.open_source` takes, or what it has opened.
        detector: opened, or the path or shipped name of a bundle, which is closed at the end.
        budget: milliseconds of work a second for all streams together, ``"200ms/s"`` or 200; None
            to run every frame. Held on average; at most what a second of it saves is spent at once.
        fairness: share of the budget that is dealt out evenly, above 0 and at most 1.
        options: of the postprocessing, as calls of the detector take it.
        policy: decides on the ways, for all streams or for each by name; every stream gets a
            :class:`dyninfer.PreviousFrame` of its own. None for the budget's choice of ways, or
            without a budget for the detector's policy.
        opening: of :func:`dyninfer.open_source`, such as ``timeout_s``.

    Raises:
        DyninferError: an argument is wrong; while it runs, where the engines fail, or where no
            stream gave a frame.
    """
    if not isinstance(sources, Mapping) or not sources:
        raise InputError(
            f"the streams are {shown(sources)}, expected a name and a source for at least one, "
            'such as {"door": "rtsp://..."}'
        )
    limit = parse_budget(budget)
    if not 0 < as_float(fairness) <= 1:
        raise PolicyError(f"fairness is {shown(fairness)}, expected a share above 0, at most 1")
    own = not isinstance(detector, Detector)
    opened = load(cast(str, detector)) if own else cast(Detector, detector)
    try:
        policies = _policies(opened, list(sources), policy)
    except BaseException:
        if own:
            opened.close()
        raise

    def open_it(source: Source) -> FrameSource:
        if isinstance(source, FrameSource):
            return source
        return open_source(source, **{"max_pixels": opened.max_pixels} | opening)

    return ManyStreams(
        opened,
        sources,
        limit,
        fairness,
        options,
        policies,
        open_it,
        opened.close if own else lambda: None,
    )


def _opener(opened: Callable[[Source], FrameSource], source: Source) -> Callable[[], FrameSource]:
    return lambda: opened(source)


def _policies(
    detector: Detector,
    names: Sequence[str],
    policy: Policy | Goal | Mapping[str, Policy | Goal] | None,
) -> dict[str, Policy] | None:
    if policy is None:
        return None
    given = policy if isinstance(policy, Mapping) else dict.fromkeys(names, policy)
    if set(given) != set(names):
        raise InputError(
            f"policies are given for {', '.join(map(str, given)) or 'no stream'}, expected one for "
            f"each of {', '.join(names)}"
        )
    return {name: detector.resolve(_own(given[name])) for name in names}


def _own(policy: Policy | Goal) -> Policy | Goal:
    """What remembers frames must not see those of other streams."""
    if not isinstance(policy, PreviousFrame):
        return policy
    return PreviousFrame(policy.policy, smoothing=policy.smoothing, hold=policy.hold)


def _calibrated(detector: Detector) -> tuple[Float64Array | None, Float64Array | None]:
    """Easiness (N,) and losses (ways - 1, N) of these engines' calibration, as far as known."""
    record = detector.engine_record()
    for calibration in detector.bundle.calibrations():
        if not calibration.engine.differences(record, times=False) and calibration.losses:
            routers = calibration.easiness_array
            known = len(routers) == 1 and not np.isnan(routers).any()
            return routers[0] if known else None, calibration.losses_array
    return None, None


def _each(policies: Sequence[Policy]) -> Policy:
    if all(isinstance(policy, Blind) for policy in policies):
        return _EachLater(policies)
    return _Each(policies)


class _Each:
    """A policy for each image of a call."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def decide(self, signal: Float32Array, point: DecisionPoint) -> Int64Array:
        """See :class:`dyninfer.Policy`."""
        outcomes = np.empty(len(point.images), np.int64)
        for place, image in enumerate(point.images.tolist()):
            one, here = signal[place : place + 1], point.of(point.images[place : place + 1])
            policy = self._policies[image]
            outcomes[place] = policy.decide(one, here)[0]
            if isinstance(policy, Later) and not isinstance(self, Later):
                policy.learn(one, here)  # the signal is there, since others wait for it
        return outcomes


class _EachLater(_Each, Later):
    """The same where none of them waits for a signal."""

    def learn(self, signal: Float32Array, point: DecisionPoint) -> None:
        """See :class:`dyninfer.routing.policy.Later`."""
        for place, image in enumerate(point.images.tolist()):
            policy = self._policies[image]
            if isinstance(policy, Later):
                here = point.of(point.images[place : place + 1])
                policy.learn(signal[place : place + 1], here)
