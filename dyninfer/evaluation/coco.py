"""COCO average precision of detections in memory.

Definitions: Lin et al., "Microsoft COCO: Common Objects in Context", 2014, and
https://cocodataset.org/#detection-eval; computed by faster-coco-eval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.errors import InputError, MissingExtra
from dyninfer.installing import pip_install
from dyninfer.plain_text import counted
from dyninfer.results.answers import Detections
from dyninfer.types import BoolArray, Float64Array


@dataclass(frozen=True)
class Truth:
    """What really is in an image: boxes (D, 4) in pixels and classes (D,), from 0.

    Attributes:
        crowd: (D,) bool, or None for no crowds: regions where finds count neither way.
        areas: (D,) square pixels of the objects' outlines, or None for the boxes' areas.
    """

    boxes_xyxy: npt.NDArray[Any]
    class_ids: npt.NDArray[Any]
    crowd: npt.NDArray[np.bool_] | None = None
    areas: npt.NDArray[Any] | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes_xyxy)
        if self.boxes_xyxy.shape != (count, 4):
            raise InputError(f"boxes have shape {self.boxes_xyxy.shape}, expected (D, 4)")
        for column in (self.class_ids, self.crowd, self.areas):
            if column is not None and column.shape != (count,):
                raise InputError(
                    f"a column has shape {column.shape}, expected ({count},), one entry per box"
                )

    @property
    def crowds(self) -> BoolArray:
        """(D,) which objects are crowds."""
        return np.zeros(len(self.class_ids), np.bool_) if self.crowd is None else self.crowd


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's six precisions, each in [0, 1], or None where no object is of that size.

    ``ap`` is the mean over IoU thresholds 0.50 to 0.95 and over classes; ``ap50`` and ``ap75``
    are at one threshold; ``small``, ``medium`` and ``large`` are ``ap`` of objects below 32 x 32,
    up to 96 x 96, and above.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None


def average_precision(
    truths: Sequence[Truth], found: Sequence[Detections], classes: int
) -> AveragePrecision:
    """Average precision over images: ``truths`` and ``found`` hold one entry per image.

    At most 100 detections of a class count per image, the surest first. Prints nothing.

    Raises:
        InputError: there are not as many entries in ``found`` as in ``truths``.
        MissingExtra: faster-coco-eval is not installed.
    """
    if len(truths) != len(found):
        raise InputError(
            f"there is ground truth of {counted(len(truths), 'image')}, and detections of "
            f"{len(found)}; give one entry per image, empty where nothing was found"
        )
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtra(
            f"average precision needs faster-coco-eval: {pip_install('eval')}"
        ) from error
    objects = [coco_objects(image, truth) for image, truth in enumerate(truths)]
    annotations = [entry for of_image in objects for entry in of_image]
    if not annotations:
        return AveragePrecision(None, None, None, None, None, None)
    dataset = {
        "images": [{"id": image} for image in range(len(truths))],
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
    }
    reference = COCO(dataset, print_function=_silent)
    results = np.vstack([_results(*entry) for entry in enumerate(found)])
    loaded = reference.loadRes(results)
    evaluation = COCOeval_faster(reference, loaded, iouType="bbox", print_function=_silent)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    # COCO says -1 where there is nothing to find
    six = [float(value) if value >= 0 else None for value in evaluation.stats[:6]]
    return AveragePrecision(*six)


def coco_objects(image: int, truth: Truth) -> list[dict[str, Any]]:
    """The objects of an image as COCO's annotations, without ids of their own."""
    boxes = _xywh(truth.boxes_xyxy)
    areas = boxes[:, 2] * boxes[:, 3] if truth.areas is None else truth.areas
    columns = zip(boxes.tolist(), truth.class_ids.tolist(), areas, truth.crowds, strict=True)
    return [
        {
            "image_id": image,
            "category_id": class_id,
            "bbox": box,
            "area": float(area),
            "iscrowd": int(is_crowd),
        }
        for box, class_id, area, is_crowd in columns
    ]


def _results(image: int, found: Detections) -> Float64Array:
    """(D, 7): image, left, top, width, height, confidence, class, as faster-coco-eval reads it."""
    images, boxes = np.full(len(found), image), _xywh(found.boxes_xyxy)
    return np.column_stack([images, boxes, found.confidences, found.class_ids])


def _xywh(boxes_xyxy: npt.NDArray[Any]) -> Float64Array:
    boxes = boxes_xyxy.reshape(-1, 4).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _silent(*_: object, **__: object) -> None:
    """Swallow what faster-coco-eval would print."""
