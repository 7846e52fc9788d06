"""What engines and other precisions cost: stages beside float32, one by one and together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision, Stage, Task
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.errors import BrokenOutputError, InputError
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.dataset import Sample
from dyninfer.evaluation.outcomes import AtWay, picture_of
from dyninfer.exporters.parity import Flips, Recording, SignalPairs, as_meant, as_read
from dyninfer.exporters.precision.convert import ConvertedStage, read_picture
from dyninfer.exporters.precision.fp16 import rounded_to_float16
from dyninfer.exporters.precision.sensitivity import deviations, matched
from dyninfer.images.pictures import PathOrImage
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer, Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.results.tasks import Options
from dyninfer.runtime.arrays import ArrayRunner, RunArrays
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.executor import trace
from dyninfer.runtime.plan import plan
from dyninfer.runtime.stage_runner import Arrays, Trace
from dyninfer.types import AnyArray, BoolArray, Float64Array, ImageArray

Labels = Sequence[Truth | int] | None
"""What is in every picture: its objects, or of a classifier its class."""
_NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, int), ())


def labels_of(samples: Sequence[Sample]) -> Labels:
    """What is known of pictures; of all of them something is, or of none."""
    known = [s.class_id if s.truth is None else s.truth for s in samples]
    return [label for label in known if label is not None] or None


@dataclass(frozen=True)
class TensorError:
    """One output of one changed stage that is fed what float32 stages computed.

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
    """One way with all its stages changed, on whole pictures.

    Errors are over the boxes that float32 gives at least the default confidence, or over a
    classifier's confidences; None where there are none. ``disagreement`` is the task's loss between
    both answers, averaged over pictures: 1 - F1 of detections, or the share of pictures whose best
    class differs. Precisions are COCO's in [0, 1]; of a classifier, ``top1`` is the share of
    pictures whose best class is right. None without labels.
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
    top1_fp32: float | None = None
    top1_converted: float | None = None

    @property
    def points_lost(self) -> float | None:
        """AP, or of a classifier top-1, below that of float32, in points; None without labels."""
        pairs = ((self.ap_fp32, self.ap_converted), (self.top1_fp32, self.top1_converted))
        lost = [100 * (a - b) for a, b in pairs if a is not None and b is not None]
        return lost[0] if lost else None


@dataclass(frozen=True)
class PrecisionReport:
    """What changed stages do to a bundle's results.

    Attributes:
        precision: of every stage.
        stages_sha256: hash of every stage's file, converted or not.
        kept_float: stage -> layers that are not in 8 bits for accuracy.
        pictures: how many were compared.
        tensors: errors of every changed stage on its own.
        exits: errors at the end of every way, all changes together.
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
    labels: Labels = None,
    progress: Callable[[], None] = lambda: None,
    only: Collection[str] | None = None,
) -> PrecisionReport:
    """Compare a bundle with converted stages with itself in float32, on ONNX Runtime's CPU.

    What is in float16 computes as :func:`rounded_to_float16` says, which is how a GPU does and this
    CPU does not.

    Args:
        bundle: in float32.
        converted: from ``convert_bundle_stages``.
        pictures: others than those of the calibration.
        labels: what is in every picture, if known: gives average precision, or accuracy.
        progress: called after every picture.
        only: stages that run converted, the others in float32; None for all.

    Raises:
        InputError: there are no pictures, or not one label for each.
    """
    manifest = bundle.manifest
    changed = {
        n: c
        for n, c in converted.items()
        if c.sha256 != manifest.stages[n].sha256 and (only is None or n in only)
    }
    with scratch_folder() as folder:
        files = {name: _as_computed(name, stage, folder) for name, stage in changed.items()}
        pair = Pair(bundle, changed, PlainStages(bundle, files).run)
        pair.compare_all(pictures, labels, progress)
    stages: dict[str, Stage | ConvertedStage] = {**manifest.stages, **changed}
    return pair.report(
        {name: stages[name].precision for name in manifest.stages},
        {name: stages[name].sha256 for name in manifest.stages},
        {name: c.kept_float for name, c in changed.items() if c.kept_float},
    )


def _as_computed(name: str, stage: ConvertedStage, folder: Path) -> Path:
    model = onnx.load(stage.path)
    casts = (node for node in model.graph.node if node.op_type == "Cast")
    if all(cast.attribute[0].i != TensorProto.FLOAT16 for cast in casts):
        return stage.path  # its inputs are float32
    path = folder / f"{name}.onnx"
    path.write_bytes(rounded_to_float16(model).SerializeToString())
    return path


