"""Limits: separate engines are as fast as one graph with an ``If``, on either way."""

from __future__ import annotations

from pathlib import Path

from dyninfer.benchmarks.baselines.contest import SETTLE_MS, Entry
from dyninfer.benchmarks.baselines.names import SINGLE_GRAPH
from dyninfer.benchmarks.baselines.results import DYNINFER
from dyninfer.benchmarks.baselines.run import ROUNDS, run_baselines
from dyninfer.benchmarks.baselines.setup import CallKind
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.errors import InputError

LIMIT = 1.0


def measure(bundle: Path, rounds: int = ROUNDS, settle_ms: float = SETTLE_MS) -> list[LimitResult]:
    """Engines alone, batch 1, each way of the bundle, over the graph's.

    Both leave their outputs in buffers. Meant for the full-size Dy-YOLOv7 at 640x640, whose random
    weights :mod:`dyninfer.benchmarks.lab.random_models` makes.

    Raises:
        InputError: the graph cannot be built from this bundle, or does not run.
    """
    found = run_baselines(bundle, [SINGLE_GRAPH], rounds=rounds, settle_ms=settle_ms, memory=False)
    if SINGLE_GRAPH in found.unavailable:
        raise InputError(f"{bundle} has no single graph: {found.unavailable[SINGLE_GRAPH]}")
    ours, theirs = (Entry(name, CallKind.ENGINES).name for name in (DYNINFER, SINGLE_GRAPH))
    times = {(t.name, t.side): t.times_ms for t in found.times}
    return [
        LimitResult(
            key=f"engines-{ratio.side.replace(' ', '-')}",
            what=f"engines alone, an image at {ratio.side}, over the same "
            "stages in one ONNX graph with If",
            limit=LIMIT,
            measured=ratio.ratio,
            times_ms={name: times[name, ratio.side] for name in (ours, theirs)},
            note=f"batch 1, a process each, in turns; {found.notes[SINGLE_GRAPH]}",
        )
        for ratio in found.ratios
        if ratio.baseline == theirs
    ]
