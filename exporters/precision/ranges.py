"""From the values that tensors are seen to hold, without holding them all, to ranges for 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.errors import ExportError, InputError
from dyninfer.exporters.graphs import GraphBuilder, editable, open_model
from dyninfer.exporters.precision.settings import CalibrationMethod
from dyninfer.foreign_errors import reason_of
from dyninfer.types import AnyArray, Float32Array, Float64Array, Int64Array

BINS = 2048  # of a histogram of magnitudes, as in NVIDIA's calibrators
LEVELS = 128  # magnitudes that a signed 8-bit number can tell apart
CANDIDATE_STRIDE = 8  # every so many bins an end of the range is tried
# The method supposes a peak at zero. Of values that lie around another one, such as a sigmoid's, it
# would keep a single part and clip all others to it, for one part equals itself.
LEAST_PERCENT = 99.0
_EPSILON = 1e-9

StageInputs = Mapping[str, AnyArray]
Feed = Callable[[], Iterable[StageInputs]]
"""Gives a stage's real inputs by name, (1, ...) each, anew at every call."""
Tick = Callable[[], None]

VALUES = 1 << 18
"""Of a tensor, from one picture: of 24 pictures, 63 lie beyond the 99.999th percentile. A twelfth
of that told ranges so badly that a detector lost a point of average precision more."""
_FINE = 8 * BINS


@dataclass(frozen=True)
class Observed:
    """What a tensor was seen to hold.

    Attributes:
        lowest, highest: ``lowest <= highest``, infinite where a tensor holds infinity.
        magnitudes: (BINS,) how many values have their magnitude in each of equal parts of
            [0, max(|lowest|, |highest|)]; None where only the extremes were asked for, or where
            these are infinite.
    """

    lowest: float
    highest: float
    magnitudes: Int64Array | None = None

    @property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(abs(self.lowest), abs(self.highest))

    @property
    def is_finite(self) -> bool:
        """Whether it can be rounded to a range at all."""
        return math.isfinite(self.largest)


def clipping_range(
    observed: Observed, method: CalibrationMethod, percentile: float
) -> tuple[float, float]:
    """Lowest and highest value that 8 bits will stand for; what lies outside is clipped.

    A limit on the magnitude is chosen, so that one long tail is cut and the other end, such as
    SiLU's at -0.28, is kept.
    """
    if method is CalibrationMethod.MINMAX or not observed.largest:
        return observed.lowest, observed.highest
    if observed.magnitudes is None:
        raise InputError(f"{method.value} needs a histogram, only the extremes were observed")
    counts = observed.magnitudes.astype(np.float64)
    parts = (
        entropy_limit(counts)
        if method is CalibrationMethod.ENTROPY
        else percentile_limit(counts, percentile)
    )
    limit = observed.largest * parts / len(counts)
    return max(observed.lowest, -limit), min(observed.highest, limit)


def percentile_limit(counts: Float64Array, percentile: float) -> int:
    """The smallest number of leading parts that hold ``percentile`` percent of all values."""
    share = np.cumsum(counts) / counts.sum()
    return int(np.searchsorted(share, min(percentile / 100, float(share[-1])))) + 1


