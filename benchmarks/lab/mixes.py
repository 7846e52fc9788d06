"""What each mix of backends and precisions makes of a bundle on this machine's CPU.

``python -m dyninfer.benchmarks.lab.mixes full.dyn -o record.json`` runs them in turns, an easy and
a hard image each, prepared beforehand. Ratios are to ONNX Runtime with the files as they were
exported, within each round. ``--mix auto`` is what ``dyninfer build --backend auto`` has chosen.
``--listed 4`` also runs four hard images as a list and in a loop, as each mix is opened by default.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.latency.statistics import ratio_estimate
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.builds.auto import read_auto
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import InputError
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.types import AnyArray

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


@dataclass(frozen=True)
class Listed:
    """A list of hard images as one mix runs it, over a loop of them."""

    mix: str
    images: int
    max_batch: int
    list_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float


def measure_lists(bundle: Path, mixes: Sequence[str], images: int, rounds: int) -> list[Listed]:
    """A list and a loop in turns, in every mix, after a round that does not count."""
    found = []
    for mix in mixes:
        backend, _, precision = mix.partition(":")
        lists, loops = list[float](), list[float]()
        with load(bundle, backend=backend, precision=precision or None) as detector:
            tensors = _random(detector, images)
            singles = [
                {name: array[row : row + 1] for name, array in tensors.items()}
                for row in range(images)
            ]
            for number in range(rounds + 1):
                turns = [(lists, [tensors]), (loops, singles)]
                for times, calls in turns if number % 2 else turns[::-1]:
                    start = time.perf_counter()
                    for call in calls:
                        detector.infer(call, policy=AlwaysHard())
                    if number:
                        times.append(1e3 * (time.perf_counter() - start))
            most = detector.max_batch
        ratio = ratio_estimate(lists, loops)
        found.append(Listed(mix, images, most, median(lists), ratio.value, ratio.low, ratio.high))
    return found


def _random(detector: Detector, images: int) -> dict[str, AnyArray]:
    """So many prepared images by image input."""
    generator = np.random.default_rng(0)
    return {
        name: generator.random((images, 3, spec.height, spec.width), np.float32)
        for name, spec in detector.manifest.image_inputs.items()
    }


def measure(bundle: Path, mixes: Sequence[str], rounds: int) -> list[Row]:
    """All mixes in turns, each round in another order, after a round that does not count."""
    took: dict[tuple[str, str], list[float]] = {(mix, way): [] for mix in mixes for way in WAYS}
    generator = np.random.default_rng(0)
    with ExitStack() as stack:
        opened = {mix: stack.enter_context(open_mix(bundle, mix)) for mix in mixes}
        images = _random(opened[mixes[0]], 1)
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


def print_lists(lists: Sequence[Listed]) -> None:
    """A line for each mix."""
    for each in lists:
        Terminal().print(
            f"{each.mix}: a list of {each.images} (max_batch {each.max_batch}) takes "
            f"{each.ratio:.2f} ({each.ratio_low:.2f} to {each.ratio_high:.2f}) of a loop"
        )


def main(
    bundle: Annotated[Path, typer.Argument(help="A bundle with two exits.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The record, as JSON.")],
    mix: Annotated[
        list[str] | None,
        typer.Option(help="BACKEND[:PRECISION], the first of which is compared with."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=3)] = 20,
    listed: Annotated[int, typer.Option(min=0, help="Images of a list; 0 for none.")] = 0,
) -> None:
    """Run every mix in turns on this machine's CPU."""
    mixes = mix or list(MIXES)

    def measured() -> dict[str, Any]:
        if len(set(mixes)) < max(2, len(mixes)):
            raise InputError(f"{' '.join(mixes)} are not at least two different mixes")
        rows = measure(bundle, mixes, rounds)
        print_rows(bundle.name, rows)
        also: dict[str, Any] = {}
        if listed:
            lists = measure_lists(bundle, mixes, listed, max(3, rounds // 4))
            print_lists(lists)
            also["lists"] = [asdict(each) for each in lists]
        if "auto" in mixes and (chosen := read_auto(Bundle.read(bundle))) is not None:
            also["auto"] = chosen.model_dump(mode="json")
        words = ["mixes", bundle.name, "-o", output.name]
        words += [f"--mix {shlex.quote(each)}" for each in mixes]
        words += ["--rounds", str(rounds), "--listed", str(listed)]
        what = "An image through each mix of backends, in turns; ratios to the first one's."
        return record_of(what, words, rows, rounds=rounds, **also)

    measure_into(output, measured)


if __name__ == "__main__":
    typer.run(main)
