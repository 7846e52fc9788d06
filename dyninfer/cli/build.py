"""``dyninfer build``: stages to engines, and to other precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.figures import ABSENT, points
from dyninfer.benchmarks.report.table import Table, column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.builds.gate import GateRecord
from dyninfer.builds.search import (
    Difference,
    differences,
    find_build,
    made_for_others,
    nearest_build,
    refusal,
)
from dyninfer.builds.spec import Build, BuildSpec, OpenBuild, describe_plan
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.cli.build_auto import build_auto
from dyninfer.cli.build_gate import asked_limits, find_passed
from dyninfer.cli.build_options import BackendChoice, BuildOptions
from dyninfer.cli.build_run import check_found, plan_build, run_build
from dyninfer.cli.common import flipped, print_json, stderr, stdout, warn
from dyninfer.cli.options import BundleOrNone, JsonOption, with_option_groups
from dyninfer.engines.trt.targets import PRESETS, Preset
from dyninfer.errors import EngineBuildError
from dyninfer.plain_text import counted


@with_option_groups
def build(
    asked: BuildOptions,
    bundle: BundleOrNone = None,
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Only say whether a build fits, and if not, why.")
    ] = False,
    list_targets: Annotated[
        bool, typer.Option("--list-targets", help="Show the devices that --for knows.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Build a bundle's stages for TensorRT or TensorRT-RTX, or convert them to fp16 or int8.

    What was built lies in the bundle's **engines** folder and is used by whatever opens the bundle
    with the same backend, precision and device. TensorRT-RTX needs no GPU to build.

    Example: **dyninfer build dy-yolov7.dyn --backend tensorrt-rtx --for rtx30,rtx40 -p fp16**

    Example: **dyninfer build dy-yolov7.dyn --backend onnxruntime -p int8 --images photos/**

    Example: **dyninfer build dy-yolov7.dyn --backend auto**
    """
    if list_targets or asked.for_ == "list":
        _print_targets(json_output)
    elif bundle is None:
        raise typer.BadParameter("give a bundle to build, or --list-targets")
    elif asked.backend is BackendChoice.AUTO:
        build_auto(bundle, asked, no_build=no_build, json_output=json_output)
    elif no_build:
        _check(bundle, asked, json_output)
    else:
        opened, new = run_build(bundle, asked)
        _show(opened, new=new, json_output=json_output)


def _check(path: Path, asked: BuildOptions, json_output: bool) -> None:
    """Show the build that fits, or print what differs and refuse."""
    bundle, _, wanted = plan_build(path, asked)
    limits = asked_limits(asked, bundle)
    fitting = find_build(bundle, wanted)
    found = fitting if limits is None else find_passed(asked, bundle, wanted, limits)
    if found is None and fitting is not None:
        raise EngineBuildError(
            f"{fitting.path} fits and was not found within the gate {asked.gate}; build it with "
            "--gate, without --no-build"
        )
    if found is not None:
        check_found(found, asked)
        if made_for_others(found.build, wanted):
            warn(
                "its int8 was made for another backend, where it is faster; without --no-build "
                "files are made for this one"
            )
        _show(found, new=False, json_output=json_output)
        return
    nearest = nearest_build(bundle, wanted)
    differing = [] if nearest is None else differences(nearest.spec, wanted)
    if json_output:
        print_json({"fits": False, "differences": [asdict(d) for d in differing]})
    elif nearest is not None:
        _print_refusal(nearest.spec, wanted, differing)
    raise EngineBuildError(refusal(bundle, wanted))


def _show(opened: OpenBuild, *, new: bool, json_output: bool) -> None:
    if json_output:
        document = {"fits": True, "new": new, "folder": str(opened.path)}
        document |= {"fingerprint": opened.build.spec.fingerprint}
        print_json(document | opened.build.model_dump(mode="json"))
        return
    what = "built" if new else "already built"
    stderr.print(f"{what}: {opened.path}")
    _print_build(opened)


def _print_targets(json_output: bool) -> None:
    """The devices that ``--for`` knows."""
    if json_output:
        print_json([{**asdict(p), "sm": p.sm} for p in PRESETS])
        return
    notes = list(dict.fromkeys(preset.note for preset in PRESETS if preset.note))

    def versions(preset: Preset) -> str:
        note = f" ({notes.index(preset.note) + 1})" if preset.note else ""
        first, last = preset.first_tensorrt, preset.last_tensorrt
        if last == "current":
            return f"{first} on{note}"
        return (f"to {last}" if first == "-" else f"{first}-{last}") + note

    table = make_table(
        "Devices for --for",
        column("name", (preset.name for preset in PRESETS), words=True),
        column("devices", (preset.devices for preset in PRESETS), words=True),
        column("sm", (preset.sm.removeprefix("sm") for preset in PRESETS), words=True),
        column("TensorRT", map(versions, PRESETS), words=True),
        column("CUDA", (preset.cuda for preset in PRESETS), words=True),
        column("precisions", (preset.precisions for preset in PRESETS), words=True),
        column("GB", (preset.memory_gb for preset in PRESETS), words=True),
    )
    print_table(table, stdout)
    for number, note in enumerate(notes, 1):
        stdout.print(f"({number}) {note}", soft_wrap=False)
    stdout.print(
        "TensorRT builds on the device itself, so that --for only checks what is there. "
        "TensorRT-RTX builds for sm75, sm80, sm86, sm89, sm120 and sm121 on any machine, for "
        "several in one engine with --for rtx30,rtx40.",
        soft_wrap=False,
    )


