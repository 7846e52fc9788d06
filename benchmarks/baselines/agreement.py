"""Whether two contenders compute the same thing: nobody is to be compared with something else."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.baselines.setup import Arrays

TOLERANCE = 1e-3
"""Float32 rounding through a hundred layers, in another order, stays a tenth of this below the
largest value (the exports' own verification has seen 1e-4); a wrong route or weight is far above.
"""


def largest_difference(reference: Arrays, found: Arrays) -> float | None:
    """Largest difference of any output, relative to the largest value of that output.

    Outputs that only one has do not count. None where nothing can be compared: no output is
    common, or a common one has another shape; infinity where only one of the two has a NaN.
    """
    common = [name for name in reference if name in found]
    if not common or any(reference[name].shape != found[name].shape for name in common):
        return None
    return max(_difference(reference[name], found[name]) for name in common)


def _difference(reference: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    ours, theirs = reference.astype(np.float64), found.astype(np.float64)
    if not ours.size:
        return 0.0
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return float("inf")
    finite = np.isfinite(ours)
    scale = float(np.abs(ours[finite]).max(initial=0.0))
    largest = float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0))
    return largest / scale if scale else largest
