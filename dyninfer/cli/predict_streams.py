"""``dyninfer predict`` on many cameras or videos at once: ``door=rtsp://... yard=camera:0``."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import styled
from dyninfer.bundle.unfinished import unfinished_folder
from dyninfer.cli.common import print_document, progress_bar, stdout, warn
from dyninfer.cli.predict_video import FollowOptions, Run
from dyninfer.cli.predictions import former_pictures
from dyninfer.cli.video_results import names_video
from dyninfer.errors import InputError
from dyninfer.images.drawing import annotate
from dyninfer.images.folders import RESULTS_FILE, RESULTS_FOLDER, match_images, match_videos
from dyninfer.images.named import Kind, kind_of
from dyninfer.images.video_writing import VideoWriter
from dyninfer.plain_text import counted
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.many_streams import (
    ManyStreams,
    StreamResult,
    run_streams,
)
from dyninfer.runtime.stream_budget import parse_budget

_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"


@dataclass(frozen=True)
class SharingOptions:
    """Of several streams, each named as in ``door=rtsp://...``."""

    budget: Annotated[
        str | None,
        typer.Option(help="Milliseconds of work a second for all streams together: 200ms/s."),
    ] = None
    fairness: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of it that is dealt out evenly.")
    ] = 0.5


def is_named(source: str) -> bool:
    """Whether it is NAME=SOURCE, and no file, folder or pattern with such a name."""
    if not re.match(rf"{_NAME}=|=", source):
        return False
    try:
        there = Path(source).exists() or match_images(source) or match_videos(source)
        return not there
    except (OSError, ValueError):
        return True


def named_streams(sources: Sequence[str], sharing: SharingOptions) -> dict[str, str] | None:
    """Sources by name; None where none has a name.

    Raises:
        InputError: some have none, a name is there twice, or a source does not exist.
    """
    named = [source for source in sources if is_named(source)]
    if not named:
        if sharing.budget is not None:
            raise InputError(
                f"--budget {sharing.budget} is shared by several streams, each with a name: "
                f"write for example cam1={sources[0]}"
            )
        return None
    parse_budget(sharing.budget)
    found: dict[str, str] = {}
    for source in sources:
        name, _, address = source.partition("=")
        if source in named and not (name and address):
            raise InputError(
                f"{source} lacks its {'source' if name else 'name'}; write NAME=SOURCE"
            )
        if source not in named:
            raise InputError(
                f"{source} is no stream with a name, as {named[0]} is; write NAME=SOURCE for each"
            )
        if name in found:
            raise InputError(f"two streams are called {name}; give each a name of its own")
        try:
            gone = kind_of(address) is Kind.VIDEO and not Path(address).exists()
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        if gone or (kind_of(address) is Kind.PICTURES and not _pictures(address)):
            raise InputError(f"{name}: {address} does not exist; check the path")
        found[name] = address
    return found


def refuse_what_is_for_one(output: Path | None, follow: FollowOptions) -> None:
    """Say before anything runs that an option is not for many streams."""
    if names_video(output):
        raise InputError(f"{output} is the name of a video, expected a folder for several streams")
    if follow.every > 1:
        raise InputError(
            f"--every {follow.every} is for one video; of several, --budget says how many frames "
            "are run"
        )


def _pictures(address: str) -> bool:
    return Path(address).exists() or bool(match_images(address))


