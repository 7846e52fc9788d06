"""What is found in a stream gets ids from a library's ByteTrack, and is moved between frames.

The library is ``trackers``, into which supervision's own ByteTrack has moved.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from dyninfer.errors import MissingExtra
from dyninfer.forks import Opening
from dyninfer.images.frames import Frame
from dyninfer.installing import pip_install
from dyninfer.results.answers import Detections

_BEGINS_ABOVE = 0.1
"""Confidence beyond the least reported one that begins a track, as in the published ByteTrack; what
is less sure only carries one on."""
_RATE = 30.0  # frames a second, for which the library's own settings are made
_STEP_S = 1e-3  # between frames that say the same time


def load_trackers() -> tuple[Any, Any]:
    """The modules ``trackers`` and ``supervision``.

    Raises:
        MissingExtra: one of them is not installed.
    """
    with Opening():
        try:
            import supervision
            import trackers
        except ImportError as error:
            raise MissingExtra(
                f"tracking needs the library trackers ({error}); run: {pip_install('track')}"
            ) from None
    return trackers, supervision


class Tracker:
    """Follows what is found in one stream from frame to frame; call it with each in its turn.

    Ids do not depend on the class, which may flicker. Lost objects are remembered for a second.

    Args:
        confidence: the least that detections have.
        every: one frame in so many is one that an engine runs for.

    Raises:
        MissingExtra: the library is not installed.
    """

    def __init__(self, confidence: float, every: int = 1) -> None:
        trackers, self._supervision = load_trackers()
        begins = min(confidence + _BEGINS_ABOVE, (1 + confidence) / 2)
        self._tracker = trackers.ByteTrackTracker(
            # a second, and what is between two frames that are run at five frames a second
            lost_track_buffer=round(_RATE * (1 + (every - 1) / 5)),
            frame_rate=_RATE,
            track_activation_threshold=begins,
            high_conf_det_threshold=begins,
        )
        self._ahead: Any = None
        self._time_s: float | None = None
        self._last: Detections | None = None

    def __call__(self, frame: Frame, found: Detections | None) -> Detections:
        """Of the next frame: what was found with ids, or if no engine ran what is expected there.

        The first frame is one that an engine ran for.
        """
        return self._predict(frame) if found is None else self._update(frame, found)

    def _update(self, frame: Frame, found: Detections) -> Detections:
        """An id is -1 until an object has been found twice, and of what is too unsure."""
        seen = self._supervision.Detections(
            xyxy=found.boxes_xyxy,
            confidence=found.confidences,
            class_id=found.class_ids,
            data={"row": np.arange(len(found))},
        )
        tracked = self._tracker.update(seen, timestamp=self._next(frame.time_s))
        ids = np.full(len(found), -1, np.int64)
        if len(tracked):  # in an order of its own
            ids[tracked.data["row"]] = tracked.tracker_id
        self._ahead = None
        self._last = _with(found, track_ids=ids)
        return self._last

    def _predict(self, frame: Frame) -> Detections:
        """Where what was found last is by now; what has no id stays where it was."""
        last = self._last
        assert last is not None
        assert last.track_ids is not None  # of _update
        if self._ahead is None:  # the library forgets what it has seen once and then not at once
            self._ahead = copy.deepcopy(self._tracker)
        self._ahead.update(self._supervision.Detections.empty(), timestamp=self._next(frame.time_s))
        moved = self._ahead.tracked_objects
        places = {int(track): box for track, box in zip(moved.tracker_id, moved.xyxy, strict=True)}
        boxes = last.boxes_xyxy.copy()
        for row, track in enumerate(last.track_ids.tolist()):
            boxes[row] = places.get(track, boxes[row])
        height, width = frame.image.shape[:2]
        boxes = boxes.clip(0, np.array([width, height, width, height], np.float32))
        return _with(last, boxes_xyxy=boxes, predicted=True, timings_ms={})

    def _next(self, time_s: float | None) -> float | None:
        """The library leaves out frames whose time does not go on."""
        if time_s is not None and self._time_s is not None:
            time_s = max(time_s, self._time_s + _STEP_S)
        self._time_s = time_s
        return time_s


def _with(found: Detections, **changes: Any) -> Detections:
    return Detections(**{**vars(found), **changes})
