from __future__ import annotations

import logging
import sys

import numpy as np
import pytest

import dyninfer
from tests.soak.callers import FAILING, SOUND, Image, fault_in
from tests.soak.run import Growth, soak


@pytest.mark.skipif(sys.platform != "linux", reason="what grows is read from Linux's files")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # interruptions
def test_seconds_of_everything_at_once_lose_nothing_and_mistake_nothing(tmp_path) -> None:
    """How much is done in the time does not matter, what comes of it does."""
    level = logging.getLogger("dyninfer").level
    tally, growth = soak(tmp_path, seconds=3)
    assert logging.getLogger("dyninfer").level == level  # or other tests would miss warnings
    assert not tally.lost
    assert not tally.wrong
    assert tally.calls
    assert tally.interrupted
    assert tally.forks
    assert len(growth.samples) > 1


def test_a_growth_is_told_per_minute() -> None:
    growth = Growth()
    growth.samples = [(second, 100 + 2 * second, 30, 8) for second in range(90)]
    slopes = growth.per_minute()
    assert slopes == pytest.approx({"kB of memory": 120, "descriptors": 0, "threads": 0}, abs=1e-6)


def output(exit_index: int, corner: float, *, degraded: bool = False) -> dyninfer.RawOutput:
    return dyninfer.RawOutput(
        0.5, exit_index, {"boxes_xyxy": np.full((1, 4), corner, np.float32)}, degraded
    )


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([output(0, 0), output(1, 1001)], ""),
        ([output(0, 0)], "1 answers to 2"),
        ([output(0, 1), output(1, 1000)], "box at 1.0"),
        ([output(0, 0), output(0, 1)], "left at exit 0"),
        ([output(0, 0), output(0, 1, degraded=True)], "no engine failed"),
    ],
)
def test_a_wrong_answer_is_seen(answers, fault) -> None:
    images = [Image(0.9, SOUND, 0), Image(0.1, SOUND, 1)]
    found = fault_in(images, answers, 0.5)
    assert fault in found
    assert bool(found) is bool(fault)


def test_an_image_may_be_degraded_where_the_second_exit_fails() -> None:
    images = [Image(0.1, FAILING, 0), Image(0.1, SOUND, 1)]
    early = [output(0, row, degraded=True) for row in range(2)]
    assert not fault_in(images, early, 0.5)
    assert "exit that fails" in fault_in(images, [output(1, 1000), early[1]], 0.5)
