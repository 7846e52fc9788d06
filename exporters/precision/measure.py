"""What other precisions cost: converted stages beside float32, one by one and together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision, Stage
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.outcomes import AtWay, picture_of
from dyninfer.exporters.parity import Flips, Recording, SignalPairs
from dyninfer.exporters.precision.convert import ConvertedStage, read_picture
from dyninfer.exporters.precision.sensitivity import deviations, matched
from dyninfer.images.pictures import PathOrImage
from dyninfer.plain_text import counted
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.executor import trace
from dyninfer.runtime.plan import plan
from dyninfer.types import AnyArray, BoolArray, Float64Array, ImageArray


@dataclass(frozen=True)
class TensorError:
    """One output of one converted stage that is fed what float32 stages computed.

    ``max_rel`` is the largest error over the largest value, ``mean_rel`` the mean error over the
    mean magnitude; ``deviation`` is that of ``deviations``, as a mean over pictures.
    """

    stage: str
    tensor: str
    max_abs: float
    max_rel: float
    mean_rel: float
    deviation: float


@dataclass(frozen=True)
class ExitError:
    """One way with all its stages converted, on whole pictures.

    Errors are over the boxes that float32 gives at least the default confidence, or over a
    classifier's confidences; None where there are none. ``disagreement`` is the task's loss between
    both answers, averaged over pictures: 1 - F1 of detections, or the share of pictures whose best
    class differs. Precisions are COCO's in [0, 1], None without labels.
    """

    exit_index: int
    boxes: int
    score_error_mean: float | None
    score_error_max: float | None
    box_error_mean_px: float | None
    box_error_max_px: float | None
    disagreement: float | None
    ap_fp32: float | None
    ap_converted: float | None


@dataclass(frozen=True)
class PrecisionReport:
    """What converted stages do to a bundle's results.

    Attributes:
        precision: of every stage.
        stages_sha256: hash of every stage's file, converted or not.
        kept_float: stage -> layers that stayed in float32 for accuracy.
        pictures: how many were compared.
        tensors: errors of every converted stage on its own.
        exits: errors at the end of every way, all conversions together.
        flips: router or chooser -> decisions that differ.
    """

    precision: Mapping[str, Precision]
    stages_sha256: Mapping[str, str]
    kept_float: Mapping[str, tuple[str, ...]]
    pictures: int
    tensors: tuple[TensorError, ...]
    exits: tuple[ExitError, ...]
    flips: Mapping[str, Flips]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        flips = {name: flips.to_dict() for name, flips in self.flips.items()}
        plain: dict[str, Any] = json.loads(json.dumps({**asdict(self), "flips": flips}))
        return plain


def measure_precision(
    bundle: Bundle,
    converted: Mapping[str, ConvertedStage],
    pictures: Sequence[PathOrImage],
    truths: Sequence[Truth] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> PrecisionReport:
    """Compare a bundle with converted stages with itself in float32, on ONNX Runtime's CPU.

    Args:
        bundle: in float32.
        converted: from ``convert_bundle_stages``.
        pictures: others than those of the calibration.
        truths: what is in every picture, if known: gives average precision, of detectors.
        progress: called after every picture.

    Raises:
        InputError: there are no pictures, or not one truth for each.
    """
    if not pictures or (truths is not None and len(truths) != len(pictures)):
        given = "no truths" if truths is None else f"{len(truths)} truths"
        raise InputError(
            f"{counted(len(pictures), 'picture')} and {given} were given, expected at least one "
            "picture and, if any truth is known, one for each"
        )
    manifest = bundle.manifest
    changed = {n: c for n, c in converted.items() if c.sha256 != manifest.stages[n].sha256}
    pair = _Pair(bundle, changed)
    for number, picture in enumerate(pictures):
        pair.compare(read_picture(picture), None if truths is None else truths[number])
        progress()
    stages: dict[str, Stage | ConvertedStage] = {**manifest.stages, **changed}
    return PrecisionReport(
        precision={name: stages[name].precision for name in manifest.stages},
        stages_sha256={name: stages[name].sha256 for name in manifest.stages},
        kept_float={name: c.kept_float for name, c in changed.items() if c.kept_float},
        tensors=tuple(_tensor_error(*place, rows) for place, rows in pair.tensors.items()),
        exits=tuple(
            end.result(index, len(manifest.class_names)) for index, end in enumerate(pair.ends)
        ),
        flips=pair.signals.flips(),
        pictures=len(pictures),
    )


def _tensor_error(stage: str, tensor: str, rows: Sequence[tuple[float, ...]]) -> TensorError:
    """The error of one tensor from its :func:`_sums` for every picture."""
    values = np.array(rows)
    (max_abs, largest), (error, magnitude) = values[:, :2].max(0), values[:, 2:4].sum(0)
    figures = (max_abs, max_abs / (largest or 1.0), error / (magnitude or 1.0), values[:, 4].mean())
    return TensorError(stage, tensor, *map(float, figures))


def _sums(reference: AnyArray, found: AnyArray, deviation: float) -> tuple[float, ...]:
    """Largest error and value, sum of errors and of values, and deviation."""
    error = np.abs(found.astype(np.float64) - reference)
    error[np.isnan(error)] = np.inf
    value = np.abs(reference, dtype=np.float64)
    return error.max(initial=0.0), value.max(initial=0.0), error.sum(), value.sum(), deviation


@dataclass
class _EndSums:
    """What one way gave for all pictures so far, in float32 and converted."""

    scores: list[Float64Array] = field(default_factory=list)
    boxes: list[Float64Array] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    found: tuple[list[Detections], list[Detections]] = field(default_factory=lambda: ([], []))

    def add(self, source: AtWay, converted: AtWay, manifest: Manifest, truth: Truth | None) -> None:
        options = manifest.use_options
        least = options.confidence if isinstance(options, Postprocess) else 0.0
        scores, others = _scores(source), _scores(converted)
        sure = scores.max(-1, initial=0.0) >= least
        self.scores.append(_errors(scores, others, sure))
        self.losses.append(source.task.loss(converted.answer(options), source.answer(options)))
        if "boxes_xyxy" not in source.outputs:
            return
        boxes, others = source.outputs["boxes_xyxy"], converted.outputs["boxes_xyxy"]
        self.boxes.append(_errors(boxes, others, sure))
        if truth is not None:
            self.truths.append(truth)
            for kept, side in zip(self.found, (source, converted), strict=True):
                kept.append(cast(Detections, side.answer(manifest.evaluation_options)))

    def result(self, index: int, classes: int) -> ExitError:
        scores, boxes = (
            np.concatenate(parts) if parts else np.empty(0) for parts in (self.scores, self.boxes)
        )
        fp32, changed = (
            average_precision(self.truths, side, classes).ap if self.truths else None
            for side in self.found
        )
        return ExitError(
            exit_index=index,
            boxes=len(boxes),
            score_error_mean=float(scores.mean()) if len(scores) else None,
            score_error_max=float(scores.max()) if len(scores) else None,
            box_error_mean_px=float(boxes.mean()) if len(boxes) else None,
            box_error_max_px=float(boxes.max()) if len(boxes) else None,
            disagreement=float(np.mean(self.losses)),
            ap_fp32=fp32,
            ap_converted=changed,
        )


def _scores(side: AtWay) -> AnyArray:
    """Class scores (K, C) of boxes; of a classifier, the softmax as a single row."""
    if "class_scores" in side.outputs:
        return side.outputs["class_scores"]
    logits = side.outputs["logits"].astype(np.float64)
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum())[None]


def _errors(reference: AnyArray, found: AnyArray, rows: BoolArray) -> Float64Array:
    """Largest error of each chosen row."""
    error = reference[rows].astype(np.float64) - found[rows]
    return np.asarray(np.abs(error).max(-1, initial=0.0), np.float64)


class _Pair:
    """A bundle in float32 beside its conversion."""

    def __init__(self, bundle: Bundle, changed: Mapping[str, ConvertedStage]) -> None:
        self._manifest = bundle.manifest
        self._plan = plan(bundle.manifest)
        self._source = PlainStages(bundle)
        self._converted = PlainStages(bundle, {n: stage.path for n, stage in changed.items()})
        self.tensors: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
        self._changed = tuple(changed)
        self.ends = [_EndSums() for _ in bundle.manifest.ways]
        self.signals = SignalPairs(self._plan)

    def compare(self, image: ImageArray, truth: Truth | None) -> None:
        """Run every way of one picture in both forms, and every changed stage on the same."""
        specs = self._manifest.image_inputs
        images = {n: specs[n].prepare(image)[None] for n in self._manifest.image_tensors}
        recording = Recording(self._manifest.stages, self._source.run)
        source = trace(self._plan, ArrayRunner(images, recording.run), 1)
        converted = trace(self._plan, ArrayRunner(images, self._converted.run), 1)
        converted = replace(converted, ways=tuple(map(matched, source.ways, converted.ways)))
        for name in self._changed:
            reference = recording.makes[name]
            found = matched(reference, self._converted.run(name, recording.reads[name]))
            for tensor, deviation in deviations(reference, found).items():
                sums = _sums(reference[tensor], found[tensor], deviation)
                self.tensors[name, tensor].append(sums)
        self.signals.add(source.signals, converted.signals)
        sides = (picture_of(self._manifest, form, image).ways for form in (source, converted))
        for end, *ways in zip(self.ends, *sides, strict=True):
            end.add(*ways, self._manifest, truth)
