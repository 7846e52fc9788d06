"""What was published of DynamicDet's speed, and small models of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.benchmarks.latency.step_costs import nonnegative_least_squares
from dyninfer.exporters.dynamicdet.topology import Op, Part, Topology, published
from dyninfer.types import Float64Array

SOURCE = "Lin et al., DynamicDet, CVPR 2023, table of results (arXiv 2304.05552)"
VARIANTS = {"dy-yolov7": "Dy-YOLOv7", "dy-yolov7x": "Dy-YOLOv7-X", "dy-yolov7-w6": "Dy-YOLOv7-W6"}
V100_TENSOR_TFLOPS, V100_FP32_TFLOPS = 125.0, 15.7
"""Peaks of a V100 (SXM2): tensor cores in fp16, and fp32 (NVIDIA, Tesla V100 data sheet)."""
ROUTER_CONVOLUTIONS = 2
SPPCSPC_CONVOLUTIONS = 7


@dataclass(frozen=True)
class PublishedRow:
    """A V100, batch 1, fp16, PyTorch; ``gflops`` is multiply-accumulates times two, ``ap`` COCO."""

    variant: str
    hard_fraction: float
    gflops: float
    fps: float
    ap: float

    @property
    def ms(self) -> float:
        """Mean milliseconds of an image."""
        return 1e3 / self.fps


PUBLISHED = (
    PublishedRow("dy-yolov7", 0.1, 112.4, 110, 51.4),
    PublishedRow("dy-yolov7", 0.5, 143.2, 96, 52.7),
    PublishedRow("dy-yolov7", 0.9, 174.0, 85, 53.3),
    PublishedRow("dy-yolov7", 1.0, 181.7, 83, 53.5),
    PublishedRow("dy-yolov7x", 0.1, 201.7, 98, 53.0),
    PublishedRow("dy-yolov7x", 0.5, 248.9, 78, 54.2),
    PublishedRow("dy-yolov7x", 0.9, 296.1, 65, 54.7),
    PublishedRow("dy-yolov7x", 1.0, 307.9, 64, 54.8),
    PublishedRow("dy-yolov7-w6", 0.1, 384.2, 74, 54.9),
    PublishedRow("dy-yolov7-w6", 0.5, 480.8, 58, 55.9),
    PublishedRow("dy-yolov7-w6", 0.9, 577.4, 48, 56.4),
    PublishedRow("dy-yolov7-w6", 1.0, 601.6, 46, 56.5),
)
""":data:`SOURCE`; by variant, from few hard images to all."""


def rows_of(variant: str) -> tuple[PublishedRow, ...]:
    """The rows of a key of :data:`VARIANTS`."""
    return tuple(row for row in PUBLISHED if row.variant == variant)


@dataclass(frozen=True)
class HardLine:
    """Something that an image costs, linear in the hard fraction: all easy, and all hard."""

    easy: float
    hard: float

    def at(self, hard_fraction: float) -> float:
        """The mean image's."""
        return self.easy + (self.hard - self.easy) * hard_fraction

    def fraction_up_to(self, limit: float) -> float:
        """The hard fraction, in [0, 1], up to which it stays within ``limit``."""
        return float(np.clip((limit - self.easy) / (self.hard - self.easy), 0, 1))


def line_of_ends(variant: str, quantity: str = "ms") -> HardLine:
    """The line through the first and last published row of ``ms`` or ``gflops``."""
    first, *_, last = rows_of(variant)
    low, high = float(getattr(first, quantity)), float(getattr(last, quantity))
    slope = (high - low) / (last.hard_fraction - first.hard_fraction)
    easy = low - slope * first.hard_fraction
    return HardLine(easy, easy + slope)


def convolutions(variant: str) -> HardLine:
    """How many convolutions an easy and a hard image run, the router's included.

    Batch norm and activation belong to them; what else there is (pooling, concatenation,
    upsampling) goes by their number, too.
    """
    topology = published(variant)
    first, router = convolutions_in(topology, Part.FIRST), ROUTER_CONVOLUTIONS
    head = convolutions_in(topology, Part.HEAD)
    second = convolutions_in(topology, Part.SECOND) + convolutions_in(topology, Part.HEAD2)
    return HardLine(first + router + head, first + router + second)


def convolutions_in(topology: Topology, part: Part) -> int:
    """How many convolutions one part runs."""
    single = (Op.CONV, Op.REP_CONV, Op.CB_LINEAR)
    return sum(
        (row.op in single)
        + SPPCSPC_CONVOLUTIONS * (row.op is Op.SPPCSPC)
        + len(row.inputs) * (row.op is Op.DETECT)
        for row in topology.parts[part]
    )


@dataclass(frozen=True)
class ComputeModel:
    """``ms = fixed_ms + convolution_ms * convolutions + gflop_ms * gflops``."""

    fixed_ms: float
    convolution_ms: float
    gflop_ms: float

    @property
    def tflops(self) -> float:
        """Throughput in TFLOP/s, without the other terms."""
        return 1 / self.gflop_ms

    def ms(self, row: PublishedRow) -> float:
        """Predicted milliseconds of a published row."""
        started = self.convolution_ms * convolutions(row.variant).at(row.hard_fraction)
        return self.fixed_ms + started + self.gflop_ms * row.gflops

    def error(self, row: PublishedRow) -> float:
        """Relative error of the predicted frames a second, signed."""
        return row.ms / self.ms(row) - 1


def fit_fixed(rows: Sequence[PublishedRow]) -> ComputeModel:
    """A fixed time and one throughput for these rows; neither is negative."""
    fixed, each_gflop = _fit(np.ones(len(rows)), rows)
    return ComputeModel(fixed, 0.0, each_gflop)


def fit_convolutions(rows: Sequence[PublishedRow]) -> ComputeModel:
    """A time per convolution, as starting its kernels from Python takes, and one throughput."""
    count = [convolutions(row.variant).at(row.hard_fraction) for row in rows]
    each, each_gflop = _fit(np.array(count), rows)
    return ComputeModel(0.0, each, each_gflop)


def _fit(other: Float64Array, rows: Sequence[PublishedRow]) -> tuple[float, float]:
    """Least squares of relative errors on a column and the GFLOPs."""
    columns = np.column_stack([other, [row.gflops for row in rows]])
    measured = np.array([row.ms for row in rows])
    found = nonnegative_least_squares(columns / measured[:, None], np.ones(len(rows)))
    return float(found[0]), float(found[1])
