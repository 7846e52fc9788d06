"""Non-negative least squares for a handful of unknowns, with NumPy alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from dyninfer.types import Float64Array


def nonnegative_least_squares(columns: Float64Array, wanted: Float64Array) -> Float64Array:
    """The x >= 0 that makes ``columns @ x`` nearest to ``wanted``.

    At the optimum some unknowns are 0 and the others solve the unconstrained problem (Lawson and
    Hanson, Solving Least Squares Problems, 1974, chapter 23). With n unknowns there are 2^n choices
    of which; all are tried, which for the few unknowns of a step is quick and needs no tolerance.
    """
    unknowns = columns.shape[1]
    best, least = np.zeros(unknowns), float(wanted @ wanted)
    for count in range(1, unknowns + 1):
        for kept in map(list, combinations(range(unknowns), count)):
            found = np.linalg.lstsq(columns[:, kept], wanted, rcond=None)[0]
            if (found < 0).any():
                continue
            missed = wanted - columns[:, kept] @ found
            if float(missed @ missed) < least:
                best, least = np.zeros(unknowns), float(missed @ missed)
                best[kept] = found
    return best
