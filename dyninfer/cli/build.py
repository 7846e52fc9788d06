"""``dyninfer build``: stages to engines, and to other precisions."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dyninfer.cli.build_report import print_build, print_refusal, print_targets
from dyninfer.cli.build_request import (
    BuildChoices,
    EngineChoices,
    PictureChoices,
    Request,
)
from dyninfer.cli.common import JsonOption, stderr, stdout
from dyninfer.cli.option_groups import with_option_groups
from dyninfer.errors import EngineBuildError

if TYPE_CHECKING:
    from dyninfer.builds.spec import OpenBuild


@with_option_groups
def build(
    what: BuildChoices,
    engines: EngineChoices,
    pictures: PictureChoices,
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="A bundle folder, NAME.dyn.", show_default=False),
    ] = None,
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
    if list_targets or engines.for_ == "list":
        print_targets(json_output)
    elif bundle is None:
        raise typer.BadParameter("give a bundle to build, or --list-targets")
    elif no_build:
        _check(Request(bundle, what, engines, pictures), json_output)
    else:
        from dyninfer.cli.build_run import run_build

        opened, new = run_build(Request(bundle, what, engines, pictures))
        _show(opened, new=new, json_output=json_output)


def _check(request: Request, json_output: bool) -> None:
    """Show the build that fits, or print what differs and refuse."""
    from dyninfer.builds.search import differences, find_build, nearest_build, refusal
    from dyninfer.cli.build_run import plan_build

    bundle, _, wanted = plan_build(request)
    found = find_build(bundle, wanted)
    if found is not None:
        _show(found, new=False, json_output=json_output)
        return
    nearest = nearest_build(bundle, wanted)
    differing = [] if nearest is None else differences(nearest.spec, wanted)
    if json_output:
        document = {"fits": False, "differences": [asdict(d) for d in differing]}
        stdout.print_json(json.dumps(document))
    elif nearest is not None:
        print_refusal(nearest.spec, wanted, differing)
    raise EngineBuildError(refusal(bundle, wanted))


def _show(opened: OpenBuild, *, new: bool, json_output: bool) -> None:
    if json_output:
        document = {"fits": True, "new": new, "folder": str(opened.path)}
        document |= {"fingerprint": opened.build.spec.fingerprint}
        stdout.print_json(json.dumps(document | opened.build.model_dump(mode="json")))
        return
    what = "built" if new else "already built"
    stderr.print(f"{what}: {escape(str(opened.path))}", soft_wrap=True)
    print_build(opened)
