"""What a bundle computes, as objects: how outputs become answers and how far answers differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from dyninfer.errors import BrokenOutputError, InputError
from dyninfer.images.spec import Placement
from dyninfer.plain_text import counted
from dyninfer.results.answers import (
    Answer,
    Classification,
    Detections,
    FeatureMaps,
    NoOptions,
    TopK,
)
from dyninfer.results.candidates import LARGEST_SCORE
from dyninfer.results.nms import pairwise_iou
from dyninfer.results.postprocess import EVALUATION, FARTHEST, Found, Postprocess
from dyninfer.types import BoolArray, Float32Array, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

Options = Postprocess | TopK | NoOptions
"""What a task's postprocessing is told."""
Outputs = Mapping[str, npt.NDArray[Any]]
MATCH_IOU = 0.5
_HALF_A_PIXEL = 0.5
MAPS = ("c2", "c3", "c4", "c5")
"""What a backbone ends in: maps of strides 4 to 32."""


def ignore(_fault: str) -> None:
    """Let a fault go unnoticed."""


class Taken(TypedDict):
    """Which way an image went, and what was measured of it."""

    easiness: float | None
    exit_index: int
    timings_ms: Mapping[str, float]


class TaskKind(Protocol):
    """A task. Every way of a bundle ends in ``outputs``.

    Attributes:
        outputs: names of the outputs of every way; the last has a column for every class.
        defaults: options where neither the caller nor the bundle names any.
        evaluation: options of an evaluation where the bundle names none.
        metrics: names of the scores that an evaluation gives, the one that counts first.
        unit: what each of the results is, for messages.
    """

    outputs: tuple[str, ...]
    defaults: Options
    evaluation: Options
    metrics: tuple[str, ...]
    unit: str

    def answer(
        self,
        outputs: Outputs,
        placement: Placement,
        options: Options,
        class_names: Sequence[str],
        note: Callable[[str], None] = ignore,
        **taken: Unpack[Taken],
    ) -> Answer:
        """The result of one image from its outputs, without the batch axis.

        ``placement`` is where the image lies in the input of its way; for ``options`` see
        :func:`check_options`, for how the image went :class:`dyninfer.results.answers.Answer`.
        ``note`` is told what is broken of outputs that are of use all the same.

        Raises:
            BrokenOutputError: the outputs cannot come from an engine that works.
        """

    def loss(self, found: Answer, reference: Answer) -> float:
        """How far an answer is from a better one, in [0, 1], without labels."""


class Detect:
    """Boxes: ``boxes_xyxy`` (K, 4) in pixels of the input and ``class_scores`` (K, C)."""

    outputs: tuple[str, ...] = ("boxes_xyxy", "class_scores")
    defaults: Options = Postprocess()
    evaluation: Options = EVALUATION
    metrics: tuple[str, ...] = ("AP", "AP50")
    unit = "detection"

    def answer(
        self,
        outputs: Outputs,
        placement: Placement,
        options: Options,
        class_names: Sequence[str],
        note: Callable[[str], None] = ignore,
        **taken: Unpack[Taken],
    ) -> Detections:
        """See :class:`TaskKind`."""
        assert isinstance(options, Postprocess)  # check_options has looked
        boxes_xyxy, class_scores = outputs["boxes_xyxy"], outputs["class_scores"]
        columns = len(class_names)
        if boxes_xyxy.shape[1:] != (4,) or class_scores.shape != (len(boxes_xyxy), columns):
            raise BrokenOutputError(
                f"exit {taken['exit_index']} gave boxes {boxes_xyxy.shape} with scores "
                f"{class_scores.shape}, expected (K, 4) with (K, {columns})"
            )
        found = options.find(boxes_xyxy, class_scores)
        if fault := _fault(found, boxes_xyxy, class_scores):
            if not len(found.confidences):
                raise BrokenOutputError(f"exit {taken['exit_index']} gave broken outputs: {fault}")
            note(fault)
        return Detections(
            boxes_xyxy=placement.to_image(found.boxes_xyxy),
            confidences=found.confidences,
            class_ids=found.class_ids,
            class_names=tuple(map(class_names.__getitem__, found.class_ids.tolist())),
            **taken,
        )

    def loss(self, found: Answer, reference: Answer) -> float:
        """1 - F1 of the boxes, see :func:`disagreement`."""
        assert isinstance(found, Detections)
        assert isinstance(reference, Detections)
        return disagreement(found, reference)


class Classify:
    """One class an image: ``logits`` (C,)."""

    outputs: tuple[str, ...] = ("logits",)
    defaults: Options = TopK()
    evaluation: Options = TopK()
    metrics: tuple[str, ...] = ("top-1", "top-5")
    unit = "likeliest class"

    def answer(
        self,
        outputs: Outputs,
        placement: Placement,  # noqa: ARG002  # a class is nowhere in particular
        options: Options,
        class_names: Sequence[str],
        note: Callable[[str], None] = ignore,  # noqa: ARG002  # one broken logit spoils all
        **taken: Unpack[Taken],
    ) -> Classification:
        """See :class:`TaskKind`."""
        assert isinstance(options, TopK)  # check_options has looked
        logits = outputs["logits"]
        if logits.shape != (len(class_names),):
            raise BrokenOutputError(
                f"exit {taken['exit_index']} gave logits {logits.shape}, expected one for each of "
                f"{counted(len(class_names), 'class')}"
            )
        broken = logits.size - np.count_nonzero(np.abs(logits) < FARTHEST)
        if broken:
            raise BrokenOutputError(
                f"exit {taken['exit_index']} gave broken outputs: {broken} of {logits.size} logits "
                "are not finite"
            )
        class_ids, confidences = options(outputs["logits"])
        names = tuple(class_names[class_id] for class_id in class_ids.tolist())
        return Classification(class_ids, confidences, names, **taken)

    def loss(self, found: Answer, reference: Answer) -> float:
        """0 where both name the same class first, else 1."""
        return float(found.class_ids[0] != reference.class_ids[0])


