"""``dyninfer predict``: annotated pictures, JSON lines and a summary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.benchmarks.report.table import print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.cli.common import (
    expand_sources,
    progress_bar,
    read_speed,
    stdout,
    warn,
    warn_if_untrained,
)
from dyninfer.cli.options import (
    BundleArgument,
    EngineOptions,
    JsonOption,
    PixelsOption,
    SpeedOption,
    with_option_groups,
)
from dyninfer.cli.predict_streams import (
    SharingOptions,
    is_named,
    named_streams,
    predict_streams,
    refuse_what_is_for_one,
)
from dyninfer.cli.predict_video import (
    ConnectionOptions,
    FollowOptions,
    Run,
    predict_video,
    refuse_what_is_for_videos,
)
from dyninfer.cli.predictions import (
    JsonLines,
    ResultWriter,
    free_folder,
    known_classes,
    summary_table,
    surprising_times,
)
from dyninfer.cli.video_results import videos_target
from dyninfer.errors import EngineRunError, InputError
from dyninfer.images.folders import RESULTS_FILE
from dyninfer.images.named import split_sources
from dyninfer.images.pictures import MAX_PIXELS, read_image
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import Postprocess
from dyninfer.results.tasks import Options
from dyninfer.routing.goals import Goal
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy, Threshold
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.types import ImageArray


@dataclass(frozen=True)
class RouteOptions:
    """Who goes on: one of them at most."""

    speed: SpeedOption = None
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", "-t", min=0.0, help="Images below this easiness go on to the next exit."
        ),
    ] = None
    always_easy: Annotated[
        bool, typer.Option("--always-easy", help="Stop every image at the first exit.")
    ] = False
    always_hard: Annotated[
        bool, typer.Option("--always-hard", help="Run every image to the last exit.")
    ] = False

    def policy(self) -> Policy | Goal | None:
        """What was asked for; None for the bundle's own."""
        asked: list[Policy | Goal] = []
        if self.threshold is not None:
            asked.append(Threshold(self.threshold))
        asked += [AlwaysEasy()] * self.always_easy + [AlwaysHard()] * self.always_hard
        if self.speed is not None:
            asked.append(read_speed(self.speed))
        if len(asked) > 1:
            raise typer.BadParameter(
                "give one of --speed, --threshold, --always-easy and --always-hard"
            )
        return asked[0] if asked else None


@dataclass(frozen=True)
class DetectionOptions:
    """Which boxes count."""

    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            "-c",
            min=0.0,
            max=1.0,
            help="Minimum confidence. Default: the bundle's own.",
        ),
    ] = None
    iou: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Overlap (IoU) above which a box is suppressed. Default: the bundle's own.",
        ),
    ] = None

    def options(self, manifest: Manifest) -> Options:
        """The bundle's own options, with those that were given; refused where it finds no boxes."""
        if manifest.task is Task.FEATURES:
            raise InputError(
                f"{manifest.name} is a backbone, which ends in feature maps and finds nothing in "
                "pictures; from Python, detector.infer gives the maps"
            )
        own = manifest.use_options
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if given and not isinstance(own, Postprocess):
            raise InputError(
                f"--confidence and --iou are about boxes, and {manifest.name} finds none (its task "
                f"is {manifest.task.value}); leave them out"
            )
        return replace(own, **given)


