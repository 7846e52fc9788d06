"""Four streams under one budget: what each gets, how long it waits, and how good the answers are.

``python -m dyninfer.benchmarks.lab.four_streams everyday a.mp4 b.mp4 -o record.json`` runs each
clip twice at once, from its beginning and from its middle, under several budgets. Between answers a
stream keeps its last one; its loss is 1 - F1 of that against what the last exit finds in each frame
(:func:`dyninfer.results.tasks.disagreement`), since clips have no labels. Beside it stands the same
budget spent by turns on the first exit, and by turns on the last one: whoever waited longest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.images.frames import Frame, FrameSource
from dyninfer.images.sources import open_source
from dyninfer.results.answers import Detections
from dyninfer.results.tasks import disagreement
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.routing.sharing import longest_wait_s
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.many_streams import run_streams
from dyninfer.runtime.opening import load

BUDGETS = (50.0, 100.0, 200.0, 400.0)
"""Milliseconds of work a second."""
FAIRNESS = 0.5
_SECONDS = 10.0


class _Part(FrameSource):
    """Some seconds of a clip, with times that begin at 0."""

    def __init__(self, path: Path, frames: Sequence[Frame]) -> None:
        super().__init__(path.name, len(frames))
        self._frames = iter(frames)

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class Row:
    """One budget, shared out or spent by turns.

    ``answers`` of ``frames``, ``hard`` those at the last exit; ``longest_wait_s`` of any stream,
    and ``bound_s`` what was promised; ``loss`` the mean over all frames of all streams, and
    ``loss_of`` that over those of each clip.
    """

    budget: float
    shared: str
    ms_per_second: float
    frames: int
    answers: int
    hard: int
    longest_wait_s: float
    bound_s: float
    loss: float
    loss_of: dict[str, float]


def parts_of(clips: Sequence[Path]) -> dict[str, list[Frame]]:
    """Two parts of each clip, as long as the clip allows."""
    found = {}
    for clip in clips:
        with open_source(clip) as frames:
            all_frames = list(frames)
        middle = len(all_frames) // 2
        for start in (0, middle):
            part = all_frames[start:]
            begin = part[0].time_s or 0.0
            kept = [
                Frame(f.image, n, (f.time_s or 0.0) - begin, f.source)
                for n, f in enumerate(part)
                if (f.time_s or 0.0) - begin < _SECONDS
            ]
            found[f"{clip.stem} {start}"] = kept
    return found


def run_budget(
    detector: Detector,
    parts: Mapping[str, Sequence[Frame]],
    truth: Mapping[str, Sequence[Detections]],
    budget: float,
    shared: str,
    policy: Policy | None,
) -> Row:
    """All streams once under a budget."""
    sources = {name: _Part(Path(name), frames) for name, frames in parts.items()}
    answers: dict[str, dict[int, Detections]] = {name: {} for name in parts}
    with run_streams(sources, detector, budget=budget, fairness=FAIRNESS, policy=policy) as streams:
        for result in streams:
            answers[result.stream][result.frame.index] = result.detections
        spent, dearest_ms = streams.spent_ms / streams.seconds, max(streams.way_ms)
    losses: dict[str, list[float]] = {}
    waits, hard = [], 0
    for name, frames in parts.items():
        latest, since = None, 0.0
        of_clip = losses.setdefault(name.split()[0], [])
        for number, frame in enumerate(frames):
            found = answers[name].get(number)
            if found is not None:
                waits.append((frame.time_s or 0.0) - since)
                latest, since = found, frame.time_s or 0.0
                hard += found.exit_index == len(detector.manifest.ways) - 1
            of_clip.append(1.0 if latest is None else disagreement(latest, truth[name][number]))
    return Row(
        budget,
        shared,
        spent,
        sum(map(len, parts.values())),
        sum(map(len, answers.values())),
        hard,
        max(waits),
        longest_wait_s(len(parts), budget, FAIRNESS, dearest_ms),
        float(np.mean([loss for of_clip in losses.values() for loss in of_clip])),
        {clip: float(np.mean(of_clip)) for clip, of_clip in losses.items()},
    )


def measure(bundle: Path, clips: Sequence[Path]) -> dict[str, Any]:
    """The record, and its table on the terminal.

    Raises:
        DyninferError: the bundle or a clip cannot be read.
    """
    ways: dict[str, Policy | None] = {
        "by gain": None,
        "by turns, first exit": AlwaysEasy(),
        "by turns, last exit": AlwaysHard(),
    }
    with load(bundle) as detector:
        parts = parts_of(clips)
        truth = {
            name: [detector(frame.image, policy=AlwaysHard()) for frame in frames]
            for name, frames in parts.items()
        }
        rows = [
            run_budget(detector, parts, truth, budget, name, policy)
            for budget in BUDGETS
            for name, policy in ways.items()
        ]
    print_table(
        make_table(
            f"{bundle.name}, {len(parts)} streams of {_SECONDS:g} s",
            column("ms/s", (f"{row.budget:g}" for row in rows)),
            column("shared", (row.shared for row in rows), words=True),
            column("spent", (f"{row.ms_per_second:.0f}" for row in rows)),
            column("answers", (f"{row.answers} of {row.frames}" for row in rows)),
            column("last exit", (str(row.hard) for row in rows)),
            column("longest wait", (f"{row.longest_wait_s:.2f} s" for row in rows)),
            column("bound", (f"{row.bound_s:.2f} s" for row in rows)),
            column("loss", (f"{row.loss:.3f}" for row in rows)),
            *(
                column(clip, (f"{row.loss_of[clip]:.3f}" for row in rows))
                for clip in rows[0].loss_of
            ),
        ),
        Terminal(),
    )
    return record_of(
        "Four streams under one budget, shared out by gain per millisecond or by turns. "
        "What sharing takes for granted (how much an audit counts, how often there is one) was "
        "chosen on car-detection.mp4 alone.",
        ["four_streams", bundle.name, *(path.name for path in clips)],
        rows,
    )


def main(
    bundle: Annotated[Path, typer.Argument(help="A cascade.")],
    clips: Annotated[list[Path], typer.Argument(help="Videos; each is run twice at once.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Record.")] = None,
) -> None:
    """Share one budget among four streams."""
    measure_into(output, lambda: measure(bundle, clips))


if __name__ == "__main__":
    typer.run(main)
