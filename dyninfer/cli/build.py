"""``dyninfer build``: stages to engines, and to other precisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from dyninfer.cli.build_report import print_build, print_refusal, print_targets
from dyninfer.cli.build_request import BackendChoice, Request, parse_bytes
from dyninfer.cli.common import JsonOption, stderr, stdout
from dyninfer.errors import EngineBuildError

_TENSORRT = "TensorRT"
_INT8 = "fp16 and int8"


def build(
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="A bundle folder, NAME.dyn.", show_default=False),
    ] = None,
    backend: Annotated[
        BackendChoice,
        typer.Option("--backend", help="What will run it; with onnxruntime, fp16 and int8 alone."),
    ] = BackendChoice.TENSORRT,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            "-p",
            help="fp32, fp16 or int8 for all stages but routers, or for each: "
            "first=int8,router=fp32,second=fp16. As exported if absent.",
        ),
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option(
            "--for",
            help="Devices by name or compute capability, such as rtx30,rtx40 or sm86; "
            "this machine's GPU if absent. **list** shows all.",
            rich_help_panel=_TENSORRT,
        ),
    ] = None,
    batch: Annotated[
        str,
        typer.Option(
            "--batch", help="Batch sizes, MIN:OPT:MAX; fastest at OPT.", rich_help_panel=_TENSORRT
        ),
    ] = "1:4:16",
    workspace: Annotated[
        str | None,
        typer.Option(
            "--workspace",
            help="Most scratch memory of a kernel, such as 512MB or 2GB; all there is if absent.",
            rich_help_panel=_TENSORRT,
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            "--timing-cache",
            help="File that keeps kernels' times from one build to the next.",
            rich_help_panel=_TENSORRT,
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Engines for later versions of TensorRT too; they bring code that is run when "
            "they are opened.",
            rich_help_panel=_TENSORRT,
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="Engines for every GPU from Ampere on; slower.",
            rich_help_panel=_TENSORRT,
        ),
    ] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images",
            "-i",
            help="Pictures or folders like those that will be seen: int8 takes its ranges from "
            "most of them, the others show what it costs. The built-in photos if absent.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            "--annotations",
            "-a",
            help="COCO JSON of the pictures; adds AP to the comparison with fp32.",
            rich_help_panel=_INT8,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option("--method", help="entropy, percentile or minmax.", rich_help_panel=_INT8),
    ] = "percentile",
    device: Annotated[str, typer.Option("--device", help="GPU to build on.")] = "cuda:0",
    force: Annotated[bool, typer.Option("--force", help="Build even if there is one.")] = False,
    no_build: Annotated[
        bool,
        typer.Option("--no-build", help="Only say whether a build fits, and if not, why."),
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
    """
    if list_targets or for_ == "list":
        print_targets(json_output)
        return
    if bundle is None:
        raise typer.BadParameter("give a bundle to build, or --list-targets")
    request = Request(
        path=bundle,
        backend=backend,
        precision=precision,
        devices=for_,
        batch=batch,
        workspace_bytes=None if workspace is None else parse_bytes(workspace),
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        images=tuple(images or ()),
        annotations=annotations,
        method=method,
        device=device,
        force=force,
    )
    _run(request, no_build, json_output)


def _run(request: Request, no_build: bool, json_output: bool) -> None:
    from dyninfer.cli.build_run import check_build, run_build

    if no_build:
        found = check_build(request)
        if found.build is None:
            if json_output:
                _print_json({"fits": False, "differences": found.differences})
            else:
                print_refusal(found)
            raise EngineBuildError(found.reason)
        opened, new = found.build, False
    else:
        opened, new = run_build(request)
    if json_output:
        _print_json(
            {"fits": True, "new": new, "folder": str(opened.path)}
            | {"fingerprint": opened.build.spec.fingerprint}
            | opened.build.model_dump(mode="json")
        )
        return
    what = "built" if new else "already built"
    stderr.print(f"{what}: {escape(str(opened.path))}", soft_wrap=True)
    print_build(opened)


def _print_json(document: dict[str, Any]) -> None:
    stdout.print_json(json.dumps(document))
