"""``dyninfer search backbone``: the backbone that can say the most within a budget."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.pareto_chart import pareto_picture
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.cli.common import (
    check_output_file,
    milliseconds,
    parse_image_size,
    print_json,
    progress_bar,
    stdout,
)
from dyninfer.cli.options import JsonOption, with_option_groups
from dyninfer.cli.search import SIZE, as_data, costs
from dyninfer.errors import InputError
from dyninfer.search.budgets import LAYERS, Budgets, Candidate, Measure
from dyninfer.search.cost import Cost
from dyninfer.search.device_table import DeviceTable, read_table, words_of
from dyninfer.search.evolution import EVALUATIONS, SEED, Search, Settings
from dyninfer.search.space import START
from dyninfer.search.state import resume, save
from dyninfer.search.structure import Structure, read_structure

_AT_ONCE = 250  # evaluations between two looks at the clock
_SAVED_EVERY_S = 5.0
_PREFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_NUMBER = re.compile(r"(\d{1,15}\.?\d{0,15}(?:e\d{1,2})?)\s*([kmgt]?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class BudgetOptions:
    """Upper limits; at least one beside that of layers."""

    budget_flops: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Flops of a picture as **search score** counts them, such as 18.8G."
        ),
    ] = None
    budget_params: Annotated[
        str | None, typer.Option(metavar="N", help="Parameters, such as 20M.")
    ] = None
    budget_latency: Annotated[
        str | None,
        typer.Option(
            metavar="MS", help="Milliseconds of a picture by --device-table, such as 8ms."
        ),
    ] = None
    layers: Annotated[int, typer.Option(min=1, help="Convolutions; blocks grow no deeper.")] = (
        LAYERS
    )

    def budgets(self) -> Budgets:
        """What was asked for.

        Raises:
            typer.BadParameter: a number is none, or there is no budget.
        """
        flops = _parse_count("--budget-flops", self.budget_flops)
        parameters = _parse_count("--budget-params", self.budget_params)
        latency_ms = _parse_ms("--budget-latency", self.budget_latency)
        if flops is None and parameters is None and latency_ms is None:
            raise typer.BadParameter(
                "there is no budget: give --budget-flops, --budget-params or --budget-latency"
            )
        return Budgets(flops, parameters, latency_ms, self.layers)


@with_option_groups
def backbone(
    limits: BudgetOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where the structure text goes; the picture (.svg) and the search's state "
            "(.search.json) go beside it.",
        ),
    ] = Path("backbone.txt"),
    device_table: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE.json",
            help="What blocks take on the device, as **dyninfer bench --blocks** has measured it.",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first), multiples of 32, for costs. Default: the device "
            f"table's, or {SIZE[0]}.",
        ),
    ] = None,
    evaluations: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many structures are looked at.")
    ] = EVALUATIONS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same search.")] = SEED,
    start: Annotated[
        Path | None,
        typer.Option(
            metavar="STRUCTURE.txt",
            help="Where to start. Default: the published start network, of 7.75 G flops at 480.",
        ),
    ] = None,
    fine_after: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Coarse to fine: after N evaluations only channels change, neither depths nor "
            "kernels.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew, and replace what is there.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Search for the backbone of the highest entropy score within budgets.

    Space, mutations and selection are those that ZenDet (MAE-DET) has published. A search that was
    stopped goes on when the same command is given again, and so does one that has ended, with more
    --evaluations. The structure text is what **dyninfer search score** reads.

    Example: **dyninfer search backbone --budget-flops 18.8G -o r50-budget.txt**

    Example: **dyninfer search backbone --budget-params 20M --image-size 640 --seed 1 -o small.txt**

    Example: **dyninfer search backbone --budget-latency 40ms --device-table blocks.json**
    """
    budgets = limits.budgets()
    table = _read_table(device_table, budgets)
    begin = START if start is None else read_structure(start)
    size = parse_image_size(image_size) or (SIZE if table is None else table.image_size)
    settings = Settings(budgets, Measure(size, table), begin, seed, fine_after)
    search = _open(settings, output, overwrite=overwrite)
    before = search.evaluations
    _run(search, evaluations, _state_of(output))
    write_atomically(output, search.best.structure.text)
    write_atomically(_picture_of(output), pareto_picture(search))
    if json_output:
        print_json(_data(search, output))
        return
    _show(search, before, output)
    if table is not None:
        stdout.print(f"latency {words_of(table)}", soft_wrap=False)
    stdout.print(f"next: dyninfer search score {shlex.quote(str(output))}")


def _read_table(path: Path | None, budgets: Budgets) -> DeviceTable | None:
    """The device's table, if one was given.

    Raises:
        InputError: there is a budget of latency, and no table.
        ConfigError: it cannot be read.
    """
    if path is not None:
        return read_table(path)
    if budgets.latency_ms is not None:
        raise InputError(
            "--budget-latency needs a table of what blocks take on the device: measure one there "
            "with dyninfer bench --blocks -o blocks.json, and give --device-table blocks.json"
        )
    return None


def _state_of(output: Path) -> Path:
    return output.with_suffix(".search.json")


def _picture_of(output: Path) -> Path:
    return output.with_suffix(".svg")