def entropy_limit(counts: Float64Array) -> int:
    """The number of leading parts that 8 bits tell apart with the least loss of information.

    For every limit tried, the clipped histogram (what is beyond, added to its last part) is
    compared with itself after merging into :data:`LEVELS` by Kullback and Leibler's divergence. The
    first part, mostly zeros that 8 bits hold exactly, takes its neighbour's count.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 36 to 38.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    if not counts.any():  # nothing but zeros and tiny values: nothing is gained by clipping
        return len(counts)
    first = max(LEVELS, percentile_limit(counts, LEAST_PERCENT))
    candidates = [*range(first, len(counts), CANDIDATE_STRIDE), len(counts)]
    losses = [_divergence(counts, size) for size in candidates]
    return int(candidates[int(np.argmin(losses))])


def _divergence(counts: Float64Array, size: int) -> float:
    inside = counts[:size]
    reference = inside.copy()
    reference[-1] += counts[size:].sum()
    level = np.arange(size) * LEVELS // size
    total = np.bincount(level, inside, LEVELS)
    occupied = np.bincount(level, inside > 0, LEVELS)
    mean = total / np.maximum(occupied, 1)
    merged = np.where(inside > 0, mean[level], 0.0)
    if not inside.any():
        return np.inf
    p, q = reference / reference.sum(), merged / merged.sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], _EPSILON))).sum())


def open_session(model: ModelProto) -> Any:
    """An ONNX Runtime session on the CPU for a model in memory.

    Raises:
        ExportError: ONNX Runtime refuses the model.
    """
    try:
        return open_model(model)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = reason_of(error)
        raise ExportError(f"ONNX Runtime cannot run a stage during conversion: {reason}") from error


def observe(
    model: ModelProto,
    tensors: Collection[str],
    feed: Feed,
    *,
    histograms: bool,
    tick: Tick = lambda: None,
) -> dict[str, Observed]:
    """What every tensor holds over all inputs, from one run for each of them.

    The extremes are those of all values. Magnitudes are counted of :data:`VALUES` of a tensor and a
    picture that are evenly spaced, or of all that it has. A tensor may hold infinity, as what is
    padded for a maximum does: it has no histogram.

    Args:
        model: the stage in float32, types inferred.
        tensors: names of float32 tensors that are computed or fed.
        feed: the stage's inputs.
        histograms: whether magnitudes are counted.
        tick: called after every run.

    Raises:
        InputError: the feed gives nothing.
        ExportError: a tensor holds NaN.
    """
    if not tensors:
        return {}
    names = sorted(tensors)
    watched, outputs = _watched(model, names, VALUES if histograms else 0)
    session = open_session(watched)
    ends: list[Float32Array] = []
    counted = [_Magnitudes() for _ in names]
    for inputs in feed():
        extremes, *values = session.run(outputs, dict(inputs))
        if (broken := np.isnan(extremes).any(1)).any():
            raise ExportError(
                f"tensor {names[int(broken.argmax())]!r} held NaN on a calibration picture, "
                "expected numbers; keep this stage in fp32"
            )
        ends.append(extremes)
        for magnitudes, sample in zip(counted, values, strict=histograms):
            magnitudes.add(sample)
        tick()
    if not ends:
        raise InputError("there are no calibration pictures, expected at least one")
    lowest, highest = (np.min(ends, 0)[:, 0].tolist(), np.max(ends, 0)[:, 1].tolist())
    observed = dict(zip(names, map(Observed, lowest, highest), strict=True))
    if histograms:
        for (name, seen), magnitudes in zip(observed.items(), counted, strict=True):
            if seen.is_finite:
                observed[name] = replace(seen, magnitudes=magnitudes.within(seen.largest))
    return observed


class _Magnitudes:
    """Counts of magnitudes that come in turns, up to a power of two that is not known before."""

    def __init__(self) -> None:
        self._counts: Int64Array = np.zeros(_FINE, np.int64)
        self._top = 0.0

    def add(self, values: Float32Array) -> None:
        """Count some more; none where one is infinite."""
        largest = float(np.abs(values).max(initial=0.0))
        if not math.isfinite(largest):
            return
        if largest > self._top:
            top = 2.0 ** math.ceil(math.log2(largest))
            times = int(min(top / self._top, _FINE)) if self._top else 1  # all are 0 until then
            merged = self._counts.reshape(-1, times).sum(1)
            self._counts = np.pad(merged, (0, _FINE - len(merged)))
            self._top = top
        self._counts += count_magnitudes(values, self._top, _FINE)

    def within(self, largest: float) -> Int64Array:
        """(BINS,) the counts in equal parts of [0, largest], exact to a sixteenth of a part."""
        if not largest:
            return count_magnitudes(np.zeros(int(self._counts.sum())), 0.0)
        middles = (np.arange(_FINE) + 0.5) * (self._top / _FINE / largest * BINS)
        parts = np.minimum(middles, BINS - 1).astype(np.int64)
        return np.bincount(parts, self._counts, BINS).astype(np.int64)


def _watched(model: ModelProto, tensors: Sequence[str], most: int) -> tuple[ModelProto, list[str]]:
    """The model with what is looked at as its only outputs, and their names.

    The first is (tensors, 2), the lowest and the highest value of each. Where ``most`` is above 0,
    at most so many evenly spaced values of every tensor follow. They are an odd number apart, so
    that all columns of a map, whose width is mostly even, come in turn.
    """
    stage = editable(model)
    values = ir.convenience.create_value_mapping(stage.graph, include_subgraphs=False)
    builder = GraphBuilder(stage.graph, "seen")
    constants = (0, 1, 2, most - 1, max(1, 2 * most), np.iinfo(np.int64).max)
    zero, one, two, rest, twice, end = (builder.constant([number]) for number in constants)
    ends, samples = [], []
    for name in tensors:
        flat = builder.reshape(values[name], [-1])
        ends += [builder.apply(f"Reduce{side}", flat, keepdims=1) for side in ("Min", "Max")]
        if most:
            rounded_up = builder.apply("Add", builder.apply("Shape", flat), rest)
            pairs = builder.apply("Div", rounded_up, twice)
            step = builder.apply("Add", builder.apply("Mul", pairs, two), one)
            samples.append(builder.apply("Slice", flat, zero, end, zero, step))
    extremes = builder.reshape(builder.concat(ends, 0), [len(tensors), 2])
    stage.graph.outputs[:] = [extremes, *samples]
    return ir.to_proto(stage), [str(value.name) for value in stage.graph.outputs]


def count_magnitudes(array: AnyArray, largest: float, count: int = BINS) -> Int64Array:
    """(count,) how many values have their magnitude in each equal part of [0, largest]."""
    if not largest:
        counts = np.zeros(count, np.int64)
        counts[0] = array.size
        return counts
    parts = np.abs(array.reshape(-1)) / np.float32(largest) * np.float32(count)
    return np.bincount(np.minimum(parts.astype(np.int32), count - 1), minlength=count)
