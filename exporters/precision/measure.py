"""Comparing converted stages with float32, one by one and together, on whole pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import EASINESS, Manifest, Task
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.exits import EVALUATION, AtExit
from dyninfer.exporters.parity import count_flips
from dyninfer.exporters.precision.deviation import deviations
from dyninfer.exporters.precision.feed import Picture, StageRunner
from dyninfer.exporters.precision.ranges import Array
from dyninfer.exporters.precision.report import ExitError, PrecisionReport, TensorError
from dyninfer.exporters.precision.variant import ConvertedStage
from dyninfer.images.reading import read_image
from dyninfer.results.agreement import disagreement
from dyninfer.results.detections import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.types import Float64Array, ImageArray

_OPERATING = Postprocess()


def measure_precision(
    bundle: Bundle,
    converted: Mapping[str, ConvertedStage],
    pictures: Sequence[Picture],
    truths: Sequence[Truth] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> PrecisionReport:
    """Compare a bundle with converted stages with itself in float32, on ONNX Runtime's CPU.

    Args:
        bundle: in float32.
        converted: from ``convert_bundle_stages``.
        pictures: files, or (h, w, 3) uint8 BGR arrays; others than those of the calibration.
        truths: what is in every picture, if known: gives average precision.
        progress: called after every picture.

    Raises:
        InputError: there are no pictures, or not one truth for each.
    """
    if not pictures or (truths is not None and len(truths) != len(pictures)):
        given = "no truths" if truths is None else f"{len(truths)} truths"
        raise InputError(
            f"{len(pictures)} pictures and {given} were given, expected at least one picture "
            "and, if any truth is known, one for each"
        )
    manifest = bundle.manifest
    changed = {n: c for n, c in converted.items() if c.sha256 != manifest.stages[n].sha256}
    pair = _Pair(
        manifest, StageRunner(bundle), StageRunner(bundle, {n: c.path for n, c in changed.items()})
    )
    for picture in pictures:
        pair.compare(read_image(picture) if not isinstance(picture, np.ndarray) else picture)
        progress()
    return PrecisionReport(
        precision={
            name: changed[name].precision if name in changed else stage.precision
            for name, stage in manifest.stages.items()
        },
        stages_sha256={
            name: changed[name].sha256 if name in changed else stage.sha256
            for name, stage in manifest.stages.items()
        },
        kept_float={name: c.kept_float for name, c in changed.items() if c.kept_float},
        tensors=tuple(
            pair.tensors[name, spec.name].result(name, spec.name)
            for name in changed
            for spec in manifest.stages[name].outputs
        ),
        exits=tuple(
            end.result(index, truths, len(manifest.class_names))
            for index, end in enumerate(pair.ends)
        ),
        flips={
            router: count_flips(*(np.array(side, np.float32) for side in sides))
            for router, sides in pair.easiness.items()
        },
        pictures=len(pictures),
    )


@dataclass
class _TensorSums:
    """Errors of one tensor so far."""

    max_abs: float = 0.0
    largest: float = 0.0
    error: float = 0.0
    magnitude: float = 0.0
    deviations: list[float] = field(default_factory=list)

    def add(self, reference: Array, found: Array, deviation: float) -> None:
        error = np.abs(found.astype(np.float64) - reference)
        error[np.isnan(error)] = np.inf
        self.max_abs = max(self.max_abs, float(error.max(initial=0.0)))
        self.largest = max(self.largest, float(np.abs(reference).max(initial=0.0)))
        self.error += float(error.sum())
        self.magnitude += float(np.abs(reference, dtype=np.float64).sum())
        self.deviations.append(deviation)

    def result(self, stage: str, tensor: str) -> TensorError:
        return TensorError(
            stage,
            tensor,
            self.max_abs,
            self.max_abs / (self.largest or 1.0),
            self.error / (self.magnitude or 1.0),
            float(np.mean(self.deviations)),
        )


@dataclass
class _EndSums:
    """What one exit gave for all pictures so far, in float32 and converted."""

    scores: list[Float64Array] = field(default_factory=list)
    boxes: list[Float64Array] = field(default_factory=list)
    disagreements: list[float] = field(default_factory=list)
    found: tuple[list[Detections], list[Detections]] = field(default_factory=lambda: ([], []))

    def add(self, source: AtExit, converted: AtExit) -> None:
        reference, found = source.raw.outputs, converted.raw.outputs
        sure = reference["class_scores"].max(-1, initial=0.0) >= _OPERATING.confidence
        pairs = {n: (reference[n][sure].astype(np.float64), found[n][sure]) for n in reference}
        self.scores.append(np.abs(np.subtract(*pairs["class_scores"])).max(-1, initial=0.0))
        self.boxes.append(np.abs(np.subtract(*pairs["boxes_xyxy"])).max(-1, initial=0.0))
        self.disagreements.append(
            disagreement(converted.detections(_OPERATING), source.detections(_OPERATING))
        )
        for kept, side in zip(self.found, (source, converted), strict=True):
            kept.append(side.detections(EVALUATION))

    def result(self, index: int, truths: Sequence[Truth] | None, classes: int) -> ExitError:
        scores, boxes = (
            np.concatenate(parts) if parts else np.empty(0) for parts in (self.scores, self.boxes)
        )
        some = len(scores) > 0
        precisions = (
            [average_precision(truths, side, classes).ap for side in self.found]
            if truths is not None and self.disagreements
            else [None, None]
        )
        return ExitError(
            exit_index=index,
            boxes=len(scores),
            score_error_mean=float(scores.mean()) if some else None,
            score_error_max=float(scores.max()) if some else None,
            box_error_mean_px=float(boxes.mean()) if some else None,
            box_error_max_px=float(boxes.max()) if some else None,
            disagreement=float(np.mean(self.disagreements)) if self.disagreements else None,
            ap_fp32=precisions[0],
            ap_converted=precisions[1],
        )


class _Pair:
    """A bundle in float32 beside its conversion."""

    def __init__(self, manifest: Manifest, source: StageRunner, converted: StageRunner) -> None:
        self._manifest, self._source, self._converted = manifest, source, converted
        self.tensors = {
            (name, spec.name): _TensorSums()
            for name, stage in manifest.stages.items()
            for spec in stage.outputs
        }
        self.ends = [_EndSums() for _ in manifest.ways]
        self.easiness: dict[str, tuple[list[float], list[float]]] = {
            exit_.router: ([], []) for exit_ in manifest.ways if exit_.router
        }

    def compare(self, image: ImageArray) -> None:
        """Run every stage of every exit on one picture, in both forms."""
        source, converted = self._source.prepare(image), self._source.prepare(image)
        for index, exit_ in enumerate(self._manifest.ways):
            for name in exit_.stages:
                made = self._source.run(name, source)
                self._add_stage(name, made, self._converted.run(name, source))
                source |= made
                converted |= self._converted.run(name, converted)
                if name == exit_.router:
                    for kept, tensors in zip(self.easiness[name], (source, converted), strict=True):
                        kept.append(float(tensors[EASINESS].reshape(-1)[0]))
            if self._manifest.task is Task.DETECT:
                self.ends[index].add(*(self._at(index, image, t) for t in (source, converted)))

    def _add_stage(
        self, name: str, reference: Mapping[str, Array], found: Mapping[str, Array]
    ) -> None:
        for tensor, deviation in deviations(reference, found).items():
            self.tensors[name, tensor].add(reference[tensor], found[tensor], deviation)

    def _at(self, index: int, image: ImageArray, tensors: Mapping[str, Array]) -> AtExit:
        exit_ = self._manifest.ways[index]
        outputs = {name: tensors[name][0] for name in self._manifest.task.outputs}
        placement = self._manifest.image_inputs[exit_.image_input].place(
            image.shape[1], image.shape[0]
        )
        return AtExit(RawOutput(None, index, outputs), placement, self._manifest.class_names)
