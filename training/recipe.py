"""What the embedded model is: its widths, anchors and image size, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from dyninfer.exporters.dynamicdet.model import DynamicDetector, random_model
from dyninfer.exporters.dynamicdet.plan import plan_from_table
from dyninfer.exporters.dynamicdet.topology import Part, published
from training.loss import LossWeights

WIDTH_STEP = 8

# The first head is narrower than the second, so that what is sent on gains clearly.
WIDTHS: Mapping[Part, Fraction] = {
    Part.FIRST: Fraction(1, 8),
    Part.HEAD: Fraction(3, 32),
    Part.SECOND: Fraction(1, 8),
    Part.HEAD2: Fraction(1, 8),
}

# w, h, w, h, ... in pixels for strides 8, 16 and 32: k-means of 9 centres over training boxes
ANCHORS = ((8, 22, 14, 21, 21, 20), (15, 40, 21, 30, 31, 30), (27, 43, 39, 46, 52, 57))


@dataclass(frozen=True)
class Recipe:
    """Numbers of the training.

    Attributes:
        size: side of the scenes in pixels.
        batch: scenes per process and step.
        learning_rate: peak, of AdamW.
        weight_decay: of convolution kernels alone.
        warm_up: share of the training until the learning rate peaks.
        final_rate: learning rate at the end, as a share of the peak.
        clip_norm: longest gradient of a step.
        ema_decay: of the averaged weights that are kept.
        router_scenes: scenes whose losses the router learns from.
        router_epochs: how often it learns from each of them.
        router_batch: scenes per step of the router.
        router_memory: batches whose gains the running median is taken over.
        router_rate, router_decay: learning rate and weight decay of the router, constant.
        loss: weights of the detection loss.
    """

    size: int = 192
    batch: int = 8
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    warm_up: float = 0.03
    final_rate: float = 0.02
    clip_norm: float = 5.0
    ema_decay: float = 0.998
    router_scenes: int = 3000
    router_epochs: int = 4
    router_batch: int = 8
    router_memory: int = 128
    router_rate: float = 5e-5
    router_decay: float = 5e-3
    loss: LossWeights = field(default_factory=LossWeights)


def width(part: Part, channels: int) -> int:
    """Channels of a row of ``part`` that has ``channels`` in the published model."""
    steps = -(-channels * WIDTHS[part] // WIDTH_STEP)
    return max(1, int(steps)) * WIDTH_STEP


def build(seed: int = 0) -> DynamicDetector:
    """The embedded model with random weights."""
    return random_model(
        plan_from_table(published("dy-yolov7"), width=width, classes=10), ANCHORS, seed
    )
