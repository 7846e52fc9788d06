"""What it costs to decide about a video's frame by the frames before it.

``python -m dyninfer.benchmarks.lab.previous_frames everyday street.mp4 -o record.json`` runs both
ways of a cascade of two exits on every frame. A frame's loss is 1 - F1 of what its exit finds
against what the last exit finds (:func:`dyninfer.results.tasks.disagreement`), since clips have no
labels. At each share of hard frames the frame's own easiness decides, the frames before it, and
chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.errors import InputError
from dyninfer.images.sources import open_source
from dyninfer.plain_text import counted
from dyninfer.results.tasks import disagreement
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, DecisionPoint, Threshold
from dyninfer.routing.previous import PreviousFrame
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load
from dyninfer.types import BoolArray, Float32Array, Float64Array

HARD_SHARES = (0.1, 0.25, 0.5)
SETTINGS = ((0.0, 1), (0.5, 1), (0.5, 5), (0.9, 5))
"""Smoothing and hold."""


@dataclass(frozen=True)
class Clip:
    """Of every frame in order its easiness (N,), and the loss (N,) of leaving at the first exit."""

    name: str
    easiness: Float32Array
    loss: Float64Array


@dataclass(frozen=True)
class Row:
    """How frames were decided, and what came of it.

    ``otherwise`` is the share of frames that did not take the way that their own easiness would
    have sent them, ``switches`` how many of a hundred frames took another way than the one before,
    ``loss`` the mean over all frames.
    """

    clip: str
    decided_by: str
    hard_share: float
    otherwise: float
    switches: float
    loss: float


def run_clip(detector: Detector, path: Path) -> Clip:
    """Both exits' answers to every frame."""
    easiness, losses = [], []
    with open_source(path) as frames:
        for frame in frames:
            easy = detector(frame.image, policy=AlwaysEasy())
            hard = detector(frame.image, policy=AlwaysHard())
            easiness.append(easy.easiness)
            losses.append(disagreement(easy, hard))
    return Clip(path.name, np.array(easiness, np.float32), np.array(losses))


def rows_of(clip: Clip, point: DecisionPoint) -> Iterator[Row]:
    """All settings at each share; ``point`` is where the cascade decides."""
    count = len(clip.easiness)
    for share in HARD_SHARES:
        policy = Threshold(float(np.quantile(clip.easiness, share)))
        own = policy.decide(clip.easiness, point.of(np.arange(count))) == 1
        yield _row(clip, "the frame itself", own, own)
        for smoothing, hold in SETTINGS:
            before = PreviousFrame(policy, smoothing=smoothing, hold=hold)
            hard = _by_frames_before(clip, point, before)
            yield _row(clip, f"frames before, smoothing {smoothing:g}, hold {hold}", hard, own)
        chance = (1 - own.mean()) * float(clip.loss.mean())
        same = 2 * own.mean() * (1 - own.mean())
        yield Row(clip.name, "chance", float(own.mean()), same, 100 * same, chance)


def _by_frames_before(clip: Clip, point: DecisionPoint, policy: PreviousFrame) -> BoolArray:
    one, unread = point.of(np.zeros(1, np.int64)), np.full(1, np.nan, np.float32)
    hard = np.zeros(len(clip.easiness), bool)
    for frame in range(len(hard)):
        hard[frame] = policy.decide(unread, one)[0] == 1
        policy.learn(clip.easiness[frame : frame + 1], one)
    return hard


def _row(clip: Clip, decided_by: str, hard: BoolArray, own: BoolArray) -> Row:
    return Row(
        clip.name,
        decided_by,
        float(hard.mean()),
        float((hard != own).mean()),
        100 * float((hard[1:] != hard[:-1]).mean()) if len(hard) > 1 else 0.0,
        float(np.where(hard, 0.0, clip.loss).mean()),
    )


def print_rows(rows: Sequence[Row]) -> None:
    """One table for each clip."""
    for clip in dict.fromkeys(row.clip for row in rows):
        of_clip = [row for row in rows if row.clip == clip]
        print_table(
            make_table(
                clip,
                column("decided by", (row.decided_by for row in of_clip), words=True),
                column("hard", (f"{row.hard_share:.1%}" for row in of_clip)),
                column("otherwise", (f"{row.otherwise:.1%}" for row in of_clip)),
                column("switches of 100", (f"{row.switches:.1f}" for row in of_clip)),
                column("loss", (f"{row.loss:.4f}" for row in of_clip)),
            ),
            Terminal(),
        )


def measure(bundle: Path, clips: Sequence[Path]) -> dict[str, Any]:
    """The record, and the tables on the terminal.

    Raises:
        DyninferError: the bundle or a clip cannot be read, or it is no cascade of two exits.
    """
    rows: list[Row] = []
    notes = Terminal(stderr=True)
    with load(bundle) as detector:
        points = detector.points
        if len(points) != 1 or points[0].signal != "easiness":
            raise InputError(f"{bundle} is no cascade of two exits with a router")
        for path in clips:
            clip = run_clip(detector, path)
            notes.print(f"{path.name}: {counted(len(clip.loss), 'frame')}")
            rows += rows_of(clip, points[0])
    print_rows(rows)
    return record_of(
        "Deciding about a video's frame by itself and by the frames before it.",
        ["previous_frames", bundle.name, *(path.name for path in clips)],
        rows,
    )


def main(
    bundle: Annotated[Path, typer.Argument(help="A cascade of two exits.")],
    clips: Annotated[list[Path], typer.Argument(help="Videos.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Record.")] = None,
) -> None:
    """Compare the frame's own easiness with that of the frames before it."""
    measure_into(output, lambda: measure(bundle, clips))


if __name__ == "__main__":
    typer.run(main)
