"""What every result has in common, whatever the task, and a result before postprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from dyninfer.types import Float32Array, Int64Array


class Answer(Protocol):
    """A result of one image: :class:`dyninfer.Detections` or :class:`dyninfer.Classification`."""

    @property
    def confidences(self) -> Float32Array:
        """(D,) in [0, 1], best first."""

    @property
    def class_ids(self) -> Int64Array:
        """(D,) index into the bundle's class names."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """D names."""

    @property
    def easiness(self) -> float | None:
        """What the last router that saw the image said; None where none did."""

    @property
    def exit_index(self) -> int:
        """The way that the image took."""

    @property
    def degraded(self) -> bool:
        """Whether the route was not the one that the policy asked for."""

    @property
    def timings_ms(self) -> Mapping[str, float]:
        """Step -> milliseconds."""

    def __len__(self) -> int: ...

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""


@dataclass(frozen=True, eq=False)
class RawOutput:
    """What one image's last stage produced, before any postprocessing.

    Attributes:
        easiness: the router's output in [0, 1], or None where no router ran.
        exit_index: the way that the image took, 0 for the first exit or branch.
        outputs: name -> array for this image, without the batch axis; of a detector
            ``boxes_xyxy`` (A, 4) in pixels of that way's input and ``class_scores`` (A, C), of a
            classifier ``logits`` (C,).
    """

    easiness: float | None
    exit_index: int
    outputs: Mapping[str, npt.NDArray[Any]]


def answer_document(answer: Answer, name: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Plain Python values of an answer, with what was found under a task's own name."""
    return {
        "easiness": answer.easiness,
        "exit_index": answer.exit_index,
        "degraded": answer.degraded,
        name: found,
        "timings_ms": {name: round(value, 4) for name, value in answer.timings_ms.items()},
    }
