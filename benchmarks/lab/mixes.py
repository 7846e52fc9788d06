"""What each mix of backends and precisions makes of a bundle on this machine's CPU.

``python -m dyninfer.benchmarks.lab.mixes full.dyn -o record.json`` runs them in turns, an easy and
a hard image each, prepared beforehand. Ratios are to ONNX Runtime with the files as they were
exported, within each round.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.latency.statistics import ratio_estimate
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.errors import InputError
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

MIXES = ("onnxruntime", "openvino", "openvino:bf16")
WAYS: dict[str, Policy] = {"easy": AlwaysEasy(), "hard": AlwaysHard()}


@dataclass(frozen=True)
class Row:
    """One mix on one way: milliseconds of an image, and their ratio to the first mix's."""

    mix: str
    way: str
    median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def open_mix(bundle: Path, mix: str) -> Detector:
    """``BACKEND[:PRECISION]``, as :func:`dyninfer.load` takes each."""
    backend, _, precision = mix.partition(":")
    return load(bundle, backend=backend, precision=precision or None, max_batch=1)


def measure(bundle: Path, mixes: Sequence[str], rounds: int) -> list[Row]:
    """All mixes in turns, each round in another order, after a round that does not count."""
    took: dict[tuple[str, str], list[float]] = {(mix, way): [] for mix in mixes for way in WAYS}
    generator = np.random.default_rng(0)
    with ExitStack() as stack:
        opened = {mix: stack.enter_context(open_mix(bundle, mix)) for mix in mixes}
        specs = opened[mixes[0]].manifest.image_inputs
        images = {
            name: generator.random((1, 3, spec.height, spec.width), np.float32)
            for name, spec in specs.items()
        }
        for number in range(rounds + 1):
            for place in generator.permutation(len(mixes)):
                for way, policy in WAYS.items():
                    start = time.perf_counter()
                    opened[mixes[place]].infer(images, policy=policy)
                    if number:
                        took[mixes[place], way].append(1e3 * (time.perf_counter() - start))
    rows = []
    for (mix, way), times in took.items():
        ratio = ratio_estimate(times, took[mixes[0], way])
        rows.append(Row(mix, way, median(times), ratio.value, ratio.low, ratio.high))
    return rows


def print_rows(name: str, rows: Sequence[Row]) -> None:
    """The table."""
    print_table(
        make_table(
            name,
            column("mix", (row.mix for row in rows), words=True),
            column("way", (row.way for row in rows), words=True),
            column("ms", (f"{row.median_ms:.2f}" for row in rows)),
            column("ratio", (f"{row.ratio:.2f}" for row in rows)),
            column("95 %", (f"{row.ratio_low:.2f} to {row.ratio_high:.2f}" for row in rows)),
        ),
        Terminal(),
    )


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with two exits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The record, as JSON.")],
    mix: Annotated[
        list[str] | None,
        typer.Option(help="BACKEND[:PRECISION], the first of which is compared with."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3)] = 20,
) -> None:
    """Run every mix in turns on this machine's CPU."""
    mixes = mix or list(MIXES)

    def measured() -> dict[str, Any]:
        if len(set(mixes)) < max(2, len(mixes)):
            raise InputError(f"{' '.join(mixes)} are not at least two different mixes")
        rows = measure(bundle, mixes, rounds)
        print_rows(bundle.name, rows)
        words = ["mixes", bundle.name, "-o", output.name]
        words += [f"--mix {shlex.quote(each)}" for each in mixes]
        what = "An image through each mix of backends, in turns; ratios to the first one's."
        return record_of(what, words, rows, rounds=rounds)

    measure_into(output, measured)


if __name__ == "__main__":
    typer.run(main)
