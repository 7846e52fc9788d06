"""A bundle beside its single graph, called over and over or now and then.

``python -m dyninfer.benchmarks.lab.rates digits everyday -o record.json`` makes the same calls with
nothing between them and after waits, since threads, caches and clocks have gone to sleep by then.
Every contender is a process of its own, and all but one are asleep. The "engines" are those of the
usual bundle, without the checks and copies of its public call.

One process may take half as long again as the next of the same kind, by where its memory happens to
lie, and stays as it is. So every round starts all processes anew, and what counts is the median of
their ratios.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.baselines.contest import Worker
from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.setup import SINGLE_GRAPH, CallKind, Kind
from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.evaluation.interleaved import RatioEstimate, compare, run_rounds
from dyninfer.runtime.engine_choice import EngineChoice

CALLS = {0: 20, 10: 10, 100: 4}
"""Milliseconds between calls -> how many are a turn."""
TURNS = 3
"""Of every contender in the processes of a round; their median counts."""
_SETTLE_S = 0.15
GRAPH = "single graph"


@dataclass(frozen=True)
class Row:
    """Calls of one way after waits of ``gap_ms``; ``ratio`` is to the single graph's time."""

    bundle: str
    way: str
    gap_ms: int
    contender: str
    median_ms: float
    ratio: RatioEstimate


def _turn(worker: Worker, kind: CallKind, way: int, gap_ms: int) -> float:
    """The median of some calls, but for the first, in milliseconds."""
    time.sleep(_SETTLE_S)  # whoever ran before has gone to sleep
    if not gap_ms:
        return worker.run(way, kind, CALLS[gap_ms], wake=True)["ms"]

    def call() -> float:
        time.sleep(gap_ms / 1e3)
        return worker.run(way, kind)["ms"]

    call()
    return median(call() for _ in range(CALLS[gap_ms]))


@contextmanager
def _contenders(bundle: Bundle) -> Iterator[dict[str, tuple[Worker, CallKind]]]:
    """Processes of a bundle, opened as usual and with one thread, and of its single graph."""
    with scratch_folder() as folder, ExitStack() as stack:
        usual, lone = (
            Contestants(bundle.path.resolve(), bundle.manifest, EngineChoice(threads=n), folder)
            for n in (None, 1)
        )
        usual.write_inputs()
        setups = {
            GRAPH: usual.setup_of(SINGLE_GRAPH),
            "bundle": usual.setup(Kind.DYNINFER),
            "bundle, 1 thread": lone.setup(Kind.DYNINFER),
        }
        workers = {who: stack.enter_context(Worker(setup)) for who, setup in setups.items()}
        contenders = {who: (worker, CallKind.API) for who, worker in workers.items()}
        yield {**contenders, "engines": (workers["bundle"], CallKind.ENGINES)}


def rows_of(name: str, rounds: int) -> Iterator[Row]:
    """Of a bundle's ways, at every rate.

    Raises:
        DyninferError: there is no such bundle, or it has no single graph.
    """
    bundle = Bundle.open(name)
    titles = bundle.manifest.way_names
    cases = [(way, gap_ms) for way in range(len(titles)) for gap_ms in CALLS]
    taken: dict[tuple[int, int], dict[str, list[float]]] = {case: {} for case in cases}
    for index in range(rounds):
        with _contenders(bundle) as contenders:
            order = [*contenders, *contenders][index % len(contenders) :][: len(contenders)]
            for case in cases:
                runs = {who: partial(_turn, *contenders[who], *case) for who in order}
                for who, times in run_rounds(runs, TURNS).items():
                    taken[case].setdefault(who, []).append(median(times))
    for (way, gap_ms), times_of in taken.items():
        for who, times in times_of.items():
            ratio = compare(times, times_of[GRAPH])
            yield Row(
                bundle.manifest.name, titles[way], gap_ms, who, round(median(times), 3), ratio
            )


def measure(bundles: Sequence[str], rounds: int) -> dict[str, Any]:
    """The record, and a table on the terminal."""
    rows = [row for name in bundles for row in rows_of(name, rounds)]
    ratios = (row.ratio for row in rows)
    table = make_table(
        "calls, over the single graph's",
        column("bundle", (row.bundle for row in rows), words=True),
        column("way", (row.way for row in rows), words=True),
        column("every", (f"{row.gap_ms} ms" if row.gap_ms else "-" for row in rows)),
        column("contender", (row.contender for row in rows), words=True),
        column("ms", (f"{row.median_ms:.2f}" for row in rows)),
        column("ratio", (f"{r.median:.2f} ({r.low:.2f} to {r.high:.2f})" for r in ratios)),
    )
    print_table(table, Terminal())
    command = ["rates", *bundles, "--rounds", str(rounds)]
    return record_of("calls of a bundle and of its single graph, after waits", command, rows)


def main(
    bundles: Annotated[list[str], typer.Argument(help="Bundles, or names of shipped models.")],
    rounds: Annotated[int, typer.Option(min=2, help="How often all processes start anew.")] = 8,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Where the record goes.")
    ] = None,
) -> None:
    """Time a bundle beside its single graph at several rates."""
    measure_into(output, lambda: measure(bundles, rounds))


if __name__ == "__main__":
    typer.run(main)