def _print_build(opened: OpenBuild) -> None:
    """The stages of one build with what they became."""
    build = opened.build
    kept = build.conversion.kept_high if build.conversion else {}
    layers = [len(kept.get(name, ())) for name in build.stages]
    precisions = [build.spec.precision[name].value for name in build.stages]
    files = [stage.engine or stage.onnx for stage in build.stages.values()]
    columns = [
        column("stage", build.stages, words=True),
        column("precision", precisions, words=True),
        column("kept in float", (f"{n} layer{'s' if n > 1 else ''}" if n else "" for n in layers)),
        column("file", (f"{f.size / 1e6:.1f} MB" if f else "the bundle's" for f in files)),
    ]
    if build.spec.backend != "onnxruntime":
        seconds = (f"{stage.build_seconds:.1f}" for stage in build.stages.values())
        columns.append(column("seconds", seconds))
    print_table(make_table("", *columns), stdout)
    stdout.print(_describe(build))
    parity = opened.parity()
    manifest = Bundle.read(opened.path.parent.parent).manifest
    if parity is not None:
        print_cost(parity, manifest.task)
    if build.gate is not None:
        _print_gate(build.gate, manifest)


def _print_gate(gate: GateRecord, manifest: Manifest) -> None:
    """What was within the gate, on what, and what fell back for that."""
    stdout.print(
        styled(
            "gate ",
            ("passed", "green"),
            f" on {counted(gate.pictures, 'picture')}: {gate.words}; ran on {gate.measured_on}",
        )
    )
    for fall in gate.fell_back:
        stdout.print(
            f"{fall.stage} fell back from {fall.before.value} to {fall.after.value}: {fall.why}"
        )
    if gate.fell_back:
        asked = describe_plan(gate.asked, manifest)
        stdout.print(f"this build is what --precision {asked} opens from now on")


_DIFFERING = {
    Task.DETECT: "detections differ",
    Task.CLASSIFY: "best class differs",
    Task.FEATURES: "maps differ by",
}


def print_cost(parity: Mapping[str, Any], task: Task) -> None:
    """What the precision does to results, exit by exit."""

    def figures(key: str, form: str, unit: str = "") -> list[str]:
        values = [exit_[key] for exit_ in parity["exits"]]
        return [ABSENT if value is None else f"{value:{form}}{unit}" for value in values]

    columns = [column("exit", figures("exit_index", "d"))]
    if task is not Task.FEATURES:
        columns.append(column("confidence off by", figures("score_error_mean", ".4f")))
    if task is Task.DETECT:
        columns.append(column("boxes off by", figures("box_error_mean_px", ".2f", " px")))
    columns.append(column(_DIFFERING[task], figures("disagreement", ".1%")))
    if task is not Task.FEATURES:
        key, score = ("ap", "AP") if task is Task.DETECT else ("top1", "top-1")
        pairs = [(exit_[f"{key}_fp32"], exit_[f"{key}_converted"]) for exit_ in parity["exits"]]
        told = (ABSENT if b is None else f"{points(a)} to {points(b)}" for a, b in pairs)
        columns.append(column(score, told))
    print_table(
        make_table(f"Against fp32, on {counted(parity['pictures'], 'picture')}", *columns), stdout
    )
    for router, flips in parity["flips"].items():
        stdout.print(
            f"{router}: {flipped(flips['flips'], flips['decisions'], parity['pictures'])}, "
            f"{flips['flip_share']:.2%}"
        )


def _describe(build: Build) -> str:
    """A build in one line."""
    spec = build.spec
    parts = [f"{spec.backend} {spec.library_version or ''}".strip()]
    if spec.target is not None:
        parts.append(str(spec.target))
    if spec.batch is not None:
        parts.append(f"batch {spec.batch}")
    parts.append(", ".join(dict.fromkeys(p.value for p in spec.precision.values())))
    parts += [f"{name.replace('_', ' ')} {value}" for name, value in spec.options.items()]
    if build.gate is not None:
        parts.append(f"gate passed: {build.gate.words}")
    return "; ".join(parts)


def builds_table(builds: Mapping[Path, Build]) -> Table:
    """Builds by their folders."""
    files = [
        [f for s in b.stages.values() for f in (s.onnx, s.engine) if f] for b in builds.values()
    ]
    return make_table(
        "Builds",
        column("fingerprint", (folder.name for folder in builds)),
        column("what", map(_describe, builds.values()), words=True),
        column("size", (f"{sum(f.size for f in made) / 1e6:.1f} MB" for made in files)),
    )


def _print_refusal(built: BuildSpec, wanted: BuildSpec, differing: Sequence[Difference]) -> None:
    """Two fingerprints side by side: of the nearest build and of the one that is wanted."""
    table = make_table(
        "No build fits",
        column("", (differs.field.replace("_", " ") for differs in differing), words=True),
        column(f"built {built.folder_name}", (d.built for d in differing), words=True),
        column(f"wanted {wanted.folder_name}", (d.wanted for d in differing), words=True),
    )
    print_table(table, stdout)
