"""``dyninfer bench --blocks``: what blocks of backbones take on this device."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.cli.common import (
    check_output_file,
    parse_image_size,
    print_json,
    progress_bar,
    stdout,
)
from dyninfer.engines import BACKENDS, open_backend
from dyninfer.errors import InputError, MissingExtra
from dyninfer.images.spec import MAX_SIDE
from dyninfer.installing import pip_install
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.search.cost import check_size, cost_of
from dyninfer.search.device_table import DeviceTable, words_of
from dyninfer.search.structure import parse_structure

if TYPE_CHECKING:
    from dyninfer.benchmarks.blocks.take import Progress

OUTPUT, SIZE = Path("blocks.json"), (640, 640)


def bench_blocks(
    image_size: str | None,
    output: Path | None,
    engine: EngineChoice,
    *,
    quick: bool,
    json_output: bool,
) -> None:
    """Measure and write a device's table, and say how far predictions by it are off.

    Raises:
        InputError: the image size or the output cannot be used.
        MissingExtra: ``onnx`` is not installed.
    """
    size = parse_image_size(image_size) or SIZE
    check_size(size)
    if max(size) > MAX_SIDE:
        raise InputError(f"the image size is {size[0]}x{size[1]}, expected up to {MAX_SIDE} pixels")
    path = output or OUTPUT
    check_output_file(path)
    if output is None and path.exists():
        raise InputError(f"{path} exists; give --output to replace it, or another name")
    if engine.backend not in (None, *BACKENDS):
        raise typer.BadParameter(
            f"--backend is {engine.backend!r}, expected for --blocks one of {', '.join(BACKENDS)}"
        )
    if find_spec("onnx") is None:
        raise MissingExtra(f"--blocks writes ONNX files; install onnx: {pip_install('export')}")
    table = _measure(size, engine, quick=quick)
    write_atomically(path, table.document.model_dump_json(indent=1) + "\n")
    if json_output:
        print_json(table.document.model_dump(mode="json"))
        return
    pieces = len(table.document.pieces)
    stdout.print(f"{pieces} blocks of images of {size[0]}x{size[1]}", style="bold")
    print_table(_networks_table(table), stdout)
    stdout.print(f"latency {words_of(table)}", soft_wrap=False)
    stdout.print(f"wrote {path}")
    stdout.print(
        "next: dyninfer search backbone --budget-latency MS --device-table "
        f"{shlex.quote(str(path))}"
    )


def _measure(size: tuple[int, int], engine: EngineChoice, *, quick: bool) -> DeviceTable:
    from dyninfer.benchmarks.blocks.take import take_table

    backend = open_backend(engine.backend, engine.device, engine.provider)
    try:
        with progress_bar(remaining=True) as progress:
            task = progress.add_task("measuring blocks", total=None)
            on_step: Progress = lambda what, done, total: progress.update(  # noqa: E731
                task, description=what, completed=done, total=total
            )
            return take_table(backend, size, on_step, quick=quick)
    finally:
        backend.close()


def _networks_table(table: DeviceTable) -> Table:
    """Whole backbones, measured and predicted."""
    rows = [(parse_structure(entry.structure), entry.ms) for entry in table.document.networks]
    predicted = [table.latency_ms(structure) for structure, _ in rows]
    return make_table(
        "whole backbones",
        column("macs", (f"{cost_of(s, table.image_size).macs / 1e9:.2f} G" for s, _ in rows)),
        column("measured", (f"{ms:.4g} ms" for _, ms in rows)),
        column("predicted", (f"{ms:.4g} ms" for ms in predicted)),
        column(
            "off by", (f"{p / ms - 1:+.0%}" for p, (_, ms) in zip(predicted, rows, strict=True))
        ),
    )
