"""Tables of ``dyninfer build`` and of the builds that ``dyninfer info`` lists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from dyninfer.cli.common import stdout

if TYPE_CHECKING:
    from dyninfer.builds.search import Difference
    from dyninfer.builds.spec import Build, BuildSpec, OpenBuild
    from dyninfer.engines.trt.targets import Preset


def print_targets(json_output: bool) -> None:
    """The devices that ``--for`` knows."""
    from dyninfer.engines.trt.targets import PRESETS

    if json_output:
        stdout.print_json(json.dumps([{**asdict(p), "sm": p.sm} for p in PRESETS]))
        return
    table = Table(
        title="Devices for --for",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold underline",
    )
    for column in ("name", "devices", "sm", "TensorRT", "CUDA", "precisions", "GB"):
        table.add_column(column, no_wrap=True)
    notes: list[str] = []
    for preset in PRESETS:
        if preset.note and preset.note not in notes:
            notes.append(preset.note)
        table.add_row(
            preset.name,
            preset.devices,
            preset.sm.removeprefix("sm"),
            _versions(preset) + (f" ({notes.index(preset.note) + 1})" if preset.note else ""),
            preset.cuda,
            preset.precisions,
            preset.memory_gb,
        )
    stdout.print(table)
    for number, note in enumerate(notes, 1):
        stdout.print(f"({number}) {escape(note)}")
    stdout.print(
        "TensorRT builds on the device itself, so that --for only checks what is there. "
        "TensorRT-RTX builds for sm75, sm80, sm86, sm89, sm120 and sm121 on any machine, for "
        "several in one engine with --for rtx30,rtx40."
    )


def _versions(preset: Preset) -> str:
    if preset.last_tensorrt == "current":
        return f"{preset.first_tensorrt} on"
    first = "" if preset.first_tensorrt == "-" else f"{preset.first_tensorrt}-"
    return f"{first}{preset.last_tensorrt}" if first else f"to {preset.last_tensorrt}"


def print_build(opened: OpenBuild) -> None:
    """The stages of one build with what they became."""
    build = opened.build
    table = Table("stage", "precision", "kept in fp32")
    engines = build.spec.backend != "onnxruntime"
    for column in ("file", *(["seconds"] if engines else [])):
        table.add_column(column, justify="right")
    kept = build.conversion.kept_high if build.conversion else {}
    for name, stage in build.stages.items():
        row = [escape(name), build.spec.precision[name].value]
        layers = len(kept.get(name, ()))
        row.append(f"{layers} layer{'s' if layers > 1 else ''}" if layers else "")
        file = stage.engine or stage.onnx
        row.append("the bundle's" if file is None else f"{file.size / 1e6:.1f} MB")
        table.add_row(*row, *([f"{stage.build_seconds:.1f}"] if engines else []))
    stdout.print(table)
    stdout.print(escape(describe_build(build)), soft_wrap=True)
    parity = opened.parity()
    if parity is not None:
        _print_cost(parity)


def _print_cost(parity: Mapping[str, Any]) -> None:
    """What the precision does to results, exit by exit."""
    labelled = any(exit_["ap_converted"] is not None for exit_ in parity["exits"])
    table = Table(title=f"Against fp32, on {parity['pictures']} pictures", title_justify="left")
    columns = ("exit", "confidence off by", "boxes off by", "detections differ")
    for column in (*columns, "AP") if labelled else columns:
        table.add_column(column, justify="right")
    for exit_ in parity["exits"]:
        precisions = [exit_["ap_fp32"], exit_["ap_converted"]]
        ap = " to ".join("-" if p is None else f"{100 * p:.1f}" for p in precisions)
        table.add_row(
            str(exit_["exit_index"]),
            _figure(exit_["score_error_mean"], ".4f"),
            _figure(exit_["box_error_mean_px"], ".2f", " px"),
            _figure(exit_["disagreement"], ".1%"),
            *([ap] if labelled else []),
        )
    stdout.print(table)
    for router, flips in parity["flips"].items():
        stdout.print(
            f"{escape(router)}: {flips['flips']} of {flips['decisions']} decisions flip "
            f"({flips['flip_share']:.2%})"
        )


def _figure(value: float | None, form: str, unit: str = "") -> str:
    """A number, or a dash where nothing was found to measure it on."""
    return "-" if value is None else f"{value:{form}}{unit}"


def describe_build(build: Build) -> str:
    """A build in one line."""
    spec = build.spec
    parts = [f"{spec.backend} {spec.library_version or ''}".strip()]
    if spec.target is not None:
        parts.append(str(spec.target))
    if spec.batch is not None:
        parts.append(f"batch {spec.batch}")
    parts.append(", ".join(dict.fromkeys(p.value for p in spec.precision.values())))
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in spec.options.items()]
    return "; ".join(parts)


def builds_table(builds: Sequence[tuple[str, Build]]) -> Table:
    """Builds by the names of their folders."""
    table = Table(title="Builds", title_justify="left")
    table.add_column("fingerprint", no_wrap=True)
    table.add_column("what")
    table.add_column("size", justify="right", no_wrap=True)
    for folder, build in builds:
        files = [f for s in build.stages.values() for f in (s.onnx, s.engine) if f is not None]
        table.add_row(
            escape(folder),
            escape(describe_build(build)),
            f"{sum(file.size for file in files) / 1e6:.1f} MB",
        )
    return table


def print_refusal(built: BuildSpec, wanted: BuildSpec, differing: Sequence[Difference]) -> None:
    """Two fingerprints side by side: of the nearest build and of the one that is wanted."""
    columns = ("", f"built {built.folder_name}", f"wanted {wanted.folder_name}")
    table = Table(*columns, title="No build fits", title_justify="left")
    for differs in differing:
        field = differs.field.replace("_", " ")
        table.add_row(field, escape(differs.built), escape(differs.wanted))
    stdout.print(table)
