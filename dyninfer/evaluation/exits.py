"""What every exit of a cascade finds in every picture, whatever its router says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyninfer.images.reading import read_image
from dyninfer.images.spec import Placement
from dyninfer.results.detections import Detections, RawOutput
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array, ImageArray

# As the published evaluation: low confidence, several labels per box
EVALUATION = Postprocess(confidence=0.001, iou=0.65, several_labels=True)


@dataclass(frozen=True)
class ExitRuns:
    """The same pictures through every exit.

    Attributes:
        found: one tuple for every exit, with the detections of every picture there.
        easiness: (exits - 1, N), NaN where there is no router or it said NaN.
    """

    found: tuple[tuple[Detections, ...], ...]
    easiness: Float64Array

    def __len__(self) -> int:
        return len(self.found[0])


@dataclass(frozen=True)
class AtExit:
    """A picture at one exit, before postprocessing: to be postprocessed in several ways."""

    raw: RawOutput
    placement: Placement
    class_names: Sequence[str]

    @property
    def easiness(self) -> float:
        """What this exit's router said; NaN where it has none or said NaN."""
        return np.nan if self.raw.easiness is None else self.raw.easiness

    def detections(self, options: Postprocess) -> Detections:
        """What counts as a detection under ``options``, in pixels of the picture."""
        boxes, confidences, class_ids = options(
            self.raw.outputs["boxes_xyxy"], self.raw.outputs["class_scores"]
        )
        return Detections(
            boxes_xyxy=self.placement.to_image(boxes),
            confidences=confidences.astype(np.float32, copy=False),
            class_ids=class_ids.astype(np.int64, copy=False),
            class_names=tuple(self.class_names[class_id] for class_id in class_ids),
            easiness=self.raw.easiness,
            exit_index=self.raw.exit_index,
        )


def at_every_exit(detector: Detector, image: ImageArray) -> list[AtExit]:
    """Run a picture (h, w, 3) uint8 BGR once for every exit.

    The detector's policy is left at the last exit: see :meth:`Detector.kept_policy`.
    """
    manifest = detector.manifest
    read = {spec.name for stage in manifest.stages.values() for spec in stage.inputs}
    inputs = {
        name: spec.prepare(image)[None]
        for name, spec in manifest.image_inputs.items()
        if name in read
    }
    found = []
    for index, exit_ in enumerate(manifest.exits):
        detector.policy = LeaveAt(index)
        placement = manifest.image_inputs[exit_.image_input].place(image.shape[1], image.shape[0])
        found.append(AtExit(detector.infer(inputs)[0], placement, manifest.class_names))
    return found


def run_every_exit(
    detector: Detector,
    pictures: Sequence[Path | ImageArray],
    options: Postprocess = EVALUATION,
    progress: Callable[[], None] = lambda: None,
) -> ExitRuns:
    """Run every picture through every exit, one at a time.

    Args:
        detector: an opened bundle; its policy is changed and put back.
        pictures: files, read one after the other, or (h, w, 3) uint8 BGR arrays.
        options: of the postprocessing.
        progress: called after every picture.

    Raises:
        InputError: a picture cannot be read.
    """
    exits = len(detector.manifest.exits)
    found: list[list[Detections]] = [[] for _ in range(exits)]
    with detector.kept_policy():
        for picture in pictures:
            image = read_image(picture) if isinstance(picture, Path) else picture
            for index in range(exits):
                detector.policy = LeaveAt(index)
                found[index].append(detector(image, options=options))
            progress()
    easiness = [
        [np.nan if result.easiness is None else result.easiness for result in results]
        for results in found[:-1]
    ]
    return ExitRuns(
        tuple(tuple(results) for results in found),
        np.array(easiness, np.float64).reshape(exits - 1, len(pictures)),
    )
