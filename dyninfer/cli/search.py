"""``dyninfer search``: which backbone a device should run, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.table import (
    Pairs,
    Table,
    TextPairs,
    column,
    make_table,
    print_block,
    print_table,
)
from dyninfer.cli.common import parse_image_size, print_json, progress_bar, stdout
from dyninfer.cli.help import Command, Group
from dyninfer.cli.options import JsonOption
from dyninfer.search.cost import Cost, cost_of
from dyninfer.search.score import DRAWS, entropies, sampled_score, weighted
from dyninfer.search.structure import Structure, read_structure

SIZE = (480, 480)
"""Of images, in the published search."""


search_app = typer.Typer(cls=Group, no_args_is_help=True)


@search_app.callback()
def _searches() -> None:
    """Choose a detector's backbone by what it can say, before anything is trained.

    Example: **dyninfer search score found.txt**
    """


@search_app.command(cls=Command, no_args_is_help=True)
def score(
    structure: Annotated[
        Path,
        typer.Argument(
            metavar="STRUCTURE.txt",
            help="A structure text of ZenDet (MAE-DET), or one that a search has written.",
            show_default=False,
        ),
    ],
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size", "--imgsz", help="N or HxW (height first), multiples of 32, for costs."
        ),
    ] = str(SIZE[0]),
    sampled: Annotated[
        bool,
        typer.Option(
            "--sampled",
            help=f"Also measure the score: the mean of {DRAWS} draws of weights and a picture of "
            "the image size.",
        ),
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Print the entropy score of a backbone, its parameters and what a picture costs.

    Flops are counted as the published search does: multiply-accumulates, batch norms, ReLUs and
    pools. Layers are convolutions without the projections of shortcuts.

    Example: **dyninfer search score maedet_s.txt --image-size 800x1280**
    """
    found = read_structure(structure)
    size = parse_image_size(image_size) or SIZE
    cost = cost_of(found, size)
    drawn = _sampled(found, size) if sampled else None
    if json_output:
        print_json(as_data(found, size, cost, drawn))
        return
    facts = [("score", f"{weighted(entropies(found)):.4f}"), *costs(cost)]
    if drawn is not None:
        facts.insert(1, ("sampled", f"{drawn:.4f}, the mean of {DRAWS} draws"))
    title = f"{structure.name} at {size[0]}x{size[1]}"
    stdout.print(title, style="bold")
    print_block(Pairs("", tuple(facts)), stdout)
    stdout.print()
    print_table(_stages_table(found, size), stdout)


def _sampled(structure: Structure, size: tuple[int, int]) -> float:
    with progress_bar(remaining=True) as progress:
        draws = progress.track(range(DRAWS), description="drawing")
        return sum(sampled_score(structure, size, seed) for seed in draws) / DRAWS


def as_data(
    structure: Structure, size: tuple[int, int], cost: Cost, drawn: float | None = None
) -> dict[str, Any]:
    """What is known of a structure, for JSON."""
    stages = [
        {"stride": 2**index, "channels": channels, "entropy": entropy}
        for index, (channels, entropy) in enumerate(
            zip(structure.channels, entropies(structure), strict=True), start=1
        )
    ]
    return {
        "score": weighted(entropies(structure)),
        **({} if drawn is None else {"sampled_score": drawn}),
        "params": cost.parameters,
        "macs": cost.macs,
        "flops": cost.flops,
        "layers": cost.layers,
        "image_size": list(size),
        "stages": stages,
    }


def costs(cost: Cost) -> TextPairs:
    """What a structure costs, in words."""
    return (
        ("parameters", f"{cost.parameters:,}"),
        ("multiply-accumulates", f"{cost.macs:,}"),
        ("flops", f"{cost.flops:,}"),
        ("layers", f"{cost.layers}"),
    )


def _stages_table(structure: Structure, size: tuple[int, int]) -> Table:
    found = entropies(structure)
    strides = [2**index for index in range(1, len(found) + 1)]
    return make_table(
        "",
        column("", (f"C{index}" for index in range(1, len(found) + 1)), words=True),
        column("stride", map(str, strides)),
        column("map", (f"{size[0] // stride}x{size[1] // stride}" for stride in strides)),
        column("channels", (f"{channels:,}" for channels in structure.channels)),
        column("entropy", (f"{entropy:.4f}" for entropy in found)),
    )
