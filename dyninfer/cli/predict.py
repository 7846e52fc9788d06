"""``dyninfer predict``: annotated pictures, JSON lines and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from dyninfer.cli.common import (
    BackendDeviceOption,
    BackendOption,
    BundleArgument,
    JsonOption,
    PrecisionOption,
    ProviderOption,
    SpeedOption,
    progress_bar,
    read_speed,
    stdout,
    warn,
)
from dyninfer.errors import InputError

if TYPE_CHECKING:
    from dyninfer.bundle.manifest import Manifest
    from dyninfer.cli.results import ResultWriter
    from dyninfer.results.tasks import Options
    from dyninfer.routing.goals import Goal
    from dyninfer.routing.policy import Policy
    from dyninfer.runtime.detector import Detector
    from dyninfer.types import ImageArray


def predict(
    bundle: BundleArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...", help="Pictures, folders or quoted globs.", show_default=False
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the results; a new predictions-N."),
    ] = None,
    speed: SpeedOption = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", "-t", min=0.0, help="Images of less easiness go on."),
    ] = None,
    always_easy: Annotated[
        bool, typer.Option("--always-easy", help="Leave at the first exit, whatever the router.")
    ] = False,
    always_hard: Annotated[
        bool, typer.Option("--always-hard", help="Run to the last exit, whatever the router.")
    ] = False,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", "-c", min=0.0, max=1.0, help="Least; else the bundle's own."),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option("--iou", min=0.0, max=1.0, help="Overlap that suppresses a box; likewise."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, help="Pictures run at once.")] = 8,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Write annotated pictures.")
    ] = True,
    device: BackendDeviceOption = None,
    backend: BackendOption = None,
    provider: ProviderOption = None,
    precision: PrecisionOption = None,
    json_output: JsonOption = False,
) -> None:
    """Detect objects in pictures, or classify them; write annotated copies and JSON lines.

    A picture that cannot be read is reported and skipped; the exit status is then 1.

    Example: **dyninfer predict dy-yolov7.dyn photos/ "more/*.jpg" --speed 30%**
    """
    from dyninfer.cli.results import ResultWriter, free_folder
    from dyninfer.cli.sources import expand_sources
    from dyninfer.runtime.opening import load

    policy = _policy(speed, threshold, always_easy, always_hard)
    paths = expand_sources(sources)
    with load(
        bundle,
        device=device,
        backend=backend,
        provider=provider,
        precision=precision,
        max_batch=batch,
    ) as detector:
        if policy is not None:
            detector.policy = policy
        options = _options(detector.manifest, confidence, iou)
        names = detector.manifest.way_names
        folder = free_folder(output)
        with ResultWriter(folder, paths, names, draw=images, echo=json_output) as writer:
            _run(detector, paths, batch, options, writer)
        _finish(detector, writer, json_output)


def _policy(
    speed: str | None, threshold: float | None, always_easy: bool, always_hard: bool
) -> Policy | Goal | None:
    from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Threshold

    if (speed is not None) + (threshold is not None) + always_easy + always_hard > 1:
        raise typer.BadParameter(
            "give one of --speed, --threshold, --always-easy and --always-hard"
        )
    if speed is not None:
        return read_speed(speed)
    if always_easy:
        return AlwaysEasy()
    if always_hard:
        return AlwaysHard()
    return None if threshold is None else Threshold(threshold)


def _options(manifest: Manifest, confidence: float | None, iou: float | None) -> Options:
    """The bundle's own options, with those that were given in place of its.

    Raises:
        InputError: the bundle finds no boxes, so that they have no meaning.
    """
    from dyninfer.results.postprocess import Postprocess

    own = manifest.use_options
    if confidence is None and iou is None:
        return own
    if not isinstance(own, Postprocess):
        raise InputError(
            f"--confidence and --iou are about boxes, and {manifest.name} finds none (its task "
            f"is {manifest.task.value}); leave them out"
        )
    return replace(
        own,
        confidence=own.confidence if confidence is None else confidence,
        iou=own.iou if iou is None else iou,
    )


def _run(
    detector: Detector,
    paths: Sequence[Path],
    batch: int,
    options: Options,
    writer: ResultWriter,
) -> None:
    import cv2

    log = cv2.utils.logging  # what cannot be decoded is reported by us, in one line
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    with progress_bar() as progress:
        task = progress.add_task("running", total=len(paths))
        for chunk, pictures in _read_batches(paths, batch, writer):
            results = detector.answers(pictures, options=options)
            for path, picture, result in zip(chunk, pictures, results, strict=True):
                writer.write(path, picture, result)
            progress.update(task, completed=writer.seen)


def _read_batches(
    paths: Sequence[Path], size: int, writer: ResultWriter
) -> Iterator[tuple[list[Path], list[ImageArray]]]:
    from dyninfer.images.reading import read_image

    chunk: list[Path] = []
    pictures: list[ImageArray] = []
    for path in paths:
        try:
            pictures.append(read_image(path))
        except InputError as error:
            writer.failures.append(error)
            continue
        chunk.append(path)
        if len(chunk) == size:
            yield chunk, pictures
            chunk, pictures = [], []
    if chunk:
        yield chunk, pictures


def _finish(detector: Detector, writer: ResultWriter, json_output: bool) -> None:
    from dyninfer.cli.results import JSON_LINES
    from dyninfer.cli.summary import summary_table

    if writer.results and not json_output:
        stdout.print(summary_table(detector, writer.results))
        stdout.print(
            f"{sum(map(len, writer.results))} {detector.manifest.task.kind.units} in "
            f"{len(writer.results)} pictures; "
            f"results in [bold]{escape(str(writer.folder))}[/bold] ({JSON_LINES})",
            soft_wrap=True,
        )
    if len(writer.failures) == 1:
        raise writer.failures[0]
    if writer.failures:
        for error in writer.failures:
            warn(error)
        raise InputError(
            f"{len(writer.failures)} of {writer.seen} pictures could not be read (named above)"
        )