class Features:
    """A backbone's maps (C, H, W), with nothing found in them."""

    outputs: tuple[str, ...] = MAPS
    defaults: Options = NoOptions()
    evaluation: Options = NoOptions()
    metrics: tuple[str, ...] = ()
    unit = "feature map"

    def answer(
        self,
        outputs: Outputs,
        placement: Placement,  # noqa: ARG002  # maps are of the input, not of the picture
        options: Options,  # noqa: ARG002  # there are none
        class_names: Sequence[str],  # noqa: ARG002  # there are none
        note: Callable[[str], None] = ignore,  # noqa: ARG002  # one broken map spoils all
        **taken: Unpack[Taken],
    ) -> FeatureMaps:
        """See :class:`TaskKind`; the maps are copies."""
        maps = {name: np.array(outputs[name], np.float32) for name in self.outputs}
        for name, map_ in maps.items():
            broken = map_.size - np.count_nonzero(np.isfinite(map_))
            if broken:
                raise BrokenOutputError(
                    f"exit {taken['exit_index']} gave broken outputs: {broken} of {map_.size} "
                    f"values of {name} are not finite"
                )
        return FeatureMaps(maps, **taken)

    def loss(self, found: Answer, reference: Answer) -> float:
        """The largest difference of any map, by the root mean squares of values, at most 1."""
        assert isinstance(found, FeatureMaps)
        assert isinstance(reference, FeatureMaps)
        pairs = ((found.maps[name], reference.maps[name]) for name in self.outputs)
        return min(1.0, max(_relative(*pair) for pair in pairs))


def _relative(found: Float32Array, reference: Float32Array) -> float:
    """The root mean square of a difference, by that of what it should be."""
    size = float(np.linalg.norm(reference))
    difference = float(np.linalg.norm(found - reference))
    return difference / size if size else float(difference > 0)


def _fault(found: Found, boxes_xyxy: Float32Array, class_scores: Float32Array) -> str | None:
    """What is broken of a head's outputs, if anything is.

    All of them are looked at only where a candidate's box was of no use, or where nothing was
    found: a broken engine that is taken for an empty picture would go unnoticed.
    """
    if found.broken_scores:
        return f"{found.broken_scores} scores are not numbers from 0 to 1"
    if found.unusable_boxes:
        lost = boxes_xyxy.size - np.count_nonzero(np.abs(boxes_xyxy) < FARTHEST)
        if lost:
            return f"{lost} coordinates of boxes are not finite"
        if not (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1).any():
            return "no box has an area"
    if len(found.confidences) or not class_scores.size:
        return None
    least = float(class_scores.min())
    return None if least >= 1 - LARGEST_SCORE else f"scores go down to {least:g}"


TASKS: Mapping[str, TaskKind] = {"detect": Detect(), "classify": Classify(), "features": Features()}
"""Every task by its name in a manifest."""


def disagreement(found: Detections, reference: Detections) -> float:
    """1 - F1 of ``found`` against ``reference``, in [0, 1]; 0 where both are empty.

    Detections are matched greedily, the surest first, each with the unmatched reference box of
    its class that it overlaps most, if by at least half. F1 = 2 TP / (found + reference)
    (van Rijsbergen, "Information Retrieval", 1979, chapter 7); confidences count only by their
    order, so pass what an application would see, above its own confidence.
    """
    if not len(found) and not len(reference):
        return 0.0
    return 1.0 - 2.0 * count_matches(found, reference) / (len(found) + len(reference))


def _alike_without_area(boxes: Float32Array, others: Float32Array) -> BoolArray:
    """Which pairs (A, B) have no area and are in the same place, to half a pixel.

    What is found beyond a picture's edge is cut off there, and overlaps nothing, not even itself.
    """
    first, second = (np.any(each[:, 2:] <= each[:, :2], axis=1) for each in (boxes, others))
    pairs: BoolArray = np.logical_and.outer(first, second)
    if pairs.any():
        pairs &= np.abs(boxes[:, None] - others[None]).max(-1) <= _HALF_A_PIXEL
    return pairs


def count_matches(found: Detections, reference: Detections, iou: float = MATCH_IOU) -> int:
    """How many detections find a reference box of their own."""
    if not len(found) or not len(reference):
        return 0
    overlap = pairwise_iou(found.boxes_xyxy, reference.boxes_xyxy)
    overlap[_alike_without_area(found.boxes_xyxy, reference.boxes_xyxy)] = 1.0
    overlap[found.class_ids[:, None] != reference.class_ids[None]] = 0.0
    matches = 0
    for row in np.argsort(-found.confidences, kind="stable"):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= iou:
            overlap[:, best] = 0.0
            matches += 1
    return matches


def check_options(task: TaskKind, options: Options, name: str) -> None:
    """Refuse another task's options.

    Raises:
        InputError: with the kind that the bundle called ``name`` takes.
    """
    if type(options) is not type(task.defaults):
        kind = type(task.defaults)
        given: Any = options
        known = {field.name for field in fields(kind)}
        if isinstance(given, Mapping) and given.keys() <= known:
            arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        else:
            arguments = ", ".join(
                f"{name}={value!r}" for name, value in asdict(task.defaults).items()
            )
        raise InputError(
            f"options are {shown(options)}, but {name} takes "
            f"options=dyninfer.{kind.__name__}({arguments})"
        )
