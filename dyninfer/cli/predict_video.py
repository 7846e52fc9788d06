"""``dyninfer predict`` on videos, a camera or a stream: annotated copies, and a line a frame."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.unfinished import unfinished_folder
from dyninfer.cli.common import progress_bar, stdout
from dyninfer.cli.predictions import JsonLines
from dyninfer.cli.video_results import VideoResults, names_video
from dyninfer.errors import InputError
from dyninfer.images.frames import FrameSource
from dyninfer.images.sound import Sound
from dyninfer.images.sources import open_with_sound
from dyninfer.plain_text import counted
from dyninfer.results.tasks import Options
from dyninfer.routing.goals import Goal
from dyninfer.routing.keyframes import EveryNth
from dyninfer.routing.policy import Policy
from dyninfer.routing.previous import PreviousFrame
from dyninfer.runtime.detector import Detector

_RECENT = 50  # frames, of which the rate is shown
_IN_BETWEEN = "in between"


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
class FollowOptions:
    """What is made of a video's frames one after the other."""

    track: Annotated[
        bool, typer.Option("--track", help="Give objects of a video ids that they keep.")
    ] = False
    every: Annotated[
        int,
        typer.Option(
            min=1, help="Run the engines for one frame of a video in so many, and track in between."
        ),
    ] = 1


def refuse_what_is_for_videos(output: Path | None, follow: FollowOptions) -> None:
    """Say before pictures are run that an option is not for them."""
    if names_video(output):
        raise InputError(f"{output} is the name of a video, expected a folder for pictures")
    if follow != FollowOptions():
        raise InputError("--track and --every follow the frames of a video, and these are pictures")


@dataclass(frozen=True)
class Run:
    """How videos are run.

    Attributes:
        policy: the user's; None for the bundle's own.
        echo: whether lines go to stdout, and no table.
    """

    connection: ConnectionOptions
    follow: FollowOptions
    options: Options
    policy: Policy | Goal | None
    echo: bool


def predict_video(
    detector: Detector, source: str, lines: JsonLines, copy: Path | None, run: Run
) -> None:
    """Run a video, a camera or a stream to its end, and tell what was found.

    What is there when it is interrupted or fails is put in its place, playable.

    Raises:
        InputError: it cannot be read any further, or results cannot be written.
    """
    if isinstance(run.policy, PreviousFrame):
        run.policy.reset()  # after another video
    sound = Sound()
    opened = open_with_sound(
        source,
        sound if copy is not None else None,
        max_pixels=detector.max_pixels,
        on_error="raise",
        transport=run.connection.transport,
        timeout_s=run.connection.timeout,
        give_up_s=run.connection.give_up,
    )
    with opened, _made(lines.path.parent), unfinished_folder(lines.path) as scratch:
        results = VideoResults(scratch, lines, copy, opened, sound, echo=run.echo)
        ended, start = False, time.perf_counter()
        try:
            _run(detector, opened, results, run)
            ended = True
        finally:
            results.finish(to_the_end=ended)
            if not run.echo and results.frames:
                seconds = time.perf_counter() - start
                _summarise(detector, opened, results, seconds, copy or lines.path)


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


def _run(detector: Detector, source: FrameSource, results: VideoResults, run: Run) -> None:
    names, recent = detector.manifest.way_names, deque[float](maxlen=_RECENT)
    policy = EveryNth(run.follow.every, run.policy)
    stream = detector.stream(source, options=run.options, policy=policy, track=run.follow.track)
    with progress_bar() as progress, contextlib.closing(stream):
        task = progress.add_task("running", total=source.expected)
        for frame, found in stream:
            results.write(frame, found, names[found.exit_index])
            recent.append(time.perf_counter())
            progress.update(task, completed=frame.index + 1, description=_state(recent, results))


def _state(recent: Sequence[float], results: VideoResults) -> str:
    """Frames a second, and the share of every way that was taken by those that were run."""
    seconds = recent[-1] - recent[0]
    rate = f"{(len(recent) - 1) / seconds:.1f} frames/s" if seconds else "running"
    ran = {way: count for way, count in results.frames.items() if way is not None}
    shares = [100 * ran.get(way, 0) / sum(ran.values()) for way in range(max(ran) + 1)]
    return f"{rate}, exits {':'.join(f'{share:.0f}' for share in shares)} %"


def _summarise(
    detector: Detector, source: FrameSource, results: VideoResults, seconds: float, written: Path
) -> None:
    frames, objects = results.frames, results.objects
    done, unit = frames.total(), detector.manifest.task.kind.unit
    ways: list[tuple[str, int | None]] = [
        (name, way) for way, name in enumerate(detector.manifest.way_names)
    ]
    ways += [(_IN_BETWEEN, None)] * (None in frames)
    print_table(
        make_table(
            f"{detector.manifest.name}: {done / seconds:.1f} frames a second",
            column("", [*(name for name, _ in ways), "all"], words=True),
            column("frames", [*(str(frames[way]) for _, way in ways), str(done)]),
            column("share", [*(f"{frames[way] / done:.1%}" for _, way in ways), "100.0%"]),
            column("found", [*(str(objects[way]) for _, way in ways), str(objects.total())]),
        ),
        stdout,
    )
    counts = {"damaged and skipped": source.damaged, "left out for newer ones": source.dropped}
    for what, count in counts.items():
        if count:
            stdout.print(f"{counted(count, 'frame')} {what}")
    if source.reconnects:
        stdout.print(f"connected again {counted(source.reconnects, 'time')}")
    if results.tracks:
        stdout.print(f"{counted(len(results.tracks), 'object')} followed")
    stdout.print(
        styled(
            f"{counted(objects.total(), unit)} in {counted(done, 'frame')}; results in ",
            (str(written), "bold"),
            f" ({results.lines_name})",
        )
    )
