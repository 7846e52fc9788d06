"""How a stage is quantised to 8 bits."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from dyninfer.hardware import cpu_field, read_cpuinfo


class Int8Target(str, Enum):
    """What runs the quantised stage.

    ``CPU``: ONNX Runtime, whose fast kernels want every operator between two convolutions in
    8 bits, unsigned on x86. ``OPENVINO``: the same types, and only what a layer reads is quantised,
    so that convolution, activation and re-quantisation become one kernel. ``TENSORRT``: the same
    again, signed and symmetric (zero point 0).
    """

    CPU = "cpu"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


PERCENTILES = {
    Int8Target.CPU: 99.999,
    Int8Target.OPENVINO: 99.999,
    Int8Target.TENSORRT: 99.99,
}
"""Share of values in percent that a range holds. With a symmetric range an activation such as SiLU
uses only half of the 8 bits, so that cutting more of the tail pays."""


class CalibrationMethod(str, Enum):
    """How the range that 8 bits stand for follows from what was observed."""

    MINMAX = "minmax"
    ENTROPY = "entropy"
    PERCENTILE = "percentile"


@dataclass(frozen=True)
class QuantTypes:
    """Element types of a quantised stage.

    ``signed`` activations are symmetric too: their zero point is 0. ``reduce_range`` gives weights
    7 bits.
    """

    signed: bool
    reduce_range: bool = False


# adds products of 8-bit numbers in 32 bits at once
_DOT_PRODUCT_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
_X86 = frozenset({"x86_64", "amd64", "i686", "i386"})


def types_for(
    target: Int8Target, machine: str | None = None, flags: frozenset[str] | None = None
) -> QuantTypes:
    """The types that a target computes with fastest.

    On x86 activations are unsigned: its 8-bit products take one unsigned factor, and ONNX Runtime
    has no fast convolution of two signed ones there. Without VNNI or AMX, pairs of products are
    added in 16 bits and saturate, so weights get 7 bits. Elsewhere (ARM) signed symmetric
    activations are as fast. Source: ONNX Runtime's guide "Quantize ONNX models".

    Args:
        target: what runs the stage.
        machine: architecture, as ``platform.machine`` tells; None for this machine's.
        flags: the processor's instruction sets as Linux calls them; None for this machine's.
    """
    if target is Int8Target.TENSORRT or (machine or platform.machine()).lower() not in _X86:
        return QuantTypes(signed=True)
    if flags is None:
        flags = frozenset(cpu_field(read_cpuinfo(), "flags").split())
    return QuantTypes(signed=False, reduce_range=not flags & _DOT_PRODUCT_FLAGS)


CALIBRATING, SEARCHING = "calibrating ", "searching "
"""What is done to a stage, before its name."""
Progress = Callable[[str, int, int], None]
"""(what is done, steps done, steps in all)"""


@dataclass(frozen=True)
class Int8Settings:
    """How stages are quantised.

    Attributes:
        target: what will run them.
        method: how ranges are chosen.
        max_deviation: largest deviation of a stage's outputs (see ``deviations``) at which no
            layer is kept in float32.
        max_float_share: at most this share of a stage's multiply-accumulates stays in float32 for
            the sake of ``max_deviation``.
        half: what is not in 8 bits computes in float16, which ``TENSORRT`` alone does fast.
        search_samples: so many of the calibration pictures are used to find sensitive layers.
        progress: is told what is done.
    """

    target: Int8Target = Int8Target.CPU
    method: CalibrationMethod = CalibrationMethod.PERCENTILE
    max_deviation: float = 0.03
    max_float_share: float = 0.05
    half: bool = False
    search_samples: int = 4
    progress: Progress = lambda _what, _done, _total: None
