"""``dyninfer export cascade``: two or more ONNX detectors become one bundle."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from dyninfer.bundle.folder import SUFFIX
from dyninfer.cli.common import stdout
from dyninfer.cli.detector_options import gather_sources, with_detector_options
from dyninfer.cli.export_run import export_with_progress
from dyninfer.cli.info import print_bundle
from dyninfer.cli.verify import (
    built_in_photos,
    print_summary,
    refuse_disparity,
    run_verification,
)
from dyninfer.exporters.cascade.options import ClassList

CHECK_NOISE = 2  # random tensors beside the built-in photos


@with_detector_options
def cascade(
    detectors: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ONNX[,OPTION=VALUE...]]...",
            help="The detectors, the cheapest first; options may follow a name, as in "
            "a.onnx,decode=nanodet,size=224.",
            show_default=False,
        ),
    ] = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle to write; the files' names with .dyn."),
    ] = None,
    classes: Annotated[
        ClassList,
        typer.Option(
            "--classes",
            help="The last detector's classes, those that all have, or all.",
        ),
    ] = ClassList.LAST,
    name: Annotated[str | None, typer.Option("--name", help="Name of the bundle.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence of the weights, for the manifest.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle if it exists.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the bundle with its sources at the end."),
    ] = True,
    **of_detectors: str | None,
) -> None:
    """Chain any two (or more) ONNX detectors, the cheap one first; train their router afterwards.

    What a detector's file does not tell is guessed, and what was guessed is said: size, decode of
    the outputs, colours, normalisation, class names. Classes are matched by their names.

    Example: **dyninfer export cascade --first nano.onnx --first-size 224 --second big.onnx
    -o pair.dyn**
    """
    from dyninfer.exporters.extras import require_export_extra

    require_export_extra()
    from dyninfer.exporters.cascade.export import CascadeOptions
    from dyninfer.exporters.cascade.family import CASCADE

    sources = gather_sources(detectors or [], of_detectors)
    target = output or Path("-".join(source.path.stem for source in sources) + SUFFIX)
    options = CascadeOptions(classes, name, licence, overwrite)
    made = export_with_progress(CASCADE, sources, target, options, 2 * len(sources))
    for note in made.notes:
        stdout.print(escape(note), soft_wrap=True)
    if check:
        paths = [source.path for source in sources]
        parity = run_verification(target, paths, None, built_in_photos(), CHECK_NOISE)
        print_summary(parity)
        refuse_disparity(target, parity)
    stdout.print(f"wrote [bold]{escape(str(target))}[/bold]", soft_wrap=True)
    print_bundle(target)
    hint = (
        f"next: dyninfer fit-router {shlex.quote(str(target))} --images PHOTOS "
        "[--annotations COCO.json]"
    )
    stdout.print(escape(hint), soft_wrap=True)
