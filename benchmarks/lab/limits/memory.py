"""Limit: a process with separate engines needs no more memory than one with a single graph."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from dyninfer.benchmarks.baselines.contest import measure_memory
from dyninfer.benchmarks.baselines.names import SINGLE_GRAPH
from dyninfer.benchmarks.baselines.prepare import Contestants
from dyninfer.benchmarks.baselines.results import DYNINFER
from dyninfer.benchmarks.baselines.setup import Kind, Setup
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.bundle.folder import Bundle
from dyninfer.evaluation.interleaved import compare, run_rounds
from dyninfer.runtime.engine_choice import EngineChoice

LIMIT = 1.0


def measure(bundle: Path, rounds: int) -> list[LimitResult]:
    """Peak memory of dyninfer over that of the single graph, in fresh processes, in turns.

    A process opens its contender and runs every way three times in turns; its largest resident
    set counts, Python and libraries included. The single graph has the thread pool with which it
    needs less.

    Raises:
        DyninferError: the graph cannot be built from this bundle, or a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="dyninfer-memory-") as folder:
        manifest = Bundle.open(bundle).manifest
        plan = Contestants(bundle.resolve(), manifest, EngineChoice(), Path(folder))
        plan.write_inputs()
        setups = [plan.setup(Kind.DYNINFER), *plan.setups_of(SINGLE_GRAPH)]
        runs = {setup.kind.value: partial(_peak_mib, setup, len(manifest.ways)) for setup in setups}
        mib = run_rounds(runs, rounds)
    graphs = {name: found for name, found in mib.items() if name != DYNINFER}
    best = min(graphs, key=lambda name: sum(graphs[name]))
    return [
        LimitResult(
            key="memory",
            what="peak memory over that of the same stages in one ONNX graph with If",
            limit=LIMIT,
            measured=compare(mib[DYNINFER], graphs[best]),
            times_ms=mib,
            note=f"MiB in place of milliseconds; compared with {best}, the smaller one",
        )
    ]


def _peak_mib(setup: Setup, ways: int) -> float:
    return measure_memory(setup.kind.value, setup, ways).peak_mib