class StreamResults:
    """Writes the lines of all streams into one file, and a video of what was answered of each."""

    def __init__(self, scratch: Path, folder: Path, names: Sequence[str], *, draw: bool) -> None:
        self._scratch, self._folder, self._draw = scratch, folder, draw
        self._lines = (scratch / "lines").open("w", encoding="utf-8")
        self._videos: dict[str, VideoWriter] = {}
        self.frames, self.objects = Counter[str](), Counter[str]()
        self.tracks: dict[str, set[int]] = {name: set() for name in names}
        self.ways = {name: Counter[int]() for name in names}

    def write(self, result: StreamResult, way_name: str, *, echo: bool) -> None:
        """One frame.

        Raises:
            InputError: there is no room for it.
        """
        name, frame, found, skipped = result
        record: dict[str, Any] = {"stream": name, "source": frame.source, "frame": frame.index}
        record |= {"time_s": frame.time_s, "skipped": skipped, "dropped": frame.dropped}
        record |= {"width": frame.image.shape[1], "height": frame.image.shape[0]}
        if self._draw:
            record["annotated"] = f"{RESULTS_FOLDER}/{name}.mp4"
            if name not in self._videos:
                self._videos[name] = VideoWriter(self._scratch / f"{name}.mp4", None, None, warn)
            time_s = self.frames[name] / 25 if frame.time_s is None else frame.time_s
            self._videos[name].write(annotate(frame.image, found, way_name), time_s)
        line = json.dumps(record | found.to_dict())
        try:
            self._lines.write(line + "\n")
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written to: {error.strerror}") from None
        self.frames[name] += 1
        self.objects[name] += len(found)
        self.ways[name][found.exit_index] += 1
        if found.track_ids is not None:
            self.tracks[name].update(found.track_ids[found.track_ids >= 0].tolist())
        if echo:
            print_document(line)

    def finish(self) -> None:
        """Put everything in its place; without a frame, nothing is left."""
        self._lines.close()
        for video in self._videos.values():
            video.close()
        if not self.frames:
            return
        if (self._folder / RESULTS_FILE).exists():
            for former in former_pictures(self._folder):
                former.unlink(missing_ok=True)
        for name in self._videos:
            (self._folder / RESULTS_FOLDER).mkdir(parents=True, exist_ok=True)
            video_file = self._folder / RESULTS_FOLDER / f"{name}.mp4"
            (self._scratch / video_file.name).replace(video_file)
        (self._scratch / "lines").replace(self._folder / RESULTS_FILE)


def predict_streams(
    detector: Detector,
    sources: dict[str, str],
    folder: Path,
    sharing: SharingOptions,
    run: Run,
    *,
    draw: bool,
) -> None:
    """Run all streams to their ends, or until it is interrupted, and tell what was found.

    Raises:
        InputError: a stream failed; the others went on, and what was found is written.
    """
    streams = run_streams(
        sources,
        detector,
        budget=sharing.budget,
        fairness=sharing.fairness,
        options=run.options,
        policy=run.policy,
        track=run.follow.track,
        transport=run.connection.transport,
        timeout_s=run.connection.timeout,
        give_up_s=run.connection.give_up,
    )
    with streams, ExitStack() as stack:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        stack.callback(lambda: folder.rmdir() if made and not any(folder.iterdir()) else None)
        scratch = stack.enter_context(unfinished_folder(folder / RESULTS_FILE))
        results, start = StreamResults(scratch, folder, list(sources), draw=draw), time.monotonic()
        try:
            _run(detector, streams, results, echo=run.echo)
        finally:
            results.finish()
            if results.frames and not run.echo:
                _summarise(detector, streams, results, folder, time.monotonic() - start)
    failed = {name: error for name, error in streams.ended.items() if error is not None}
    if failed:
        name, error = next(iter(failed.items()))
        raise InputError(f"{counted(len(failed), 'stream')} failed: {name}: {error}")


def _run(detector: Detector, streams: ManyStreams, results: StreamResults, *, echo: bool) -> None:
    names = detector.manifest.way_names
    with progress_bar() as progress:
        task = progress.add_task("running", total=None)
        for result in streams:
            results.write(result, names[result.detections.exit_index], echo=echo)
            skipped = sum(streams.skipped.values())
            state = f"{counted(results.frames.total(), 'frame')} answered, {skipped} left out"
            progress.update(task, description=state)


def _summarise(
    detector: Detector, streams: ManyStreams, results: StreamResults, folder: Path, seconds: float
) -> None:
    names, ways = list(results.ways), range(len(detector.manifest.way_names))
    spent = streams.spent_ms / streams.seconds if streams.seconds else 0.0
    followed = [len(results.tracks[name]) for name in names]
    title = f"{detector.manifest.name}: {results.frames.total() / seconds:.1f} frames a second"
    print_table(
        make_table(
            f"{title}, {spent:.0f} ms of work a second of the streams",
            column("", names, words=True),
            column("frames", (str(results.frames[name]) for name in names)),
            column("left out", (str(streams.skipped[name]) for name in names)),
            *(
                column(way_name, (str(results.ways[name][way]) for name in names))
                for way, way_name in zip(ways, detector.manifest.way_names, strict=True)
            ),
            column("found", (str(results.objects[name]) for name in names)),
            *([column("followed", map(str, followed))] if any(followed) else []),
        ),
        stdout,
    )
    unit = detector.manifest.task.kind.unit
    stdout.print(
        styled(
            f"{counted(results.objects.total(), unit)} in "
            f"{counted(results.frames.total(), 'frame')}; results in ",
            (str(folder), "bold"),
            f" ({RESULTS_FILE})",
        )
    )
