"""What is known of one image in the end: detections, classes, or outputs as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic_core import CoreSchema, core_schema

from dyninfer.errors import InputError
from dyninfer.plain_text import counted, plain
from dyninfer.types import Float32Array, Int64Array, is_whole, shown

_SHOWN = 5  # of what was found, where a result is printed
_FLOAT32, _INT64 = np.dtype(np.float32), np.dtype(np.int64)


class Answer(ABC):
    """What the results of all tasks have in common; everything found is in order, best first.

    ``dict(found)`` and pydantic give what :meth:`to_dict` gives, and so an endpoint of FastAPI can
    return a result as it is. It is no dataclass, since encoders take those apart down to their
    arrays, which are not JSON.

    Attributes:
        class_ids: (D,) int64, index into the bundle's class names.
        confidences: (D,) float32 in [0, 1].
        class_names: D names, one for each class id.
        easiness: the router's output in [0, 1], or None where no router ran.
        exit_index: the way that the image took, 0 for the first exit or branch.
        degraded: True when the route was not the one the policy asked for, or a failure that took
            nothing else left its easiness unknown.
        timings_ms: stage, or a step of :mod:`dyninfer.spans` -> milliseconds: the image's share of
            what its batch took. Nothing counts twice; what is left of a call's time is overhead.
    """

    class_ids: Int64Array
    confidences: Float32Array
    class_names: tuple[str, ...]
    easiness: float | None
    exit_index: int
    degraded: bool
    timings_ms: Mapping[str, float]
    __iter__: ClassVar[None] = None  # a subscript alone would make a sequence of it

    def __init__(
        self,
        class_ids: Int64Array,
        confidences: Float32Array,
        class_names: tuple[str, ...],
        easiness: float | None = None,
        exit_index: int = 0,
        degraded: bool = False,
        timings_ms: Mapping[str, float] | None = None,
    ) -> None:
        self.class_ids = class_ids
        self.confidences = confidences
        self.class_names = class_names
        self.easiness = easiness
        self.exit_index = exit_index
        self.degraded = degraded
        self.timings_ms = {} if timings_ms is None else timings_ms
        shape = (len(class_names),)
        self._check("class_ids", class_ids, shape, _INT64)
        self._check("confidences", confidences, shape, _FLOAT32)

    def _check(
        self, name: str, array: npt.NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"{name} is {array.dtype} {array.shape}, "
                f"expected {dtype} {shape} for {counted(len(self.class_names), 'class name')}"
            )

    def __len__(self) -> int:
        return len(self.class_names)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""

    def keys(self) -> KeysView[str]:
        """The names in :meth:`to_dict`."""
        return self.to_dict().keys()

    def __getitem__(self, name: str) -> Any:
        """One entry of :meth:`to_dict`.

        Raises:
            InputError: ``name`` is none of :meth:`keys`.
        """
        document = self.to_dict()
        if not isinstance(name, str) or name not in document:
            raise InputError(
                f"{name!r} is not in a result, which is of one image and has "
                f"{', '.join(document)}; its arrays are attributes: "
                f"{', '.join(n for n, value in vars(self).items() if hasattr(value, 'shape'))}"
            )
        return document[name]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """An instance, written as :meth:`to_dict`."""
        written = core_schema.plain_serializer_function_ser_schema(
            lambda found: found.to_dict(),
            return_schema=core_schema.dict_schema(core_schema.str_schema()),
        )
        return core_schema.is_instance_schema(cls, serialization=written)

    def __repr__(self) -> str:
        """On one line: what was found, the surest first, and which way the image took."""
        found = [f"{n} {c:.2f}" for n, c in zip(self.class_names, self.confidences, strict=True)]
        listed = ", ".join(found[:_SHOWN]) + ", ..." * (len(found) > _SHOWN) or "nothing"
        return plain(f"<{type(self).__name__} of {len(found)}: {listed}; {_way_of(self)}>")

    def _document(self, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
        """Plain Python values, with what was found under a task's own name."""
        return {
            "easiness": self.easiness,
            "exit_index": self.exit_index,
            "degraded": self.degraded,
            name: found,
            "timings_ms": {name: round(value, 4) for name, value in self.timings_ms.items()},
        }