@with_option_groups
def predict(
    bundle: BundleArgument,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Pictures, videos, folders, patterns in quotes, or lists of pictures (.txt); or "
            "one camera (camera:0) or stream (rtsp://..., http://...); or several at once, each "
            "with a name: door=rtsp://... yard=camera:0.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for the results; of one video also the name of one, such as out.mp4, "
            "beside which out.jsonl is written. If not given: predictions, or the next free one of "
            "predictions-2, predictions-3, ...",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace the results of an earlier run there."),
    ] = False,
    *,
    route: RouteOptions,
    found: DetectionOptions,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            "-b",
            min=1,
            help="Number of pictures to run at once. Default: 8, or with --backend auto the best.",
        ),
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Write annotated pictures.")
    ] = True,
    max_pixels: PixelsOption = MAX_PIXELS,
    follow: FollowOptions,
    connection: ConnectionOptions,
    sharing: SharingOptions,
    engine: EngineOptions,
    json_output: JsonOption = False,
) -> None:
    """Detect objects in pictures or videos, or classify; write annotated copies and JSON lines.

    A picture that cannot be read is reported and skipped; the exit status is then 1. A video keeps
    its sound and its times; Ctrl-C leaves what was done so far, playable.

    Example: **dyninfer predict dy-yolov7.dyn photos/ "more/*.jpg" --speed 30%**
    """
    if is_named(str(bundle)):  # without a bundle, streams run with the model for everyday pictures
        bundle, sources = Path("everyday"), [str(bundle), *sources]
    policy = route.policy()
    streams = named_streams(sources, sharing)
    if streams is not None:
        refuse_what_is_for_one(output, follow)
        folder = free_folder(output, overwrite=overwrite)
        with load(bundle, **asdict(engine), max_batch=batch, max_pixels=max_pixels) as detector:
            warn_if_untrained(detector.manifest)
            run = Run(connection, follow, found.options(detector.manifest), policy, json_output)
            predict_streams(detector, streams, folder, sharing, run, draw=images)
        return
    still, moving = split_sources(sources)
    paths = expand_sources(still) if still or not moving else []
    copies: Sequence[Path] = ()
    if moving:
        alone = len(moving) == 1 and not paths
        target = videos_target(moving, output, alone=alone, draw=images, overwrite=overwrite)
        copies, written = target.videos, target.lines
    else:
        refuse_what_is_for_videos(output, follow)
        written = free_folder(output, overwrite=overwrite) / RESULTS_FILE
    with (
        load(bundle, **asdict(engine), max_batch=batch, max_pixels=max_pixels) as detector,
        JsonLines(written, [*paths, *map(Path, moving)]) as lines,
    ):
        warn_if_untrained(detector.manifest)
        run = Run(connection, follow, found.options(detector.manifest), policy, json_output)
        failures: list[InputError] = []
        if paths:
            failures += _predict_pictures(detector, paths, lines, run, draw=images)
        for number, video in enumerate(moving):
            try:
                predict_video(detector, video, lines, copies[number] if copies else None, run)
            except InputError as error:
                failures.append(error)
        _raise(failures, len(paths) + len(moving), "source" if moving else "picture")


def _predict_pictures(
    detector: Detector, paths: Sequence[Path], lines: JsonLines, run: Run, *, draw: bool
) -> list[InputError]:
    """Run all pictures and tell what was found; those that could not be read."""
    if run.policy is not None:
        detector.policy = run.policy
    writer = ResultWriter(lines, paths, detector.manifest.way_names, draw=draw, echo=run.echo)
    _run(detector, paths, run.options, writer, warm=not run.echo)
    _summarise(detector, writer, run.echo)
    return writer.failures


def _run(
    detector: Detector,
    paths: Sequence[Path],
    options: Options,
    writer: ResultWriter,
    *,
    warm: bool,
) -> None:
    """Run all pictures; ``warm`` runs the first ones along every way before, for the summary."""
    with progress_bar() as progress:
        task = progress.add_task("running", total=len(paths))
        readable = _read(paths, writer, detector.max_pixels)
        while chunk := list(islice(readable, detector.max_batch)):
            if warm and not writer.results:
                _warm_up(detector, [picture for _, picture in chunk])
            results = detector.answers([picture for _, picture in chunk], options=options)
            for (path, picture), result in zip(chunk, results, strict=True):
                writer.write(path, picture, result)
            progress.update(task, completed=writer.seen)


def _warm_up(detector: Detector, pictures: Sequence[ImageArray]) -> None:
    """First runs are slower, and would make the exit of the first pictures look so."""
    with contextlib.suppress(EngineRunError):  # where it matters, the call itself raises it
        detector.trace(detector.prepare(pictures))


def _read(
    paths: Sequence[Path], writer: ResultWriter, max_pixels: int
) -> Iterator[tuple[Path, ImageArray]]:
    for path in paths:
        try:
            yield path, read_image(path, max_pixels)
        except InputError as error:
            writer.failures.append(error)


def _summarise(detector: Detector, writer: ResultWriter, json_output: bool) -> None:
    if writer.results and not json_output:
        print_table(summary_table(detector, writer.results), stdout)
        for line in surprising_times(detector.manifest, writer.results):
            stdout.print(line)
        stdout.print(
            styled(
                f"{counted(sum(map(len, writer.results)), detector.manifest.task.kind.unit)} in "
                f"{counted(len(writer.results), 'picture')}; results in ",
                (str(writer.folder), "bold"),
                f" ({RESULTS_FILE})",
            )
        )
        stdout.print(known_classes(detector.manifest, writer.results))


def _raise(failures: Sequence[InputError], seen: int, what: str) -> None:
    """End with an error if anything could not be read, with its own where that is one."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        for error in failures:
            warn(error)
        raise InputError(
            f"{len(failures)} of {counted(seen, what)} could not be read (named above)"
        )
