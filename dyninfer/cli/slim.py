"""``dyninfer slim``: a detector that is fast enough, made of one that is not."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyninfer.benchmarks.report.figures import points
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.cli.common import (
    check_output_file,
    expand_sources,
    milliseconds,
    parse_image_size,
    print_json,
    progress_bar,
    stderr,
    stdout,
    warn,
)
from dyninfer.cli.exporting import export_with_progress
from dyninfer.cli.options import JsonOption, with_option_groups
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import average_precision
from dyninfer.evaluation.dataset import Sample, load_samples
from dyninfer.evaluation.outcomes import only_readable
from dyninfer.exporters.extras import require_export_extra
from dyninfer.images.pictures import read_image
from dyninfer.plain_text import counted
from dyninfer.runtime.opening import load
from dyninfer.search.cost import check_size, cost_of

if TYPE_CHECKING:
    from dyninfer.exporters.slim.search import Candidate, Search
    from dyninfer.exporters.slim.task import Target, Task
    from dyninfer.exporters.zendet.export import ZenDetOptions

_RATIO = re.compile(r"(\d{0,3}\.?\d{1,9})\s*(%?)", re.ASCII)
_MINUTES = 30.0
_LEAST_STEPS = 40
_BAR = 1000
_ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class SlimRequest:
    """What is slimmed, for what, and for how long."""

    target_latency: Annotated[
        str,
        typer.Option(
            metavar="RATIO|MS",
            help="What a picture may take: a share of the base's time, such as 0.53 or 53%, or a "
            "time, such as 8ms.",
            show_default=False,
        ),
    ]
    data: Annotated[
        Path,
        typer.Option(
            help="A folder of pictures to learn from; a fifth of them, 300 at most, is held back "
            "and judges students.",
            show_default=False,
        ),
    ]
    structure: Annotated[
        Path | None,
        typer.Option(
            metavar="STRUCTURE.txt",
            help="The structure text that the checkpoint was trained with. Default: the "
            "checkpoint's name with .txt.",
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="What is in the pictures, as **dyninfer eval** reads it. Default: "
            "annotations.json in their folder.",
        ),
    ] = None
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first), multiples of 32, as for **dyninfer export zendet**. "
            "Default: 800x1344.",
        ),
    ] = None
    class_names: Annotated[
        Path | None,
        typer.Option(help="A text file, one name per line; COCO's for 80 or 81 columns."),
    ] = None
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help=f"Time for all of it. Default: {_MINUTES:g}.")
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            min=_LEAST_STEPS, help="Steps of training, instead of a time, of 16 pictures each."
        ),
    ] = None
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of all that is drawn. With --steps and one thread, only what measured times "
            "decide may differ from run to run.",
        ),
    ] = 0
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Of training and of the engines that are timed. Default: all."
        ),
    ] = None


@with_option_groups
def slim(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A GFLV2 detector on a ZenDet (MAE-DET) backbone, as **dyninfer export zendet** "
            "reads it.",
            show_default=False,
        ),
    ],
    *,
    asked: SlimRequest,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The student's checkpoint; its structure (.txt) goes beside it."
        ),
    ] = Path("student.pt"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint that is there.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Search for a student of a detector that is fast enough on this machine.

    Students drop, add, move, thin and widen parts of the network, keep the weights of what is left,
    and learn from labels and from a teacher: a sub-network of the base, trained so that all of its
    sub-networks are good. Each is exported and timed in turns with the base. The best within the
    target is trained for the rest of the time. Distillation, schedule and mutations are ours; that
    students inherit weights, and teachers are elastic, is Joint-DetNAS's.

    The best student so far is always on disk: Ctrl-C keeps it.

    Example: **dyninfer slim base.pt --data train/ --target-latency 0.53 --image-size 640**

    Example: **dyninfer slim base.pt --structure base.txt --data train/ --target-latency 8ms**
    """
    target = _parse_target(asked.target_latency)
    if asked.minutes is not None and asked.steps is not None:
        raise typer.BadParameter("give one of --minutes and --steps")
    size = parse_image_size(asked.image_size)
    require_export_extra("dyninfer slim")
    average_precision((), (), 1)  # says now that what it needs is missing, not after the training
    import torch

    from dyninfer.exporters.zendet.export import ZenDetOptions

    structure = asked.structure or checkpoint.with_suffix(".txt")
    _check_output(output, (checkpoint, structure), overwrite=overwrite)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    options = ZenDetOptions(structure, image_size=size, class_names=asked.class_names)
    with scratch_folder() as folder, _opened(checkpoint, options, asked, target, folder) as task:
        search, best = _run(task, asked, output)
    if task.target.excess(best.latency) > 1:
        warn(
            f"measured again, the student takes {best.latency.ms:.3g} ms, "
            f"{best.latency.ratio.median:.2f} of its base's: more than was asked for"
        )
    if json_output:
        print_json(_data(search, best, output))
    else:
        _show(search, best, output, asked.class_names)


def _parse_target(text: str) -> Target:
    """``0.53`` or ``53%`` -> a share of the base's time; ``8ms`` -> milliseconds.

    Raises:
        typer.BadParameter: anything else.
    """
    from dyninfer.exporters.slim.task import Target

    if text.rstrip().lower().endswith("s") and (ms := milliseconds(text)):
        return Target(ms=ms)
    if match := _RATIO.fullmatch(text.strip()):
        ratio = float(match[1]) / (100 if match[2] else 1)
        if 0 < ratio < 1:
            return Target(ratio=ratio)
    raise typer.BadParameter(
        f"--target-latency is {text!r}, expected a share of the base's time between 0 and 1, such "
        "as 0.53 or 53%, or a time such as 8ms"
    )


