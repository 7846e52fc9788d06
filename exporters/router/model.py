"""A fitted router: statistics of detections, or averages of features, and one linear layer.

The same modules compute the features for the fit and lie in the router's ONNX stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dyninfer.bundle.manifest import Manifest, Task, TensorSpec
from dyninfer.errors import InputError
from dyninfer.exporters.router import FeatureKind
from dyninfer.types import Float64Array


class DetectionStatistics(nn.Module):
    """Statistics of unsuppressed detections: how unsure, how ambiguous, how small, how crowded.

    Duplicates are suppressed by one matrix of overlaps without a loop ("Fast NMS", Bolya et al.,
    "YOLACT", ICCV 2019, section 5), so shapes are static and a batch is one computation. An
    uncertain candidate of confidence s counts s * (1 - s), the variance of whether it is there.
    All counts are soft, since a count that jumps at a threshold tells little of few pictures.
    """

    names = (
        "unsure_small",
        "unsure_medium",
        "unsure_large",
        "above_0.1",
        "above_0.5",
        "unsure_classes",
        "second_class",
        "overlap_of_classes",
        "mean_of_best",
    )
    _MOST = 100  # candidates
    _SUPPRESS_IOU = 0.5
    _FLOOR = 0.1  # below it, almost everything is background
    _BEST = 5
    _SMALL, _LARGE, _SOFT_SIDE = 0.2, 0.5, 0.05  # of the image's side

    size: Tensor
    surer: Tensor

    def __init__(self, height: int, width: int, boxes: int) -> None:
        """``boxes`` is the number A of unsuppressed boxes in an image of ``height`` x ``width``."""
        super().__init__()
        self._candidates = min(self._MOST, boxes)
        self.register_buffer("size", torch.tensor([width, height] * 2, dtype=torch.float32))
        order = torch.ones(self._candidates, self._candidates).triu(1)
        self.register_buffer("surer", order)  # a row is surer than the columns that are 1

    def forward(self, boxes_xyxy: Tensor, class_scores: Tensor) -> Tensor:
        """(N, A, 4) pixels and (N, A, C) in [0, 1] -> (N, 9), each feature log(1 + value)."""
        scores = class_scores.float()
        best, class_ids = scores.max(dim=2)
        best, rows = best.topk(self._candidates, dim=1)
        class_ids = class_ids.gather(1, rows)
        corners = rows.unsqueeze(2).expand(-1, -1, 4)
        boxes = boxes_xyxy.float().gather(1, corners) / self.size
        overlap = pairwise_iou(boxes)
        same = (class_ids.unsqueeze(2) == class_ids.unsqueeze(1)).float()
        kept = ((overlap * same * self.surer).amax(dim=1) <= self._SUPPRESS_IOU).float()
        second = _second_class(scores, rows)
        anywhere = scores.amax(dim=1)  # how sure it is of every class, wherever it is
        values = [
            *self._unsure_by_size(boxes, best, kept),
            (kept * torch.sigmoid((best - 0.1) / 0.03)).sum(1),
            (kept * torch.sigmoid((best - 0.5) / 0.05)).sum(1),
            (anywhere * (1 - anywhere)).sum(1),
            (kept * second * (best > self._FLOOR).float()).sum(1),
            _overlap_of_classes(overlap, same, best * kept, self._SUPPRESS_IOU),
            (best * kept).topk(min(self._BEST, self._candidates), dim=1).values.mean(dim=1),
        ]
        return torch.log1p(torch.stack(values, dim=1))

    def _unsure_by_size(self, boxes: Tensor, best: Tensor, kept: Tensor) -> list[Tensor]:
        """Uncertainty of small, medium and large boxes, by the square root of their area."""
        sides = (boxes[..., 2:] - boxes[..., :2]).clamp(0, 1)
        side = sides.prod(dim=2).clamp(min=1e-8).sqrt()
        unsure = kept * best * (1 - best) * (best > self._FLOOR).float()
        above_small = torch.sigmoid((side - self._SMALL) / self._SOFT_SIDE)
        above_large = torch.sigmoid((side - self._LARGE) / self._SOFT_SIDE)
        weights = (1 - above_small, above_small * (1 - above_large), above_large)
        return [(unsure * weight).sum(1) for weight in weights]


class PooledFeatures(nn.Module):
    """Global averages of feature maps (N, C, H, W), beside vectors (N, C), concatenated."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Tensors (N, C) or (N, C, H, W) -> (N, sum of C)."""
        # over one axis and then the other, whose sums are shorter and rounded less
        columns = [t.float() if t.ndim == 2 else t.float().mean(3).mean(2) for t in tensors]
        return torch.cat(columns, dim=1)


class MaximumConfidence(nn.Module):
    """The largest class score of an image: the hand rule that fitted routers are compared with."""

    names = ("maximum_confidence",)

    def forward(self, class_scores: Tensor) -> Tensor:
        """(N, A, C) in [0, 1] -> (N, 1)."""
        return class_scores.float().amax(dim=(1, 2)).unsqueeze(1)


