"""Whether a cascade is worth having, in one line each where figures say that it is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dyninfer.bundle.manifest import CascadeRoute, Manifest
from dyninfer.evaluation.interleaved import mean_interval
from dyninfer.evaluation.runs import WayTimes, last_way_alone_ms
from dyninfer.plain_text import counted
from dyninfer.types import Float64Array

COLLAPSED_SPREAD = 1e-4
"""Between the least and the largest easiness; less is what engines round by."""


def no_better(
    metric: str,
    scores: Sequence[float | None],
    names: Sequence[str],
    pictures: int,
    route: Manifest | None = None,
) -> str | None:
    """That the hardest way scores no more than another; None where it does, or unknown.

    ``scores``, in [0, 1], are of every way by ``names`` on the same ``pictures``; without a
    ``route`` the last of them is the hardest.
    """
    hardest = len(scores) - 1 if route is None else route.ways_by_cost[-1]
    last = scores[hardest]
    known = {
        score: names[way]
        for way, score in enumerate(scores)
        if score is not None and way != hardest
    }
    if last is None or not known or max(known) < last:
        return None
    best = max(known)
    cost = "costs accuracy" if best > last else "costs time and gains no accuracy"
    called = "the last exit" if route is None else route.hardest_name
    what = "a cascade" if called == "the last exit" else "choosing it"
    return (
        f"{called} is no better here: {what} {cost} ({metric} {100 * last:.1f}, {known[best]} "
        f"{100 * best:.1f}, on {counted(pictures, 'picture')})"
    )


def not_faster(times: WayTimes, manifest: Manifest) -> str | None:
    """That the break-even is never reached: all easy takes as long as the last network alone."""
    if not isinstance(manifest.route, CascadeRoute):
        return None
    easy_ms, alone_ms = float(np.mean(times.ms[0])), last_way_alone_ms(times, manifest)
    if easy_ms < alone_ms:
        return None
    unsure = easy_ms - alone_ms <= error_of_ends(times)
    doubt = "; the two differ by no more than times vary" if unsure else ""
    return (
        f"do not cascade: with every image easy it is {easy_ms:.2f} ms, and the last exit's "
        f"network alone takes {alone_ms:.2f} ms{doubt}"
    )


def error_of_ends(times: WayTimes) -> float:
    """Milliseconds by which times on the first and on the last way may be off, taken together.

    Half of the 95 % interval of each mean; infinite where a way was timed once.
    """
    intervals = (mean_interval(times.ms[way]) for way in (0, -1))
    return sum((high - low) / 2 for low, high in intervals)


def collapsed(shared: Float64Array) -> str | None:
    """That the easiness (N,) tells no picture from another; None where it does."""
    least, largest = float(shared.min()), float(shared.max())
    if largest - least > COLLAPSED_SPREAD:
        return None
    if least == largest:
        why = "every picture has the same easiness, so HardFraction will be refused"
    else:
        why = f"every easiness is {least:.6f} to {largest:.6f}, so rounding errors decide"
    return f"router collapsed: always the same exit; {why}: train the router again"
