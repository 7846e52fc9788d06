"""What every way of a bundle finds in every picture, whatever decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.manifest import EASINESS
from dyninfer.images.spec import Placement
from dyninfer.results.answer import Answer
from dyninfer.results.tasks import Options, TaskKind
from dyninfer.runtime.detector import Detector
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
    manifest = detector.manifest
    found = detector.trace(detector.prepare([image]))
    easiness = [
        float(signal[0]) if signal is not None and point.signal == EASINESS else None
        for signal, point in zip(found.signals, detector.points, strict=True)
    ]
    ways = []
    for index, (way, outputs) in enumerate(zip(manifest.ways, found.ways, strict=True)):
        spec = manifest.image_inputs[way.image_input]
        ways.append(
            AtWay(
                manifest.task.kind,
                {name: array[0] for name, array in outputs.items()},
                spec.place(image.shape[1], image.shape[0]),
                manifest.class_names,
                easiness[index] if index < len(easiness) else None,
                index,
            )
        )
    signals = tuple(None if signal is None else signal[0] for signal in found.signals)
    return PictureTrace(tuple(ways), signals)