def _check_output(output: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Say before the search that its result could not be kept.

    Raises:
        InputError: it could not, or something is there that would be lost.
    """
    texts = output, output.with_suffix(".txt")
    if output.suffix in (".txt", ".dyn"):
        raise InputError(f"the output is {output}, expected a checkpoint's name that ends in .pt")
    for path in texts:
        check_output_file(path)
        if path.resolve() in {source.resolve() for source in sources}:
            raise InputError(f"{path} is the base's own: choose another --output")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists: choose another --output, or give --overwrite")


@contextmanager
def _opened(
    checkpoint: Path, options: ZenDetOptions, asked: SlimRequest, target: Target, folder: Path
) -> Iterator[Task]:
    """The base, exported and opened, with the pictures."""
    from dyninfer.exporters.slim.stopwatch import Stopwatch
    from dyninfer.exporters.slim.task import Task, load_base, split
    from dyninfer.exporters.zendet.export import DETECTOR_SIZE, ZENDET, class_names_of, image_spec

    source = load_base(checkpoint, options.structure)
    names, _ = class_names_of(source.model(), options.class_names)
    size = options.image_size or DETECTOR_SIZE
    check_size(size)
    learned, held_back = split(_read(asked, names), image_spec(size), asked.seed)
    bundle = folder / "base.dyn"
    for note in export_with_progress(ZENDET, checkpoint, bundle, options, 1).notes:
        stderr.print(note)
    with load(bundle, threads=asked.threads) as base:
        picture = read_image(held_back.samples[0].path)
        stopwatch = Stopwatch(base, picture, options, folder, asked.threads)
        yield Task(source, learned, held_back, names, target, stopwatch, asked.seed)


def _read(asked: SlimRequest, class_names: Sequence[str]) -> Sequence[Sample]:
    """The labelled pictures that can be read."""
    annotations = asked.annotations or asked.data / _ANNOTATIONS
    samples = load_samples(expand_sources([asked.data]), annotations, class_names)
    with progress_bar() as progress:
        task = progress.add_task("reading the pictures", total=len(samples.items))
        samples = only_readable(samples, lambda: progress.advance(task))
    for message in samples.warnings:
        warn(message)
    return samples.items


def _run(task: Task, asked: SlimRequest, output: Path) -> tuple[Search, Candidate]:
    """Search with a bar; the best student so far is on disk, whatever stops it."""
    from dyninfer.exporters.slim.learning import Budget
    from dyninfer.exporters.slim.search import Search

    kept: list[Candidate] = []

    def keep(best: Candidate) -> None:
        best.student.save(output)
        kept.append(best)

    seconds = math.inf if asked.steps else 60 * (asked.minutes or _MINUTES)
    with progress_bar(remaining=True) as progress:
        bar = progress.add_task("", total=_BAR)

        def told(words: str, share: float) -> None:
            progress.update(bar, description=words, completed=round(share * _BAR))

        search = Search(task, Budget(asked.steps, seconds), told, keep)
        try:
            return search, search.run()
        except KeyboardInterrupt:
            if kept:
                stderr.print(f"stopped: the best student so far is in {output}")
            raise


def _show(search: Search, best: Candidate, output: Path, class_names: Path | None) -> None:
    size, latency = search.task.image_size, best.latency
    costs = [cost_of(each.student.structure, size) for each in (search.base, best)]
    held_back = counted(len(search.task.held_back.samples), "picture")
    rows = {
        "AP": [points(each.ap) for each in (search.base, best)],
        "ms": [f"{ms:.2f}" for ms in (latency.base_ms, latency.ms)],
        "backbone's parameters": [f"{cost.parameters:,}" for cost in costs],
        "multiply-accumulates": [f"{cost.macs:,}" for cost in costs],
        "layers": [f"{cost.layers}" for cost in costs],
    }
    base, student = zip(*rows.values(), strict=True)
    title = f"on {held_back} held back, at {size[0]}x{size[1]}"
    columns = column("", rows, words=True), column("base", base), column("student", student)
    print_table(make_table(title, *columns), stdout)
    ratio = latency.ratio
    stdout.print(
        f"the student takes {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) of the base's "
        f"time; {counted(len(search.candidates) - 1, 'student')} were tried"
    )
    stdout.print(f"AP of the base when trained on, as the super-network: {points(search.whole_ap)}")
    stdout.print(f"wrote {output} and {output.with_suffix('.txt')}")
    command = ["dyninfer", "export", "zendet", str(output)]
    command += ["--structure", str(output.with_suffix(".txt"))]
    command += ["--image-size", f"{size[0]}x{size[1]}"]
    command += ["--class-names", str(class_names)] if class_names else []
    command += ["-o", str(output.with_suffix(".dyn"))]
    stdout.print(f"next: {shlex.join(command)}", soft_wrap=True)


def _data(search: Search, best: Candidate, output: Path) -> dict[str, Any]:
    return {
        "student": str(output),
        "structure": str(output.with_suffix(".txt")),
        "image_size": list(search.task.image_size),
        "held_back": len(search.task.held_back.samples),
        "seed": search.task.seed,
        "steps": search.budget.done,
        "whole_ap": search.whole_ap,
        "base": _as_data(search.base, search),
        "best": _as_data(best, search),
        "candidates": [_as_data(each, search) for each in search.candidates[1:]],
    }


def _as_data(found: Candidate, search: Search) -> dict[str, Any]:
    cost = cost_of(found.student.structure, search.task.image_size)
    return {
        "ap": found.ap,
        "ms": found.latency.ms,
        "base_ms": found.latency.base_ms,
        "ratio": found.latency.ratio.median,
        "ratio_low": found.latency.ratio.low,
        "ratio_high": found.latency.ratio.high,
        "params": cost.parameters,
        "macs": cost.macs,
        "layers": cost.layers,
        "changes": list(found.changes),
    }
