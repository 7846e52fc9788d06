from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer.benchmarks.lab.keyframes import EVERY, Clip, rows_of


def test_what_stands_in_for_frames_in_between_costs() -> None:
    """A box moves by two thirds of its width a frame; the first exit finds none."""
    pytest.importorskip("trackers", reason="the extra track is not installed")
    black = np.zeros((100, 900, 3), np.uint8)
    frames = [dyninfer.Frame(black, number, number / 25, "made") for number in range(30)]
    boxes = [[[10 + 20 * number, 10, 40 + 20 * number, 60]] for number in range(30)]
    hard = [found(np.array(box, np.float32)) for box in boxes]
    easy = [found(np.zeros((0, 4), np.float32)) for _ in frames]
    rows = {
        (row.in_between, row.every): row.loss
        for row in rows_of(Clip("a", frames, easy, hard), 0.25)
    }
    assert rows["first exit", 30] == 1
    for every in EVERY[1:]:
        assert (
            rows["first exit", every]
            == rows["as it was", every]
            == pytest.approx(1 - 1 / every, abs=1e-4)
        )
    assert rows["tracker", 1] == 0
    assert rows["tracker", 2] <= rows["as it was", 2]


def found(boxes: np.ndarray) -> dyninfer.Detections:
    count = len(boxes)
    sure = np.full(count, 0.9, np.float32)
    return dyninfer.Detections(boxes, sure, np.zeros(count, np.int64), ("thing",) * count)
