"""What a GFLV2 detector learns from labels, and what a student learns from a teacher.

Labels: Li et al., "Generalized Focal Loss", NeurIPS 2020, section 3: quality focal loss (QFL),
distribution focal loss (DFL) and their weights; on the joint score of "Generalized Focal Loss V2",
CVPR 2021, section 3.2. Boxes: Rezatofighi et al., "Generalized Intersection over Union", CVPR 2019,
algorithm 1. The loss of a student is our distillation: the teacher's scores take the place of QFL's
quality, and its distributions of distances, where it is sure, are learned as in Zheng et al.,
"Localization Distillation for Dense Object Detection", CVPR 2022, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dyninfer.exporters.slim.assignment import Places, assign, intersection_and_union, iou

BETA = 2.0
"""How much QFL turns away from what is learned already."""
BOX_WEIGHT, DISTRIBUTION_WEIGHT = 2.0, 0.25
TEMPERATURE = 3.0  # ours
"""At which a teacher's distributions are learned."""


@dataclass(frozen=True)
class Objects:
    """What is in an image: boxes (M, 4) in pixels of the detector's image, classes (M,) int64."""

    boxes: Tensor
    class_ids: Tensor


@dataclass(frozen=True)
class Made:
    """What a detector makes: scores (N, A, C) in [0, 1], logits (N, A, 4, bins) of distances."""

    scores: Tensor
    logits: Tensor


def detection_loss(made: Made, objects: Sequence[Objects], places: Places) -> Tensor:
    """QFL + 2 GIoU + DFL / 4 of a batch with ``objects`` for each image, a scalar.

    QFL is over the number of places that are to find an object; the others are means over these,
    weighted by how sure the detector is there.
    """
    assigned = torch.stack([assign(places, each.boxes) for each in objects])
    image, place = (assigned >= 0).nonzero(as_tuple=True)
    quality = torch.zeros_like(made.scores)
    if not len(image):
        return quality_focal(made.scores, quality).sum()
    offsets = torch.tensor([0, *(len(each.boxes) for each in objects[:-1])]).cumsum(0)
    chosen = assigned[image, place] + offsets[image]
    boxes = torch.cat([each.boxes for each in objects])[chosen]
    class_ids = torch.cat([each.class_ids for each in objects])[chosen]
    stride, logits = places.strides[place, None], made.logits[image, place]
    centre = places.centres[place]
    found = _boxes(centre / stride, _expected(logits))
    wanted = boxes / stride
    quality[image, place, class_ids] = iou(found.detach(), wanted)
    weight = made.scores[image, place].detach().amax(1).clamp(min=1e-6)
    weight = weight / weight.sum()
    box_loss = (weight * (1 - giou(found, wanted))).sum()
    distances = torch.cat([centre - boxes[:, :2], boxes[:, 2:] - centre], 1) / stride
    distribution_loss = (weight * distribution_focal(logits, distances).mean(1)).sum()
    score_loss = quality_focal(made.scores, quality).sum() / len(image)
    return score_loss + BOX_WEIGHT * box_loss + DISTRIBUTION_WEIGHT * distribution_loss


def distillation_loss(student: Made, teacher: Made) -> Tensor:
    """Our distillation, a scalar: the student's scores and distributions against a teacher's."""
    sure = teacher.scores.amax(2)
    score_loss = quality_focal(student.scores, teacher.scores).sum() / sure.sum().clamp(min=1.0)
    logs = F.log_softmax(student.logits / TEMPERATURE, 3)
    wanted = F.log_softmax(teacher.logits / TEMPERATURE, 3)
    divergence = F.kl_div(logs, wanted, reduction="none", log_target=True).sum(3).mean(2)
    weight = sure / sure.sum().clamp(min=1e-9)
    return score_loss + DISTRIBUTION_WEIGHT * TEMPERATURE**2 * (weight * divergence).sum()


def quality_focal(scores: Tensor, quality: Tensor) -> Tensor:
    """QFL of scores in [0, 1] that are to become a quality in [0, 1], elementwise (eq. 3)."""
    entropy = F.binary_cross_entropy(scores, quality, reduction="none")
    return (quality - scores).abs().pow(BETA) * entropy


def distribution_focal(logits: Tensor, distances: Tensor) -> Tensor:
    """DFL (eq. 6) of logits (..., bins) of distances (...), which are cut to what bins can say."""
    last = logits.shape[-1] - 1
    distances = distances.clamp(0, last)
    left = distances.floor().clamp(max=last - 1).long()
    logs = logits.log_softmax(-1)
    near, far = (logs.gather(-1, (left + step)[..., None])[..., 0] for step in (0, 1))
    share = distances - left
    return -(near * (1 - share) + far * share)


def giou(boxes: Tensor, others: Tensor) -> Tensor:
    """Generalised IoU of pairs of boxes (..., 4), from -1 to 1."""
    overlap, union = intersection_and_union(boxes, others)
    low = torch.minimum(boxes[..., :2], others[..., :2])
    high = torch.maximum(boxes[..., 2:], others[..., 2:])
    hull = (high - low).prod(-1).clamp(min=1e-9)
    return overlap / union - (hull - union) / hull


def _expected(logits: Tensor) -> Tensor:
    """(..., bins) -> distances (...), in strides."""
    return logits.softmax(-1) @ torch.arange(logits.shape[-1], dtype=logits.dtype)


def _boxes(centres: Tensor, distances: Tensor) -> Tensor:
    return torch.cat([centres - distances[:, :2], centres + distances[:, 2:]], 1)
