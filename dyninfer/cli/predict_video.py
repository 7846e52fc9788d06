"""``dyninfer predict`` on a video, a camera or a stream: an annotated copy, and a line a frame."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.folder import MANIFEST_FILE
from dyninfer.bundle.unfinished import unfinished_folder
from dyninfer.cli.common import check_output_file, print_document, progress_bar, stdout, warn
from dyninfer.cli.predictions import former_pictures, free_folder
from dyninfer.errors import InputError
from dyninfer.images.drawing import annotate
from dyninfer.images.folders import RESULTS_FILE, RESULTS_FOLDER
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.named import VIDEO_SUFFIXES, Kind, kind_of
from dyninfer.images.sources import open_source
from dyninfer.images.video_writing import CONTAINERS, VideoWriter
from dyninfer.plain_text import counted
from dyninfer.results.answers import Detections
from dyninfer.results.tasks import Options
from dyninfer.runtime.detector import Detector

_RECENT = 50  # frames, of which the rate is shown


@dataclass(frozen=True)
class ConnectionOptions:
    """How a stream is received."""

    transport: Annotated[
        str, typer.Option(help="Of RTSP: tcp, udp, udp_multicast, http or https.")
    ] = "tcp"
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for a connection, and for each frame.")
    ] = 10.0
    give_up: Annotated[
        float,
        typer.Option(
            "--give-up", min=0.0, help="Seconds without a frame, while connecting again, to end."
        ),
    ] = 60.0


@dataclass(frozen=True)
class VideoTarget:
    """Where the results of a video go.

    Attributes:
        video: the annotated copy; None where none is wanted.
        lines: the JSON lines.
        folder: that of the results, where they have one of their own.
    """

    video: Path | None
    lines: Path
    folder: Path | None


def the_video_among(sources: Sequence[str]) -> str | None:
    """The source, if it is a video, a camera or a stream.

    Raises:
        InputError: there are others beside it.
    """
    moving = [source for source in sources if kind_of(source) is not Kind.PICTURES]
    if not moving:
        return None
    if len(sources) > 1:
        raise InputError(
            f"{moving[0]} is {kind_of(moving[0]).value}, and there are "
            f"{counted(len(sources), 'source')}; run predict once for each"
        )
    return moving[0]


def refuse_video_name(output: Path | None) -> None:
    """Say before pictures are run that a folder is wanted for them."""
    if output is not None and output.suffix.lower() in VIDEO_SUFFIXES and not output.is_dir():
        raise InputError(f"{output} is the name of a video, expected a folder for pictures")


def video_target(source: str, output: Path | None, *, draw: bool, overwrite: bool) -> VideoTarget:
    """Where the results go: a file with lines beside it, or a folder.

    Raises:
        InputError: it cannot be written, or holds what may not be overwritten.
    """
    if output is None or output.suffix.lower() not in VIDEO_SUFFIXES or output.is_dir():
        folder = free_folder(output, overwrite=overwrite)
        stem = Path(source).stem if kind_of(source) is Kind.VIDEO else kind_of(source).name.lower()
        name = folder / RESULTS_FOLDER / f"{stem}.mp4" if draw else None
        if name is not None and _same(name, source):
            raise InputError(f"{name} is read; choose another folder with --output")
        return VideoTarget(name, folder / RESULTS_FILE, folder)
    if output.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise InputError(f"{output} has the suffix {output.suffix}; videos are written to {known}")
    target = VideoTarget(output if draw else None, output.with_suffix(".jsonl"), None)
    for path in (output, target.lines):
        check_output_file(path, "choose another place with --output")
        if path.exists() and _same(path, source):
            raise InputError(f"{path} is read; choose another name with --output")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; choose another name, or replace it with --overwrite")
    if (output.parent / MANIFEST_FILE).exists():
        raise InputError(f"{output.parent} is a bundle; choose another folder for the results")
    return target


def _same(path: Path, source: str) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return path.samefile(source)
    return False


class VideoResults:
    """Writes every frame beside the target; :meth:`finish` puts files in their places, each whole.

    ``frames`` and ``objects`` count what was written, by way.
    """

    def __init__(
        self, scratch: Path, target: VideoTarget, source: FrameSource, sound: Path | None
    ) -> None:
        self._scratch, self._target, self._source = scratch, target, source
        self.frames: Counter[int] = Counter()
        self.objects: Counter[int] = Counter()
        self._lines: TextIOWrapper = (scratch / "lines").open("w", encoding="utf-8")
        self._video: VideoWriter | None = None
        if target.video is not None:
            path = scratch / f"video{target.video.suffix}"
            self._video = VideoWriter(path, source.rate, sound, warn)

    def write(self, frame: Frame, found: Detections, way_name: str, *, echo: bool) -> None:
        """One frame.

        Raises:
            InputError: there is no room for it.
        """
        height, width = frame.image.shape[:2]
        record: dict[str, Any] = {"source": frame.source, "frame": frame.index}
        record |= {"time_s": frame.time_s, "width": width, "height": height}
        record |= {"dropped": frame.dropped} if self._source.live else {}
        if self._target.folder is not None and self._target.video is not None:
            record["annotated"] = f"{RESULTS_FOLDER}/{self._target.video.name}"
        line = json.dumps(record | found.to_dict())
        if self._video is not None:
            self._video.write(annotate(frame.image, found, way_name), frame.time_s or 0.0)
        try:
            self._lines.write(line + "\n")
        except OSError as error:
            raise InputError(f"{self._target.lines} cannot be written: {error.strerror}") from None
        self.frames[found.exit_index] += 1
        self.objects[found.exit_index] += len(found)
        if echo:
            print_document(line)

    def finish(self, *, to_the_end: bool) -> None:
        """Make everything whole and put it in its place; without a frame, nothing is left."""
        self._lines.close()
        if self._video is not None:
            self._video.close(to_the_end=to_the_end)
        if not self.frames:
            return
        target = self._target
        if target.folder is not None and target.lines.exists():
            for former in former_pictures(target.folder):
                if not _same(former, self._source.name):
                    former.unlink(missing_ok=True)
        if target.video is not None:
            target.video.parent.mkdir(parents=True, exist_ok=True)
            (self._scratch / f"video{target.video.suffix}").replace(target.video)
        (self._scratch / "lines").replace(target.lines)


def predict_video(
    detector: Detector,
    source: str,
    target: VideoTarget,
    connection: ConnectionOptions,
    options: Options,
    *,
    echo: bool,
) -> None:
    """Run a video, a camera or a stream to its end, and tell what was found.

    What is there when it is interrupted or fails is put in its place, playable.

    Raises:
        InputError: it cannot be read any further, or results cannot be written.
    """
    opened = open_source(
        source,
        max_pixels=detector.max_pixels,
        transport=connection.transport,
        timeout_s=connection.timeout,
        give_up_s=connection.give_up,
    )
    with opened:
        sound = Path(source) if kind_of(source) is Kind.VIDEO else None
        with _made(target.lines.parent), unfinished_folder(target.lines) as scratch:
            results = VideoResults(scratch, target, opened, sound)
            ended, start = False, time.perf_counter()
            try:
                _run(detector, opened, results, options, echo=echo)
                ended = True
            finally:
                results.finish(to_the_end=ended)
                if not echo and results.frames:
                    _summarise(detector, opened, results, target, time.perf_counter() - start)


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder is there, and goes again if nothing was left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if not any(folder.iterdir()):
                folder.rmdir()


def _run(
    detector: Detector, source: FrameSource, results: VideoResults, options: Options, *, echo: bool
) -> None:
    names, recent = detector.manifest.way_names, deque[float](maxlen=_RECENT)
    with (
        progress_bar() as progress,
        contextlib.closing(detector.stream(source, options=options)) as stream,
    ):
        task = progress.add_task("running", total=source.expected)
        for frame, found in stream:
            results.write(frame, found, names[found.exit_index], echo=echo)
            recent.append(time.perf_counter())
            progress.update(task, completed=frame.index + 1, description=_state(recent, results))


def _state(recent: Sequence[float], results: VideoResults) -> str:
    """Frames a second, and the share of every way that was taken."""
    seconds, done = recent[-1] - recent[0], results.frames.total()
    rate = f"{(len(recent) - 1) / seconds:.1f} frames/s" if seconds else "running"
    ways = range(max(results.frames) + 1)
    shares = ":".join(f"{100 * results.frames[way] / done:.0f}" for way in ways)
    return f"{rate}, exits {shares} %"


def _summarise(
    detector: Detector,
    source: FrameSource,
    results: VideoResults,
    target: VideoTarget,
    seconds: float,
) -> None:
    frames, objects = results.frames, results.objects
    done, unit = frames.total(), detector.manifest.task.kind.unit
    ways = range(len(detector.manifest.way_names))
    print_table(
        make_table(
            f"{detector.manifest.name}: {done / seconds:.1f} frames a second",
            column("", [*detector.manifest.way_names, "all"], words=True),
            column("frames", [*(str(frames[way]) for way in ways), str(done)]),
            column("share", [*(f"{frames[way] / done:.1%}" for way in ways), "100.0%"]),
            column("found", [*(str(objects[way]) for way in ways), str(objects.total())]),
        ),
        stdout,
    )
    counts = {"damaged and skipped": source.damaged, "left out for newer ones": source.dropped}
    for what, count in counts.items():
        if count:
            stdout.print(f"{counted(count, 'frame')} {what}")
    if source.reconnects:
        stdout.print(f"connected again {counted(source.reconnects, 'time')}")
    shown = target.lines if target.video is None else target.video
    stdout.print(
        styled(
            f"{counted(objects.total(), unit)} in {counted(done, 'frame')}; results in ",
            (str(shown), "bold"),
            f" ({target.lines.name})",
        )
    )