def measure_engines(
    detector: Detector,
    pictures: Sequence[PathOrImage],
    labels: Labels = None,
    progress: Callable[[], None] = lambda: None,
    only: Collection[str] | None = None,
) -> PrecisionReport:
    """Compare opened engines with the bundle's own files on ONNX Runtime's CPU.

    The arguments and errors are those of :func:`measure_precision`.
    """
    stages, manifest = list(detector.engines), detector.manifest
    own = {t.name: t.dtype for s in detector.bundle.manifest.stages.values() for t in s.outputs}
    changed = [name for name in stages if only is None or name in only]

    def run(stage: str, tensors: Arrays) -> Arrays:
        made = as_meant(manifest, stage, detector.run_stage(stage, as_read(manifest, tensors)))
        # the stages beside it, which are not changed, read no map in float16 or 8 bits
        return {name: array.astype(own[name], copy=False) for name, array in made.items()}

    def trace(images: Arrays) -> Trace:
        return detector.trace(as_read(manifest, images))

    pair = Pair(detector.bundle, changed, run, trace if len(changed) == len(stages) else None)
    pair.compare_all(pictures, labels, progress)
    record = detector.engine_record()
    return pair.report(record.precision, record.stages_sha256, {})


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
    right: list[tuple[bool, bool]] = field(default_factory=list)

    def add(
        self, source: AtWay, converted: AtWay, manifest: Manifest, label: Truth | int | None
    ) -> None:
        options = manifest.use_options
        answer, expected = _answer(converted, options), source.answer(options)
        self.losses.append(1.0 if answer is None else source.task.loss(answer, expected))
        if manifest.task is Task.FEATURES:
            return  # of maps nothing else is known
        least = options.confidence if isinstance(options, Postprocess) else 0.0
        scores, others = _scores(source), _scores(converted)
        sure = scores.max(-1, initial=0.0) >= least
        self.scores.append(_errors(scores, others, sure))
        if "boxes_xyxy" not in source.outputs:
            if label is not None:
                best = (None if a is None else a.class_ids[0] for a in (expected, answer))
                self.right.append(cast(tuple[bool, bool], tuple(c == label for c in best)))
            return
        boxes, others = source.outputs["boxes_xyxy"], converted.outputs["boxes_xyxy"]
        self.boxes.append(_errors(boxes, others, sure))
        if isinstance(label, Truth):
            self.truths.append(label)
            for kept, side in zip(self.found, (source, converted), strict=True):
                shown = _answer(side, manifest.evaluation_options)
                kept.append(_NOTHING if shown is None else cast(Detections, shown))

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
            top1_fp32=float(np.mean([a for a, _ in self.right])) if self.right else None,
            top1_converted=float(np.mean([b for _, b in self.right])) if self.right else None,
        )


def _answer(side: AtWay, options: Options) -> Answer | None:
    """What is found in outputs; None where they are broken, as an overflow leaves them."""
    try:
        return side.answer(options)
    except BrokenOutputError:
        return None


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


class Pair:
    """A bundle in float32 beside itself with some stages changed.

    Args:
        bundle: its own files are what is compared with, on ONNX Runtime's CPU.
        changed: the stages that ``run`` runs; the others run as they are.
        run: runs a changed stage.
        trace: runs prepared images along every way; None to run stages one by one.
    """

    def __init__(
        self,
        bundle: Bundle,
        changed: Collection[str],
        run: RunArrays,
        trace: Callable[[Arrays], Trace] | None = None,
    ) -> None:
        self._manifest = bundle.manifest
        self._plan = plan(bundle.manifest)
        self._source = PlainStages(bundle)
        self._changed, self._run, self._trace = tuple(changed), run, trace or self._mixed
        self._tensors: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
        self._ends = [_EndSums() for _ in bundle.manifest.ways]
        self._signals = SignalPairs(self._plan)
        self._pictures = 0

    def _mixed(self, images: Arrays) -> Trace:
        """Every way, with the changed stages among the others."""

        def run(stage: str, tensors: Arrays) -> Arrays:
            if stage not in self._changed:
                return self._source.run(stage, tensors)
            names = [spec.name for spec in self._manifest.stages[stage].inputs]
            return self._run(stage, {name: tensors[name] for name in names})

        return trace(self._plan, ArrayRunner(images, run), 1)

    def compare_all(
        self, pictures: Sequence[PathOrImage], labels: Labels, progress: Callable[[], None]
    ) -> None:
        """Compare every picture; errors as of :func:`measure_precision`."""
        if not pictures or (labels is not None and len(labels) != len(pictures)):
            given = "no labels" if labels is None else counted(len(labels), "label")
            raise InputError(
                f"{counted(len(pictures), 'picture')} and {given} were given, expected at least "
                "one picture and, if any label is known, one for each"
            )
        for number, picture in enumerate(pictures):
            self._compare(read_picture(picture), None if labels is None else labels[number])
            progress()
        self._pictures = len(pictures)

    def _compare(self, image: ImageArray, label: Truth | int | None) -> None:
        """Run every way of one picture in both forms, and every changed stage on the same."""
        specs = self._manifest.image_inputs
        images = {n: specs[n].prepare(image)[None] for n in self._manifest.image_tensors}
        recording = Recording(self._manifest.stages, self._source.run)
        source = trace(self._plan, ArrayRunner(images, recording.run), 1)
        changed = self._trace(images)
        changed = replace(changed, ways=tuple(map(matched, source.ways, changed.ways)))
        for name in self._changed:
            reference = recording.makes[name]
            found = matched(reference, self._run(name, recording.reads[name]))
            for tensor, deviation in deviations(reference, found).items():
                sums = _sums(reference[tensor], found[tensor], deviation)
                self._tensors[name, tensor].append(sums)
        self._signals.add(source.signals, changed.signals)
        sides = (picture_of(self._manifest, form, image).ways for form in (source, changed))
        for end, *ways in zip(self._ends, *sides, strict=True):
            end.add(*ways, self._manifest, label)

    def report(
        self,
        precision: Mapping[str, Precision],
        sha256: Mapping[str, str],
        kept_float: Mapping[str, tuple[str, ...]],
    ) -> PrecisionReport:
        """What was found, and of which stages."""
        classes = len(self._manifest.class_names)
        return PrecisionReport(
            precision=precision,
            stages_sha256=sha256,
            kept_float=kept_float,
            pictures=self._pictures,
            tensors=tuple(_tensor_error(*place, rows) for place, rows in self._tensors.items()),
            exits=tuple(end.result(index, classes) for index, end in enumerate(self._ends)),
            flips=self._signals.flips(),
        )
