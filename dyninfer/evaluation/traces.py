"""What every way of a bundle finds in every picture, whatever decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.manifest import CascadeRoute, Manifest
from dyninfer.images.spec import Placement
from dyninfer.results.answers import Answer
from dyninfer.results.tasks import Options, TaskKind
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.executor import Trace
from dyninfer.types import Float32Array, ImageArray


@dataclass(frozen=True)
class AtWay:
    """A picture at the end of one way, before postprocessing: to be postprocessed in several ways.

    ``outputs`` are without the batch axis; ``placement`` is where the picture lies in the way's
    input, and ``easiness`` what the way's own router said.
    """

    task: TaskKind
    outputs: Mapping[str, npt.NDArray[Any]]
    placement: Placement
    class_names: Sequence[str]
    easiness: float | None
    way: int

    def answer(self, options: Options) -> Answer:
        """What a call with these options would give."""
        return self.task.answer(
            self.outputs,
            self.placement,
            options,
            self.class_names,
            easiness=self.easiness,
            exit_index=self.way,
            timings_ms={},
        )


@dataclass(frozen=True)
class PictureTrace:
    """A picture along every way.

    ``signals`` are those of the route's decisions: an easiness (), or scores (branches,); None
    where nothing makes one.
    """

    ways: tuple[AtWay, ...]
    signals: tuple[Float32Array | None, ...]


def trace_picture(detector: Detector, image: ImageArray) -> PictureTrace:
    """Run a picture (h, w, 3) uint8 BGR along every way, each stage once."""
    return picture_of(detector.manifest, detector.trace(detector.prepare([image])), image)


def picture_of(manifest: Manifest, found: Trace, image: ImageArray, row: int = 0) -> PictureTrace:
    """One picture (h, w, 3) of a batch that was traced; ``row`` is its position there."""
    signals = tuple(None if signal is None else signal[row] for signal in found.signals)
    at_exits = isinstance(manifest.route, CascadeRoute)
    easiness = [None if not at_exits or s is None else float(s) for s in signals]
    ways = []
    for index, (way, outputs) in enumerate(zip(manifest.ways, found.ways, strict=True)):
        spec = manifest.image_inputs[way.image_input]
        ways.append(
            AtWay(
                manifest.task.kind,
                {name: array[row] for name, array in outputs.items()},
                spec.place(image.shape[1], image.shape[0]),
                manifest.class_names,
                easiness[index] if index < len(easiness) else None,
                index,
            )
        )
    return PictureTrace(tuple(ways), signals)
