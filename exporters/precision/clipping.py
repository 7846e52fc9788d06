"""From the values a tensor was seen to hold to the range that 8 bits will stand for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dyninfer.errors import InputError
from dyninfer.exporters.precision.settings import CalibrationMethod
from dyninfer.types import Float64Array, Int64Array

BINS = 2048  # of a histogram of magnitudes, as in NVIDIA's calibrators
LEVELS = 128  # magnitudes that a signed 8-bit number can tell apart
CANDIDATE_STRIDE = 8  # every so many bins an end of the range is tried
# The method supposes a peak at zero. Of values that lie around another one, such as a sigmoid's, it
# would keep a single part and clip all others to it, for one part equals itself.
LEAST_PERCENT = 99.0
_EPSILON = 1e-9


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


def entropy_limit(counts: Float64Array, levels: int = LEVELS) -> int:
    """The number of leading parts that 8 bits tell apart with the least loss of information.

    For every limit tried, the clipped histogram (what is beyond, added to its last part) is
    compared with itself after merging into ``levels`` by Kullback and Leibler's divergence. The
    first part, mostly zeros that 8 bits hold exactly, takes its neighbour's count.

    Source: Migacz, "8-bit Inference with TensorRT", GTC 2017, slides 36 to 38.
    """
    counts = counts.copy()
    counts[0] = counts[1]
    if not counts.any():  # nothing but zeros and tiny values: nothing is gained by clipping
        return len(counts)
    first = max(levels, percentile_limit(counts, LEAST_PERCENT))
    candidates = [*range(first, len(counts), CANDIDATE_STRIDE), len(counts)]
    losses = [_divergence(counts, size, levels) for size in candidates]
    return int(candidates[int(np.argmin(losses))])


def _divergence(counts: Float64Array, size: int, levels: int) -> float:
    inside = counts[:size]
    reference = inside.copy()
    reference[-1] += counts[size:].sum()
    level = np.arange(size) * levels // size
    total = np.bincount(level, inside, levels)
    occupied = np.bincount(level, inside > 0, levels)
    mean = total / np.maximum(occupied, 1)
    merged = np.where(inside > 0, mean[level], 0.0)
    if not inside.any():
        return np.inf
    p, q = reference / reference.sum(), merged / merged.sum()
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], _EPSILON))).sum())
