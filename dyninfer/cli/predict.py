"""``dyninfer predict``: annotated pictures, JSON lines and a summary."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import numpy as np
import typer
from rich.table import Table

from dyninfer.cli.common import (
    BundleArgument,
    DeviceOption,
    JsonOption,
    ProviderOption,
    progress_bar,
    stdout,
    warn,
)
from dyninfer.errors import InputError

if TYPE_CHECKING:
    from dyninfer.detector import Detector
    from dyninfer.policy import Policy
    from dyninfer.types import Detections, ImageArray

JSON_LINES = "predictions.jsonl"


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
        float, typer.Option("--confidence", "-c", min=0.0, max=1.0, help="Least confidence.")
    ] = 0.25,
    iou: Annotated[
        float, typer.Option("--iou", min=0.0, max=1.0, help="Overlap that suppresses a box.")
    ] = 0.45,
    batch: Annotated[int, typer.Option("--batch", "-b", min=1, help="Pictures run at once.")] = 8,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Write annotated pictures.")
    ] = True,
    device: DeviceOption = "cpu",
    provider: ProviderOption = None,
    json_output: JsonOption = False,
) -> None:
    """Detect objects in pictures; write annotated copies and one JSON line for each.

    A picture that cannot be read is reported and skipped; the exit status is then 1.

    Example: **dyninfer predict dy-yolov7.dyn photos/ "more/*.jpg" --threshold 0.42**
    """
    from dyninfer.cli.sources import expand_sources
    from dyninfer.detector import load
    from dyninfer.postprocess import Postprocess

    policy = _policy(threshold, always_easy, always_hard)
    paths = expand_sources(sources)
    options = Postprocess(confidence=confidence, iou=iou)
    with load(bundle, device=device, provider=provider, max_batch=batch) as detector:
        if policy is not None:
            detector.policy = policy
        folder = _output_folder(output)
        writer = _Writer(folder, annotated=images)
        with progress_bar() as progress, (folder / JSON_LINES).open("w", encoding="utf-8") as file:
            task = progress.add_task("detecting", total=len(paths))
            for chunk, pictures in _read_batches(paths, batch, writer):
                results = detector(pictures, options=options)
                writer.write(chunk, pictures, results, file, json_output)
                progress.update(task, completed=writer.seen)
        _finish(detector, writer, json_output)


def _policy(threshold: float | None, always_easy: bool, always_hard: bool) -> Policy | None:
    from dyninfer.policy import AlwaysEasy, AlwaysHard, Threshold

    if (threshold is not None) + always_easy + always_hard > 1:
        raise typer.BadParameter("give one of --threshold, --always-easy and --always-hard")
    if always_easy:
        return AlwaysEasy()
    if always_hard:
        return AlwaysHard()
    return None if threshold is None else Threshold(threshold)


def _output_folder(given: Path | None) -> Path:
    """The folder asked for, or the first of predictions, predictions-2, ... that is free."""
    folder = given or Path("predictions")
    number = 1
    while given is None and folder.exists():
        number += 1
        folder = Path(f"predictions-{number}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be made: {error.strerror}") from None
    return folder


class _Writer:
    """Writes results as they come and remembers what the summary needs."""

    def __init__(self, folder: Path, *, annotated: bool) -> None:
        self.folder = folder
        self.annotated = annotated
        self.results: list[Detections] = []
        self.failures = 0
        self._names: Counter[str] = Counter()

    @property
    def seen(self) -> int:
        """Pictures done, those that failed included."""
        return len(self.results) + self.failures

    def fail(self, error: InputError) -> None:
        """Report a picture that cannot be read."""
        self.failures += 1
        warn(error)

    def write(
        self,
        paths: Sequence[Path],
        pictures: Sequence[ImageArray],
        results: Sequence[Detections],
        file: TextIO,
        echo: bool,
    ) -> None:
        """One JSON line, and if asked an annotated picture, for each result."""
        for path, picture, result in zip(paths, pictures, results, strict=True):
            height, width = picture.shape[:2]
            record = {"image": str(path), "width": width, "height": height, **result.to_dict()}
            if self.annotated:
                record["annotated"] = self._write_picture(path, picture, result)
            line = json.dumps(record, ensure_ascii=False)
            file.write(line + "\n")
            if echo:
                typer.echo(line)
            self.results.append(result)

    def _write_picture(self, path: Path, picture: ImageArray, result: Detections) -> str:
        import cv2

        from dyninfer.annotate import annotate

        self._names[path.stem] += 1
        count = self._names[path.stem]
        name = f"{path.stem}.jpg" if count == 1 else f"{path.stem}-{count}.jpg"
        done, data = cv2.imencode(".jpg", annotate(picture, result))
        if not done:
            raise InputError(f"the annotated copy of {path} cannot be encoded as JPEG")
        (self.folder / name).write_bytes(data.tobytes())
        return name


def _read_batches(
    paths: Sequence[Path], size: int, writer: _Writer
) -> Iterator[tuple[list[Path], list[ImageArray]]]:
    from dyninfer.images import read_image

    chunk: list[Path] = []
    pictures: list[ImageArray] = []
    for path in paths:
        try:
            pictures.append(read_image(path))
        except InputError as error:
            writer.fail(error)
            continue
        chunk.append(path)
        if len(chunk) == size:
            yield chunk, pictures
            chunk, pictures = [], []
    if chunk:
        yield chunk, pictures


def _finish(detector: Detector, writer: _Writer, json_output: bool) -> None:
    if writer.results and not json_output:
        stdout.print(summary_table(detector, writer.results))
        stdout.print(
            f"{sum(map(len, writer.results))} detections in {len(writer.results)} pictures; "
            f"results in [bold]{writer.folder}[/bold] ({JSON_LINES})",
            soft_wrap=True,
        )
    if writer.failures:
        raise InputError(
            f"{writer.failures} of {writer.seen} pictures could not be read (named above)"
        )


def summary_table(detector: Detector, results: Sequence[Detections]) -> Table:
    """Per exit: share of the pictures, easiness, and milliseconds of every stage.

    Milliseconds are medians over the pictures that ran the stage, each with its share of its
    batch.
    """
    table = Table(title=f"{detector.manifest.name}, {detector.policy}", title_justify="left")
    table.add_column("")
    exits = range(len(detector.manifest.exits))
    groups = [[r for r in results if r.exit_index == index] for index in exits]
    for index in exits:
        table.add_column(f"exit {index}", justify="right")
    table.add_column("all", justify="right")
    columns: list[Sequence[Detections]] = [*groups, results]
    table.add_row("pictures", *(str(len(group)) for group in columns))
    table.add_row("share", *(f"{len(group) / len(results):.1%}" for group in columns))
    table.add_row("easiness", *(_spread(group) for group in columns), end_section=True)
    steps = dict.fromkeys(name for result in results for name in result.timings_ms)
    order = ["prepare", *detector.manifest.stages, "postprocess"]
    for step in sorted(steps, key=order.index):
        table.add_row(f"{step} ms", *(_median_ms(group, step) for group in columns))
    table.add_row("total ms", *(_median_ms(group, None) for group in columns))
    return table


def _spread(results: Sequence[Detections]) -> str:
    """Least, median and largest easiness."""
    values = [result.easiness for result in results if result.easiness is not None]
    if not values:
        return "-"
    return f"{min(values):.3f} / {float(np.median(values)):.3f} / {max(values):.3f}"


def _median_ms(results: Sequence[Detections], step: str | None) -> str:
    """Median of one step, or of the sum of all steps."""
    values = [
        sum(result.timings_ms.values()) if step is None else result.timings_ms[step]
        for result in results
        if step is None or step in result.timings_ms
    ]
    return f"{float(np.median(values)):.2f}" if values else "-"