def _open(settings: Settings, output: Path, *, overwrite: bool) -> Search:
    """The search that was begun there, or a new one.

    Raises:
        InputError: the output cannot be written, or there is a structure that no search has left.
        ConfigError: the search that was begun had other settings.
    """
    state = _state_of(output)
    if output.suffix in (".svg", ".json"):
        raise InputError(f"the output is {output}, expected a name that ends in .txt")
    for path in (output, state, _picture_of(output)):
        check_output_file(path)
    if not overwrite and state.exists():
        return resume(state, settings)
    if not overwrite and output.exists():
        raise InputError(
            f"{output} exists, without the state of a search beside it ({state.name}): choose "
            "another --output, or give --overwrite"
        )
    return Search(settings)


def _run(search: Search, evaluations: int, state: Path) -> None:
    """Search with a bar; whatever stops it, the state is saved."""
    saved, begun_at = time.monotonic(), search.evaluations
    try:
        with progress_bar(remaining=True) as progress:
            task = progress.add_task("searching", total=max(0, evaluations - begun_at))
            while search.evaluations < evaluations:
                search.advance(min(evaluations, search.evaluations + _AT_ONCE))
                progress.update(
                    task,
                    description=f"searching, best {search.best.score:.1f}",
                    completed=search.evaluations - begun_at,
                )
                if time.monotonic() - saved > _SAVED_EVERY_S:
                    save(search, state)
                    saved = time.monotonic()
    finally:
        save(search, state)


def _show(search: Search, before: int, output: Path) -> None:
    best, settings = search.best, search.settings
    size = settings.measure.image_size
    went_on = f", {before:,} of them earlier" if before else ""
    stdout.print(f"score {best.score:.4f} after {search.evaluations:,} evaluations{went_on}")
    rows = _cost_rows(best.cost, best.latency_ms)
    started = _cost_rows(*settings.measure.of(settings.start))
    print_table(
        make_table(
            f"cost at {size[0]}x{size[1]}",
            column("", rows, words=True),
            column("found", rows.values()),
            column("start", started.values()),
            column("budget", _budget_column(settings.budgets, rows)),
        ),
        stdout,
    )
    print_table(_blocks_table(best.structure), stdout)
    stdout.print(f"wrote {output}, {_picture_of(output)} and {_state_of(output)}")


def _cost_rows(cost: Cost, latency_ms: float | None) -> dict[str, str]:
    rows = dict(costs(cost))
    return rows if latency_ms is None else rows | {"latency": f"{latency_ms:.4g} ms"}


def _budget_column(budgets: Budgets, rows: Collection[str]) -> tuple[str, ...]:
    limits = (budgets.parameters, None, budgets.flops, budgets.layers)
    told = ["-" if limit is None else f"{limit:,}" for limit in limits]
    told.append("-" if budgets.latency_ms is None else f"{budgets.latency_ms:.4g} ms")
    return tuple(told[: len(rows)])


def _blocks_table(structure: Structure) -> Table:
    blocks = structure.blocks
    return make_table(
        "blocks",
        column("", ["stem", *(f"block {index}" for index in range(1, len(blocks)))], words=True),
        column("in", (f"{block.inputs:,}" for block in blocks)),
        column("out", (f"{block.outputs:,}" for block in blocks)),
        column("width", (f"{block.width:,}" if block.width else "-" for block in blocks)),
        column("kernel", (f"{block.kernel}" for block in blocks)),
        column("stride", (f"{block.stride}" for block in blocks)),
        column("depth", (f"{block.depth}" for block in blocks)),
    )


def _data(search: Search, output: Path) -> dict[str, Any]:
    best, settings = search.best, search.settings
    return {
        **as_data(best.structure, settings.measure.image_size, best.cost),
        **_latency_data(best),
        "evaluations": search.evaluations,
        "seed": settings.seed,
        "structure": str(output),
        "picture": str(_picture_of(output)),
        "state": str(_state_of(output)),
        "front": [
            {
                "score": each.score,
                "params": each.cost.parameters,
                "flops": each.cost.flops,
                "layers": each.cost.layers,
                **_latency_data(each),
            }
            for each in search.front
        ],
    }


def _latency_data(candidate: Candidate) -> dict[str, float]:
    return {} if candidate.latency_ms is None else {"latency_ms": candidate.latency_ms}


def _parse_ms(option: str, text: str | None) -> float | None:
    """``8ms`` -> 8; a number alone is milliseconds.

    Raises:
        typer.BadParameter: anything else.
    """
    if text is None:
        return None
    value = milliseconds(text)
    if not value:
        raise typer.BadParameter(f"{option} is {text!r}, expected a time such as 8ms or 0.008s")
    return value


def _parse_count(option: str, text: str | None) -> int | None:
    """``18.8G`` -> 18,800,000,000.

    Raises:
        typer.BadParameter: anything else.
    """
    if text is None:
        return None
    match = _NUMBER.fullmatch(text.strip())
    count = round(float(match[1]) * _PREFIXES[match[2].lower()]) if match else 0
    if not 0 < count < 1 << 63:
        raise typer.BadParameter(
            f"{option} is {text!r}, expected a number such as 4G, 20M or 18.8e9"
        )
    return count
