"""How far the detections of two exits are from each other: a bounded loss without labels."""

from __future__ import annotations

import numpy as np

from dyninfer.results.detections import Detections
from dyninfer.results.nms import pairwise_iou

MATCH_IOU = 0.5


def disagreement(found: Detections, reference: Detections, iou: float = MATCH_IOU) -> float:
    """1 - F1 of ``found`` against ``reference``, in [0, 1]; 0 where both are empty.

    Detections are matched greedily, the surest first, each with the unmatched reference box of
    its class that it overlaps most, if by at least ``iou``. F1 = 2 TP / (found + reference)
    (van Rijsbergen, "Information Retrieval", 1979, chapter 7); confidences count only by their
    order, so pass what an application would see, above its own confidence.
    """
    if not len(found) and not len(reference):
        return 0.0
    return 1.0 - 2.0 * count_matches(found, reference, iou) / (len(found) + len(reference))


def count_matches(found: Detections, reference: Detections, iou: float = MATCH_IOU) -> int:
    """How many detections find a reference box of their own."""
    if not len(found) or not len(reference):
        return 0
    overlap = pairwise_iou(found.boxes_xyxy, reference.boxes_xyxy)
    overlap[found.class_ids[:, None] != reference.class_ids[None]] = 0.0
    matches = 0
    for row in np.argsort(-found.confidences, kind="stable"):
        best = int(overlap[row].argmax())
        if overlap[row, best] >= iou:
            overlap[:, best] = 0.0
            matches += 1
    return matches
