"""What it costs to run the engines for one frame of a video in n, and what that saves.

``python -m dyninfer.benchmarks.lab.keyframes everyday street.mp4 -o record.json`` runs both ways of
a cascade of two exits on every frame. A frame's loss is 1 - F1 against what the last exit finds in
it (:func:`dyninfer.results.tasks.disagreement`), since clips have no labels. One frame in n is run
to the last exit; those in between are what the tracker expects, what was found last as it was, or
what the first exit finds in them. With ``--rounds 3`` frames a second are measured instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.images.frames import Frame
from dyninfer.plain_text import counted
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.results.tasks import disagreement
from dyninfer.results.tracking import Tracker
from dyninfer.routing.keyframes import EveryNth
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

EVERY = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Clip:
    """Every frame, without its picture, with what both exits find in it."""

    name: str
    frames: Sequence[Frame]
    easy: Sequence[Detections]
    hard: Sequence[Detections]


@dataclass(frozen=True)
class Row:
    """How frames in between were answered, and what came of it, as means over all frames.

    ``ids`` and ``tracker_ms`` are the tracker's: how many objects it told apart, and its
    milliseconds a frame.
    """

    clip: str
    every: int
    in_between: str
    loss: float
    ids: int | None = None
    tracker_ms: float | None = None


def run_clip(detector: Detector, path: Path) -> Clip:
    """Both exits' answers to every frame."""
    runs = [list(_stripped(detector, path, policy)) for policy in (AlwaysEasy(), AlwaysHard())]
    easy, hard = ([found for _, found in run] for run in runs)
    return Clip(path.name, [frame for frame, _ in runs[0]], easy, hard)


def _stripped(
    detector: Detector, path: Path, policy: AlwaysEasy | AlwaysHard
) -> Iterator[tuple[Frame, Detections]]:
    for frame, found in detector.stream(path, policy=policy):
        black = np.broadcast_to(np.zeros(1, np.uint8), frame.image.shape)
        yield replace(frame, image=black), found


def rows_of(clip: Clip, confidence: float) -> Iterator[Row]:
    """All ways at every n."""
    count = len(clip.frames)
    for every in EVERY:
        last = [clip.hard[number - number % every] for number in range(count)]
        first = [(clip.easy if number % every else clip.hard)[number] for number in range(count)]
        tracker, start = Tracker(confidence, every), time.perf_counter()
        tracked = [
            tracker(frame, None if number % every else clip.hard[number])
            for number, frame in enumerate(clip.frames)
        ]
        ms = 1000 * (time.perf_counter() - start) / count
        given = [found.track_ids for found in tracked if found.track_ids is not None]
        ids = {*np.concatenate(given).tolist()} - {-1}
        yield Row(clip.name, every, "tracker", _loss(tracked, clip.hard), len(ids), round(ms, 3))
        if every > 1:
            yield Row(clip.name, every, "as it was", _loss(last, clip.hard))
            yield Row(clip.name, every, "first exit", _loss(first, clip.hard))
    yield Row(clip.name, count, "first exit", _loss(clip.easy, clip.hard))


def _loss(found: Sequence[Detections], reference: Sequence[Detections]) -> float:
    losses = [disagreement(one, other) for one, other in zip(found, reference, strict=True)]
    return round(float(np.mean(losses)), 4)


@dataclass(frozen=True)
class Speed:
    """Frames a second of one frame in so many, by round."""

    clip: str
    every: int
    fps: Sequence[float]


def speed_rows(detector: Detector, path: Path, rounds: int) -> list[Speed]:
    """Frames a second of a whole stream to the last exit, of all n in turn."""
    spent: dict[int, list[float]] = {every: [] for every in EVERY}
    for _ in range(rounds):
        for every, times in spent.items():
            start = time.perf_counter()
            policy = EveryNth(every, AlwaysHard())
            count = sum(1 for _ in detector.stream(path, policy=policy, track=True))
            times.append(round(count / (time.perf_counter() - start), 1))
    return [Speed(path.name, every, fps) for every, fps in spent.items()]


def print_rows(rows: Sequence[Row]) -> None:
    """One table for each clip."""
    for clip in dict.fromkeys(row.clip for row in rows):
        of_clip = [row for row in rows if row.clip == clip]
        print_table(
            make_table(
                clip,
                column("in between", (row.in_between for row in of_clip), words=True),
                column("one in", (str(row.every) for row in of_clip)),
                column("loss", (f"{row.loss:.4f}" for row in of_clip)),
                column("ids", ("-" if row.ids is None else str(row.ids) for row in of_clip)),
            ),
            Terminal(),
        )


def measure(bundle: Path, clips: Sequence[Path], rounds: int) -> dict[str, Any]:
    """The record, and the tables on the terminal.

    Raises:
        DyninferError: the bundle or a clip cannot be read, or ``trackers`` is not installed.
    """
    notes = Terminal(stderr=True)
    rows: list[Row | Speed] = []
    with load(bundle) as detector:
        options = detector.manifest.use_options
        assert isinstance(options, Postprocess)
        for path in clips:
            if rounds:
                rows += speed_rows(detector, path, rounds)
                continue
            clip = run_clip(detector, path)
            notes.print(f"{path.name}: {counted(len(clip.frames), 'frame')}")
            found = list(rows_of(clip, options.confidence))
            print_rows(found)
            rows += found
    command = ["keyframes", bundle.name, *(path.name for path in clips)]
    command += [f"--rounds {rounds}"] * bool(rounds)
    return record_of("Running one frame of a video in n and tracking in between.", command, rows)


def main(
    bundle: Annotated[Path, typer.Argument(help="A cascade of two exits.")],
    clips: Annotated[list[Path], typer.Argument(help="Videos.")],
    rounds: Annotated[int, typer.Option(min=0, help="Measure frames a second so often.")] = 0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Record.")] = None,
) -> None:
    """Compare what may stand in for frames that are not run."""
    measure_into(output, lambda: measure(bundle, clips, rounds))


if __name__ == "__main__":
    typer.run(main)
