"""The analytic model of one image as tables, and a GPU run's report beside it.

``python -m dyninfer.benchmarks.lab.image_report`` prints the tables of docs/one-image-on-a-gpu.md.
With the report of ``make test-gpu`` or ``make test-cuda`` it prints what was measured beside what
was assumed, and what an image would take by either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.lab.image_cost import (
    ASSUMPTIONS,
    GPUS,
    WAYS,
    Coefficients,
    gpu_of,
    stage_works,
)
from dyninfer.benchmarks.lab.published import markdown_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.errors import DyninferError, InputError

HARD_FRACTIONS = (0.0, 0.1, 0.5, 0.9, 1.0)
UNITS = {
    "tflops": "TFLOP/s in fp16",
    "memory_gb_s": "GB/s of the GPU's memory",
    "bus_gb_s": "GB/s of the bus",
    "kernel_us": "us a kernel",
    "call_us": "us of the host a call",
    "wait_us": "us a wait",
    "branch_us": "us a conditional node",
}


def ways_table() -> str:
    """What each way moves, calls and waits for."""
    lines = [
        f"{way.name} | {way.bytes_in / 1e6:.2f} | {way.bytes_out / 1e6:.2f} | "
        f"{8 * way.feature_bytes} bits | {sum(way.calls)} | {1 if way.decides_on_device else 2}"
        for way in WAYS
    ]
    return markdown_table("way | MB in | MB out | features | calls | waits", lines)


def stages_table() -> str:
    """What each stage computes and moves."""
    lines = [
        f"{name} | {work.gflops:.1f} | {work.kernels} | {work.weights / 1e6:.1f} | "
        f"{work.activations / 1e6:.1f} | {work.reads / 1e6:.1f}"
        for name, work in stage_works().items()
    ]
    head = "stage | GFLOPs | kernels | M weights | M values written | M values fetched"
    return markdown_table(head, lines)


def assumed_table() -> str:
    """The coefficients of every GPU."""
    lines = [
        " | ".join([UNITS[name], *(f"{getattr(gpu.coefficients, name):.4g}" for gpu in GPUS)])
        for name in Coefficients.names()
    ]
    return markdown_table(" | ".join(["assumed", *(gpu.name for gpu in GPUS)]), lines)


def times_table() -> str:
    """Milliseconds of the mean image along the hard fraction."""
    lines = []
    for gpu in GPUS:
        for way in WAYS:
            times = [way.mean_ms(gpu.coefficients, hard) for hard in HARD_FRACTIONS]
            cells = (f"{time:.2f}" for time in times)
            lines.append(" | ".join([gpu.name, way.name, *cells]))
    shares = (f"{100 * hard:.0f} % hard" for hard in HARD_FRACTIONS)
    return markdown_table(" | ".join(["GPU", "way", *shares]), lines)


def compare(report: Mapping[str, Any]) -> str:
    """A report's figures beside what the model assumes of its GPU, and an image by either.

    Raises:
        InputError: the report names no GPU, or has no figures that the model knows.
    """
    machine, figures = report.get("machine"), report.get("figures")
    if not isinstance(machine, dict) or not isinstance(figures, dict):
        raise InputError(
            "the report has no machine or no figures, expected what make test-gpu or make "
            "test-cuda writes on a GPU"
        )
    measured = {
        name: float(figures[name])
        for name in Coefficients.names()
        if isinstance(figures.get(name), (int, float)) and figures[name] > 0
    }
    if not measured:
        raise InputError(
            f"the report has none of the figures {', '.join(Coefficients.names())}; was its suite "
            "stopped before it measured them?"
        )
    gpu = gpu_of(str(machine.get("compute_capability")))
    assumed = gpu.coefficients if gpu is not None else None
    title = f"{machine.get('gpu')}, beside " + (gpu.name if gpu else "no GPU of the model")
    return "\n\n".join([title, _figures(assumed, measured), _image(assumed, measured)])


def _figures(assumed: Coefficients | None, measured: Mapping[str, float]) -> str:
    expected = asdict(assumed) if assumed is not None else {}
    lines = []
    for name in Coefficients.names():
        cells = [
            f"{values[name]:.4g}" if name in values else "-" for values in (expected, measured)
        ]
        both = name in expected and name in measured
        ratio = f"{measured[name] / expected[name]:.2f}" if both else "-"
        lines.append(" | ".join([UNITS[name], *cells, ratio]))
    return markdown_table("figure | assumed | measured | measured / assumed", lines)


def _image(assumed: Coefficients | None, measured: Mapping[str, float]) -> str:
    """Easy and hard images by what was assumed, and with what was measured put in its place."""
    if assumed is None:
        lacking = [name for name in Coefficients.names() if name not in measured]
        if lacking:
            return f"no time of an image: {', '.join(lacking)} neither measured nor assumed"
        assumed = Coefficients(**measured)
    found = replace(assumed, **measured)
    lines = []
    for way in WAYS:
        times = [way.ms(c, hard=hard) for hard in (False, True) for c in (assumed, found)]
        lines.append(" | ".join([way.name, *(f"{time:.2f}" for time in times)]))
    head = "Dy-YOLOv7 at 640, ms | easy, assumed | easy, measured | hard, assumed | hard, measured"
    return markdown_table(head, lines)


def read_report(path: Path) -> dict[str, Any]:
    """A report of ``make test-gpu``.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected a report of make test-gpu"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no object; expected a report of make test-gpu")
    return found


def main(
    report: Annotated[
        Path | None, typer.Argument(help="What make test-gpu or make test-cuda wrote.")
    ] = None,
) -> None:
    """Print what one image is expected to cost on four GPUs, or a GPU's report beside it.

    For example: python -m dyninfer.benchmarks.lab.image_report gpu-report.json
    """
    try:
        tables = (
            [ways_table(), stages_table(), assumed_table(), times_table()]
            if report is None
            else [compare(read_report(report))]
        )
    except DyninferError as error:
        Terminal(stderr=True).print(f"error: {error}")
        raise typer.Exit(1) from None
    assumed = "\n".join(f"- {line}" for line in ASSUMPTIONS)
    terminal = Terminal()
    for line in "\n\n".join([*tables, assumed]).splitlines():
        terminal.print(line)


if __name__ == "__main__":
    typer.run(main)
