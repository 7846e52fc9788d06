"""``dyninfer export``: a trained checkpoint becomes a bundle."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dyninfer.bundle.folder import SUFFIX
from dyninfer.cli.common import parse_image_size, stderr, stdout
from dyninfer.cli.export_cascade import cascade
from dyninfer.cli.export_run import export_with_progress
from dyninfer.cli.info import print_bundle
from dyninfer.cli.verify import print_summary, refuse_disparity, run_verification

DYNAMICDET_STAGES = 4

export_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
export_app.command(no_args_is_help=True)(cascade)


@export_app.callback()
def _families() -> None:
    """Export a trained checkpoint, or several detectors, to a bundle of separate engines.

    Example: **dyninfer export dynamicdet dy-yolov7.pt -o dy-yolov7.dyn**
    """


@export_app.command(no_args_is_help=True)
def dynamicdet(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="A .pt file of a DynamicDet training.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write; CHECKPOINT's name with .dyn."),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", "--imgsz", help="N or HxW (height first); 640, or 1280 for W6."
        ),
    ] = None,
    class_names: Annotated[
        Path | None,
        typer.Option(
            "--class-names",
            help="A text file, one name per line, or a data set's YAML; COCO's names for 80.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="The YAML of a model with a topology of its own."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the weights, for the manifest.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the bundle with its source at the end."),
    ] = True,
) -> None:
    """Export Dy-YOLOv7, -X, -W6, or a relative with other widths, classes or layers.

    Widths, classes and anchors are read from the weights; no configuration file is needed for
    the three published variants. Nothing that a checkpoint brings is ever run.

    Example: **dyninfer export dynamicdet dy-yolov7.pt -o dy-yolov7.dyn --image-size 384x640**
    """
    from dyninfer.exporters.extras import require_export_extra

    require_export_extra()
    from dyninfer.exporters.dynamicdet.export import DynamicDetOptions
    from dyninfer.exporters.dynamicdet.family import DYNAMICDET

    target = output or Path(checkpoint.stem + SUFFIX)
    options = DynamicDetOptions(
        image_size=parse_image_size(image_size),
        class_names=class_names,
        config=config,
        licence=licence,
        overwrite=overwrite,
    )
    export_with_progress(DYNAMICDET, checkpoint, target, options, DYNAMICDET_STAGES)
    if check:
        _check(target, checkpoint, config)
    stdout.print(f"wrote [bold]{escape(str(target))}[/bold]", soft_wrap=True)
    print_bundle(target)
    hint = f"next: dyninfer predict {target} IMAGE_OR_FOLDER"
    stdout.print(escape(hint), soft_wrap=True)


def _check(bundle: Path, checkpoint: Path, config: Path | None) -> None:
    """A quick verification, where ONNX Runtime is installed."""
    if find_spec("onnxruntime") is None:
        stderr.print(
            "not checked: ONNX Runtime is not installed; "
            r'pip install "dyninfer\[cpu]", then dyninfer verify',
            soft_wrap=True,
        )
        return
    parity = run_verification(bundle, [checkpoint], config, photos=(), random_tensors=2)
    print_summary(parity)
    refuse_disparity(bundle, parity)
