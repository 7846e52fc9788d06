"""What each mix of backends and precisions makes of a bundle on this machine's CPU.

``python -m dyninfer.benchmarks.lab.mixes full.dyn -o record.json`` runs them in turns, each in a
process of its own, on an easy and a hard image that were prepared beforehand. Ratios are to the
first mix, within each round: by default ONNX Runtime with the files as they were exported.
``--mix auto`` is what ``dyninfer build --backend auto`` has chosen. ``--mix pytorch-eager --source
full.pt`` is the model as PyTorch loads it, to which all ratios are taken as well.
``--listed 4`` also runs four hard images as a list and in a loop, as each mix is opened by default.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.baselines.contest import Contest, ContestTimes, Entry
from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.setup import CallKind, Kind
from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.latency.statistics import ratio_estimate
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.builds.auto import read_auto
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.errors import InputError
from dyninfer.routing.policy import AlwaysHard
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.runtime.opening import load
from dyninfer.types import AnyArray

MIXES = ("onnxruntime", "openvino", "openvino:bf16")
WAYS = ("easy", "hard")
EAGER = Kind.EAGER.value


@dataclass(frozen=True)
class Row:
    """One mix on one way: milliseconds of an image, and their ratio to the first mix's.

    ``of_eager`` is that to the model as PyTorch loads it, where it was run.
    """

    mix: str
    way: str
    median_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    of_eager: float | None = None
    of_eager_low: float | None = None
    of_eager_high: float | None = None


def engine_of(mix: str) -> EngineChoice:
    """``BACKEND[:PRECISION]``, as :func:`dyninfer.load` takes each."""
    backend, _, precision = mix.partition(":")
    return EngineChoice(backend=backend, precision=precision or None)


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
        engine = engine_of(mix)
        lists, loops = list[float](), list[float]()
        with load(bundle, backend=engine.backend, precision=engine.precision) as detector:
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


def measure(bundle: Path, mixes: Sequence[str], sources: Sequence[Path], rounds: int) -> list[Row]:
    """All mixes in turns, each round in another order.

    Raises:
        InputError: one of them cannot be run.
    """
    manifest = Bundle.read(bundle).manifest
    rows = []
    with scratch_folder() as folder, Contest() as contest:
        shared = Contestants(bundle, manifest, EngineChoice(), folder, tuple(sources))
        shared.write_inputs()
        for mix in mixes:
            own = shared if mix == EAGER else replace(shared, engine=engine_of(mix))
            contest.open(mix, own.setup(Kind.EAGER if mix == EAGER else Kind.DYNINFER))
        entries = [Entry(mix, CallKind.API) for mix in mixes]
        for way, name in zip(manifest.ways_by_cost, WAYS, strict=True):
            times = contest.time_in_turns(entries, way, rounds)
            for mix, why in contest.unavailable.items():
                raise InputError(f"mix {mix} cannot be run: {why}")
            rows += rows_of(name, times)
    return rows


def rows_of(way: str, times: Sequence[ContestTimes]) -> list[Row]:
    """The times of one way; the first are those that ratios are taken to."""
    eager = [found.times_ms for found in times if found.entry.contender == EAGER]
    rows = []
    for found in times:
        bases = [times[0].times_ms, *eager]
        ratios = [ratio_estimate(found.times_ms, base) for base in bases]
        numbers = (number for r in ratios for number in (r.value, r.low, r.high))
        rows.append(Row(found.entry.name, way, median(found.times_ms), *numbers))
    return rows


def print_rows(name: str, rows: Sequence[Row]) -> None:
    """The table."""
    columns = [
        column("mix", (row.mix for row in rows), words=True),
        column("way", (row.way for row in rows), words=True),
        column("ms", (f"{row.median_ms:.2f}" for row in rows)),
        column("ratio", (f"{row.ratio:.2f}" for row in rows)),
        column("95 %", (f"{row.ratio_low:.2f} to {row.ratio_high:.2f}" for row in rows)),
    ]
    of_eager = [f"{row.of_eager:.2f}" for row in rows if row.of_eager is not None]
    if of_eager:
        columns.append(column("of eager", of_eager))
    print_table(make_table(name, *columns), Terminal())


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
        typer.Option(help=f"BACKEND[:PRECISION] or {EAGER}, the first of which is compared with."),
    ] = None,
    source: Annotated[
        list[Path] | None, typer.Option(help=f"What the bundle was exported from, for {EAGER}.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=3)] = 20,
    listed: Annotated[int, typer.Option(min=0, help="Images of a list; 0 for none.")] = 0,
) -> None:
    """Run every mix in turns on this machine's CPU."""
    mixes = mix or list(MIXES)

    def measured() -> dict[str, Any]:
        if len(set(mixes)) < max(2, len(mixes)):
            raise InputError(f"{' '.join(mixes)} are not at least two different mixes")
        rows = measure(bundle, mixes, source or (), rounds)
        print_rows(bundle.name, rows)
        also: dict[str, Any] = {}
        if listed:
            own = [each for each in mixes if each != EAGER]
            lists = measure_lists(bundle, own, listed, max(3, rounds // 4))
            print_lists(lists)
            also["lists"] = [asdict(each) for each in lists]
        if "auto" in mixes and (chosen := read_auto(Bundle.read(bundle))) is not None:
            also["auto"] = chosen.model_dump(mode="json")
        words = ["mixes", bundle.name, "-o", output.name]
        words += [f"--mix {shlex.quote(each)}" for each in mixes]
        words += [f"--source {shlex.quote(path.name)}" for path in source or ()]
        words += ["--rounds", str(rounds), "--listed", str(listed)]
        what = "An image through each mix of backends, in turns; ratios to the first one's"
        what += " and to the model as PyTorch loads it." if EAGER in mixes else "."
        return record_of(what, words, rows, rounds=rounds, **also)

    measure_into(output, measured)


if __name__ == "__main__":
    typer.run(main)
