"""Many streams through one detector, batched together, under one budget of milliseconds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from dyninfer.errors import InputError, PolicyError
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.sources import open_source
from dyninfer.results.answers import Detections
from dyninfer.results.tasks import Options
from dyninfer.results.tracking import Tracker
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import Forced, LeaveAt, Policy
from dyninfer.runtime.cameras import Camera, Cameras
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.runtime.stream_budget import Request, StreamBudget, parse_budget, prior_losses
from dyninfer.runtime.stream_policies import each, policies_of
from dyninfer.spans import total_ms
from dyninfer.types import Float64Array, as_float, shown

logger = logging.getLogger("dyninfer")

Source = str | os.PathLike[str] | int | FrameSource
_TOGETHER_S = 0.02  # frames of files that are no further apart are answered together
_STEP_S = 0.04  # of sources without times


class StreamResult(NamedTuple):
    """What was found in a frame of one of many streams.

    ``skipped`` counts the frames of this stream, since its last answer, that the budget did not
    allow; those that a live source left out itself are ``frame.dropped``.
    """

    stream: str
    frame: Frame
    detections: Detections
    skipped: int


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
        trackers: Mapping[str, Tracker],
        opened: Callable[[Source], FrameSource],
        at_end: Callable[[], None],
    ) -> None:
        self.ended: dict[str, Exception | None] = {}
        self.skipped = dict.fromkeys(sources, 0)
        self.spent_ms = self.seconds = 0.0
        self._detector, self._options = detector, options
        self._policies, self._trackers, self._at_end = policies, trackers, at_end
        self._budget: StreamBudget | None = None
        if budget is not None:
            self._budget = StreamBudget(
                sources,
                1 if policies else len(detector.manifest.ways),
                budget,
                fairness,
                prior_losses(detector),
            )
        self._unanswered = dict.fromkeys(sources, 0)
        self._times = dict.fromkeys(sources, 0.0)
        self._start = time.monotonic()
        self._seen = False
        self._cameras = Cameras((name, _opener(opened, of)) for name, of in sources.items())
        self._results = self._run()

    @property
    def way_ms(self) -> tuple[float, ...]:
        """What an answer on each way is expected to cost by now; empty without a budget."""
        known = None if self._budget is None else self._budget.ms
        return () if known is None else tuple(known.tolist())

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
                if self._budget is not None:
                    self._budget.without(camera.name)
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

    def _round(self, frames: Mapping[str, Frame]) -> Iterator[StreamResult]:
        """Answer those of the frames that the budget allows, together."""
        requests = self._choose(frames)
        for name in frames.keys() - {request.stream for request in requests}:
            self._unanswered[name] += 1
            self.skipped[name] += 1
        if not requests:
            return
        start = time.perf_counter()
        found = self._detector.answers(
            [frames[request.stream].image for request in requests],
            options=self._options,
            policy=self._policy_for(requests),
        )
        spent = self._spent(requests, found, (time.perf_counter() - start) * 1e3)
        self.spent_ms += float(spent.sum())
        if self._budget is not None:
            self._budget.learn(requests, cast(list[Detections], found), spent)
        answers = {request.stream: one for request, one in zip(requests, found, strict=True)}
        for name, detections in answers.items():  # the last of each stream's
            skipped, self._unanswered[name] = self._unanswered[name], 0
            one, frame = cast(Detections, detections), frames[name]
            if tracker := self._trackers.get(name):
                one = tracker(frame, one)
            yield StreamResult(name, frame, one, skipped)

    def _choose(self, frames: Mapping[str, Frame]) -> list[Request]:
        if self._budget is None:
            return [Request(name, 0) for name in frames]
        if self._budget.ms is None:
            self._budget.measured(self._measure(next(iter(frames.values()))))
        self._budget.go_on(self.seconds)
        return self._budget.choose(frames)

    def _policy_for(self, requests: Sequence[Request]) -> Policy | None:
        if self._policies is not None:
            return each([self._policies[request.stream] for request in requests])
        return None if self._budget is None else Forced([request.way for request in requests])

    def _measure(self, frame: Frame) -> Float64Array:
        """(ways,) milliseconds of an answer, the quicker one of two."""
        found = []
        for way in range(1 if self._policies else len(self._detector.manifest.ways)):
            policy = None if self._policies else LeaveAt(way)
            spent = []
            for _ in range(2):
                start = time.perf_counter()
                self._detector.answers([frame.image], options=self._options, policy=policy)
                spent.append((time.perf_counter() - start) * 1e3)
            found.append(min(spent))
        return np.array(found)

    def _spent(self, requests: Sequence[Request], found: Sequence[Any], ms: float) -> Float64Array:
        """(N,) milliseconds of each answer: its own steps, and its share of what is left."""
        del requests
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
    track: bool = False,
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
    goes, frame by frame, to whatever gains most per millisecond: how much less would have been lost
    since the stream's last answer. Each stream is answered on the way that loses least over time,
    at once and while answers age. That is learned from its own answers: on its first frame, and
    seldom afterwards, an earlier exit is compared with the last one; the bundle's calibration and
    the easiness count until then. Where the budget allows no answer, a frame is left out and
    counted.

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
        track: whether objects get ids, ``track_ids``, which they keep from answer to answer of
            their stream.
        opening: of :func:`dyninfer.open_source`, such as ``timeout_s``.

    Raises:
        MissingExtra: the library that tracks is not installed.
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
        policies = policies_of(opened, list(sources), policy)
        trackers = {name: opened.tracker(options) for name in sources} if track else {}
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
        trackers,
        open_it,
        opened.close if own else lambda: None,
    )


def _opener(opened: Callable[[Source], FrameSource], source: Source) -> Callable[[], FrameSource]:
    return lambda: opened(source)
