"""How good a detector is on labelled pictures, before it is exported."""

from __future__ import annotations

import torch

from dyninfer.errors import InputError
from dyninfer.evaluation.coco import average_precision
from dyninfer.exporters.candidate_rows import CANDIDATES
from dyninfer.exporters.slim.pictures import Pictures
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.export import EVALUATION
from dyninfer.exporters.zendet.stages import DetectorStage, build_stage
from dyninfer.results.answers import Detections

_AT_ONCE = 32


@torch.inference_mode()
def precision_of(detector: Detector, pictures: Pictures, class_names: tuple[str, ...]) -> float:
    """COCO's AP in [0, 1], decoded and suppressed as the bundle is when ``dyninfer eval`` runs it.

    Raises:
        InputError: there is no object in the pictures.
        MissingExtra: faster-coco-eval is not installed.
    """
    spec = pictures.spec
    stage = build_stage(detector, (spec.height, spec.width), len(class_names), CANDIDATES)
    assert isinstance(stage, DetectorStage)
    found = []
    for images, placements in pictures.in_order(_AT_ONCE):
        boxes, scores = (each.numpy() for each in stage(images))
        for place, *candidates in zip(placements, boxes, scores, strict=True):
            kept, confidences, class_ids = EVALUATION(*candidates)
            names = tuple(class_names[index] for index in class_ids)
            found.append(Detections(place.to_image(kept), confidences, class_ids, names))
    truths = [sample.truth for sample in pictures.samples if sample.truth is not None]
    ap = average_precision(truths, found, len(class_names)).ap
    if ap is None:
        raise InputError("there is no object in the pictures that judge students: give more")
    return ap