class Detections(Answer):
    """What was found in one image, best first; see :class:`Answer` for what is not told here.

    Attributes:
        boxes_xyxy: (D, 4) float32, left, top, right, bottom in pixels of the original image.
        track_ids: (D,) int64, the same for the same object in all frames of a stream, -1 where it
            has none (yet); None where nothing is tracked.
        predicted: whether no engine ran: this is what was found in an earlier frame of the stream,
            moved to where its tracker expects it by now.
    """

    def __init__(
        self,
        boxes_xyxy: Float32Array,
        confidences: Float32Array,
        class_ids: Int64Array,
        class_names: tuple[str, ...],
        easiness: float | None = None,
        exit_index: int = 0,
        degraded: bool = False,
        timings_ms: Mapping[str, float] | None = None,
        track_ids: Int64Array | None = None,
        predicted: bool = False,
    ) -> None:
        super().__init__(
            class_ids, confidences, class_names, easiness, exit_index, degraded, timings_ms
        )
        self.boxes_xyxy = boxes_xyxy
        self.track_ids = track_ids
        self.predicted = predicted
        self._check("boxes_xyxy", boxes_xyxy, (len(class_names), 4), _FLOAT32)
        if track_ids is not None:
            self._check("track_ids", track_ids, (len(class_names),), _INT64)

    def rows(self) -> Iterator[tuple[Float32Array, np.float32, np.int64, str]]:
        """Box, confidence, class id and class name of each, best first."""
        return zip(self.boxes_xyxy, self.confidences, self.class_ids, self.class_names, strict=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON; boxes rounded to 1/100 pixel.

        Of tracked ones each has its ``track_id``, or None, and all together are ``predicted`` or
        not.
        """
        found: list[dict[str, Any]] = [
            {
                "box_xyxy": [round(float(value), 2) for value in box],
                "confidence": round(float(confidence), 5),
                "class_id": int(class_id),
                "class_name": name,
            }
            for box, confidence, class_id, name in self.rows()
        ]
        document = self._document("detections", found)
        if self.track_ids is not None:
            document["predicted"] = self.predicted
            for one, track in zip(found, self.track_ids.tolist(), strict=True):
                one["track_id"] = track if track >= 0 else None
        return document


class Classification(Answer):
    """The likeliest classes of one image, best first; see :class:`Answer`.

    The confidences are the softmax over all classes, so they add up to 1 only where all are held.
    """

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        rows = zip(self.class_ids, self.confidences, self.class_names, strict=True)
        classes = [
            {
                "class_id": int(class_id),
                "class_name": name,
                "confidence": round(float(confidence), 5),
            }
            for class_id, confidence, name in rows
        ]
        return self._document("classes", classes)


class FeatureMaps(Answer):
    """What a backbone makes of one image: nothing is found in it.

    Attributes:
        maps: name -> (C, H, W) float32.
    """

    def __init__(
        self,
        maps: Mapping[str, Float32Array],
        easiness: float | None = None,
        exit_index: int = 0,
        degraded: bool = False,
        timings_ms: Mapping[str, float] | None = None,
    ) -> None:
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        super().__init__(*nothing, (), easiness, exit_index, degraded, timings_ms)
        self.maps = maps

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON: of each map its shape, not its values."""
        maps = [{"name": name, "shape": list(map_.shape)} for name, map_ in self.maps.items()]
        return self._document("features", maps)

    def __repr__(self) -> str:
        """On one line: the maps' shapes."""
        listed = ", ".join(f"{name} {map_.shape}" for name, map_ in self.maps.items())
        return plain(f"<{type(self).__name__} of {listed}; {_way_of(self)}>")


@dataclass(frozen=True)
class NoOptions:
    """Feature maps are given as they are."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


@dataclass(frozen=True)
class TopK:
    """How many classes a :class:`Classification` holds.

    Raises:
        InputError: ``count`` is no whole number from 1 up.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    count: int = 5

    def __post_init__(self) -> None:
        if not is_whole(self.count, 1):
            raise InputError(f"count is {shown(self.count)}, expected a whole number from 1 up")

    def __call__(self, logits: npt.NDArray[Any]) -> tuple[Int64Array, Float32Array]:
        """Logits (C,) -> the best class ids (K,) and their softmax (K,), best first.

        Of equal logits the first class comes first; one that is NaN comes last, with confidence 0.
        """
        values = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64))
        order = np.argsort(-values, kind="stable")[: self.count]
        largest = values[order[0]]
        weights = np.exp(values - largest) if np.isfinite(largest) else np.zeros_like(values)
        confidences = weights[order] / max(float(weights.sum()), 1.0)
        return order.astype(np.int64), confidences.astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class RawOutput:
    """What one image's last stage produced, before any postprocessing.

    Attributes:
        easiness: the router's output in [0, 1], or None where no router ran.
        exit_index: the way that the image took, 0 for the first exit or branch.
        outputs: name -> array for this image, without the batch axis; of a detector
            ``boxes_xyxy`` (A, 4) in pixels of that way's input and ``class_scores`` (A, C), of a
            classifier ``logits`` (C,).
        degraded: True when the route was not the one the policy asked for, or a failure that took
            nothing else left its easiness unknown.
    """

    easiness: float | None
    exit_index: int
    outputs: Mapping[str, npt.NDArray[Any]]
    degraded: bool = False

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {array.shape}" for name, array in self.outputs.items())
        return plain(f"<RawOutput of {arrays}; {_way_of(self)}>")


def _way_of(result: Answer | RawOutput) -> str:
    easiness = "" if result.easiness is None else f", easiness {result.easiness:.2f}"
    return f"exit_index {result.exit_index}{easiness}{', degraded' * result.degraded}"
