"""What ``dyninfer predict`` leaves of videos: annotated copies, and JSON lines."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyninfer.bundle.folder import MANIFEST_FILE
from dyninfer.cli.common import check_output_file, print_document, warn
from dyninfer.cli.predictions import JsonLines, free_folder
from dyninfer.errors import InputError
from dyninfer.images.drawing import annotate
from dyninfer.images.folders import RESULTS_FILE, RESULTS_FOLDER, VIDEO_SUFFIXES
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.named import Kind, kind_of
from dyninfer.images.sound import Sound
from dyninfer.images.video_writing import CONTAINERS, VideoWriter
from dyninfer.results.answers import Detections


@dataclass(frozen=True)
class VideoTarget:
    """Where the results of videos go.

    Attributes:
        videos: the annotated copy of each; empty where none is wanted.
        lines: the JSON lines.
        folder: that of the results, where they have one of their own.
    """

    videos: Sequence[Path]
    lines: Path
    folder: Path | None


def names_video(output: Path | None) -> bool:
    """Whether results are to go into a video of that name, not a folder."""
    suffix = "" if output is None or output.is_dir() else output.suffix.lower()
    return suffix in VIDEO_SUFFIXES


def videos_target(
    videos: Sequence[str], output: Path | None, *, alone: bool, draw: bool, overwrite: bool
) -> VideoTarget:
    """Where the results go: a file with lines beside it, or a folder.

    ``alone`` is whether there is nothing beside one video.

    Raises:
        InputError: it cannot be written, or holds what may not be overwritten; or one of several
            sources may have no end.
    """
    endless = [video for video in videos if kind_of(video) is not Kind.VIDEO]
    if endless and not alone:
        raise InputError(
            f"{endless[0]} is {kind_of(endless[0]).value}, which may have no end, and there are "
            "other sources beside it; run predict once for each"
        )
    if output is None or not names_video(output):
        folder = free_folder(output, overwrite=overwrite)
        names = _names(videos, folder / RESULTS_FOLDER) if draw else []
        for name, video in zip(names, videos, strict=False):
            if any(_same(name, source) for source in videos):
                raise InputError(f"{video} would be written over; choose another --output")
        return VideoTarget(names, folder / RESULTS_FILE, folder)
    if not alone:
        raise InputError(
            f"{output} is the name of a video, and there is more than one source; expected a folder"
        )
    return _target_beside(videos[0], output, draw=draw, overwrite=overwrite)


def _names(videos: Sequence[str], folder: Path) -> list[Path]:
    """Of annotated copies, each once even where upper and lower case are the same."""
    names: dict[str, Path] = {}
    for video in videos:
        kind = kind_of(video)
        stem = Path(video).stem if kind is Kind.VIDEO else kind.name.lower()
        name, number = f"{stem}.mp4", 1
        while name.casefold() in names:
            number += 1
            name = f"{stem}-{number}.mp4"
        names[name.casefold()] = folder / name
    return list(names.values())


def _target_beside(source: str, output: Path, *, draw: bool, overwrite: bool) -> VideoTarget:
    if output.suffix.lower() not in CONTAINERS:
        known = ", ".join(CONTAINERS)
        raise InputError(f"{output} has the suffix {output.suffix}; videos are written to {known}")
    target = VideoTarget([output] if draw else [], output.with_suffix(".jsonl"), None)
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
    """Writes every frame's line at once, and its picture into a video that is moved when whole.

    ``frames`` and ``objects`` count what was written, by way; of frames in between under None.
    """

    def __init__(
        self,
        scratch: Path,
        lines: JsonLines,
        copy: Path | None,
        source: FrameSource,
        sound: Sound,
        *,
        echo: bool,
    ) -> None:
        self._lines, self._copy, self._live, self._echo = lines, copy, source.live, echo
        self.frames: Counter[int | None] = Counter()
        self.objects: Counter[int | None] = Counter()
        self.tracks: set[int] = set()
        self._video: VideoWriter | None = None
        if copy is not None:
            self._written = scratch / f"video{copy.suffix}"
            self._video = VideoWriter(self._written, source.rate, sound, warn)

    def write(self, frame: Frame, found: Detections, way_name: str) -> None:
        """One frame.

        Raises:
            InputError: there is no room for it.
        """
        height, width = frame.image.shape[:2]
        record: dict[str, Any] = {"source": frame.source, "frame": frame.index}
        record |= {"time_s": frame.time_s, "width": width, "height": height}
        record |= {"dropped": frame.dropped} if self._live else {}
        if self._copy is not None and self._copy.parent.name == RESULTS_FOLDER:
            record["annotated"] = f"{RESULTS_FOLDER}/{self._copy.name}"
        line = json.dumps(record | found.to_dict())
        try:
            self._lines.start()  # before any picture
            if self._video is not None:
                self._video.write(annotate(frame.image, found, way_name), frame.time_s or 0.0)
            self._lines.append(line)
        except OSError as error:
            raise InputError(f"{self._lines.path} cannot be written: {error.strerror}") from None
        self._count(found)
        if self._echo:
            print_document(line)

    @property
    def lines_name(self) -> str:
        """Of the file of JSON lines."""
        return self._lines.path.name

    def _count(self, found: Detections) -> None:
        predicted = isinstance(found, Detections) and found.predicted
        self.frames[None if predicted else found.exit_index] += 1
        self.objects[None if predicted else found.exit_index] += len(found)
        if isinstance(found, Detections) and found.track_ids is not None:
            self.tracks |= {*found.track_ids.tolist()} - {-1}

    def finish(self, *, to_the_end: bool) -> None:
        """Make the video whole and put it in its place; without a frame, nothing is left."""
        self._lines.discard_if_empty()
        if self._video is None or self._copy is None:
            return
        self._video.close(to_the_end=to_the_end)
        if self.frames:
            self._copy.parent.mkdir(parents=True, exist_ok=True)
            self._written.replace(self._copy)