def pairwise_iou(boxes: Tensor) -> Tensor:
    """(N, K, 4) corners -> (N, K, K) intersection over union; 0 for boxes without an area."""
    top_left = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    bottom_right = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (bottom_right - top_left).clamp(min=0).prod(dim=3)
    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=2)
    union = area.unsqueeze(2) + area.unsqueeze(1) - shared
    return shared / union.clamp(min=1e-9)


def _second_class(scores: Tensor, rows: Tensor) -> Tensor:
    """(N, K) confidence of the second-best class of the chosen rows; 0 where there is one class."""
    classes = scores.shape[2]
    if classes < 2:
        return torch.zeros_like(rows, dtype=torch.float32)
    chosen = scores.gather(1, rows.unsqueeze(2).expand(-1, -1, classes))
    return chosen.topk(2, dim=2).values[..., 1]


def _overlap_of_classes(overlap: Tensor, same: Tensor, kept: Tensor, iou: float) -> Tensor:
    """(N,) boxes of different classes on the same thing, weighted by both confidences."""
    doubled = overlap * (overlap > iou).float() * (1 - same)
    return (doubled * kept.unsqueeze(2) * kept.unsqueeze(1)).sum(dim=(1, 2))


class Reader(NamedTuple):
    """The features of an exit, and the outputs of its body that they are computed from."""

    features: DetectionStatistics | PooledFeatures | MaximumConfidence
    inputs: tuple[TensorSpec, ...]


def build_features(manifest: Manifest, exit_index: int, kind: FeatureKind) -> Reader:
    """What the router of an exit reads.

    Raises:
        InputError: the body has no outputs of this kind, or one with a further dynamic axis.
    """
    exit_ = manifest.ways[exit_index]
    outputs = {spec.name: spec for spec in manifest.stages[exit_.body].outputs}
    detects = all(name in outputs for name in Task.DETECT.outputs)
    if kind is FeatureKind.AUTO:
        kind = FeatureKind.DETECTIONS if detects else FeatureKind.POOLED
    if kind is FeatureKind.DETECTIONS:
        if not detects:
            raise InputError(
                f"body {exit_.body!r} ends in {', '.join(outputs)}, without boxes_xyxy and "
                "class_scores; fit its router with pooled features (--features pooled)"
            )
        specs = tuple(outputs[name] for name in Task.DETECT.outputs)
        image = manifest.image_inputs[exit_.image_input]
        boxes = _fixed_shape(specs[0])[1]
        return Reader(DetectionStatistics(image.height, image.width, boxes), specs)
    specs = tuple(spec for spec in outputs.values() if len(spec.shape) in (2, 4))
    if not specs:
        raise InputError(
            f"body {exit_.body!r} has no feature map (N, C, H, W) and no vector (N, C) among "
            f"{', '.join(outputs)}; fit its router with its detections "
            "(--features detections)"
        )
    names = [f"{s.name}[{channel}]" for s in specs for channel in range(_fixed_shape(s)[1])]
    return Reader(PooledFeatures(names), specs)


def confidence_reader(manifest: Manifest, exit_index: int) -> Reader | None:
    """A router's view of the maximum confidence; None where the body's outputs have no scores."""
    outputs = manifest.stages[manifest.ways[exit_index].body].outputs
    scores = tuple(spec for spec in outputs if spec.name == Task.DETECT.outputs[-1])
    return Reader(MaximumConfidence(), scores) if scores else None


def _fixed_shape(spec: TensorSpec) -> tuple[int, ...]:
    shape = spec.shape_for(1)
    if shape is None:
        raise InputError(
            f"output {spec} has a dynamic axis beside the batch, and a router needs fixed shapes; "
            "export the bundle with a fixed image size"
        )
    return shape


@dataclass(frozen=True)
class LinearGain:
    """A linear estimate of what an image gains by going on: larger is harder.

    The weights (F,) are for features as they are, not standardised.
    """

    weights: Float64Array
    bias: float

    def __call__(self, features: npt.ArrayLike) -> Float64Array:
        """(N, F) -> (N,)."""
        return np.asarray(np.asarray(features, np.float64) @ self.weights + self.bias, np.float64)


class FittedRouter(nn.Module):
    """Outputs of a body -> easiness (N, 1) = sigmoid(-gain)."""

    centre: Tensor

    def __init__(self, reader: Reader, centre: Float64Array, gain: LinearGain) -> None:
        """``centre`` (F,) is subtracted first, which keeps float32 sums of many features exact."""
        super().__init__()
        self.features, self.inputs = reader
        offset = float(gain(centre[None])[0])
        self.register_buffer("centre", torch.tensor(centre, dtype=torch.float32))
        self.linear = nn.Linear(len(centre), 1)
        with torch.no_grad():
            self.linear.weight.copy_(-torch.tensor(gain.weights)[None])
            self.linear.bias.fill_(-offset)
        self.eval().requires_grad_(False)

    def forward(self, *tensors: Tensor) -> Tensor:
        """The body's outputs, as the features want them -> (N, 1) in (0, 1)."""
        features: Tensor = self.features(*tensors)
        easiness: Tensor = torch.sigmoid(self.linear(features - self.centre))
        return easiness
