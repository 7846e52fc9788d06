from __future__ import annotations

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from dyninfer.search.score import entropies, sampled_score, score_of
from dyninfer.search.space import START
from tests.dyninfer.search.structures import LARGE, MEDIUM, NARROW, RESNET_50, SMALL
from tests.support import ROOT

SCORES = {
    "small": (SMALL, 1731.907009966715),
    "medium": (MEDIUM, 2114.7828676827894),
    "large": (LARGE, 2599.396120322784),
    "start": (START, 400.72610801442045),
    "resnet50": (RESNET_50, 1174.2983038321743),
}


@pytest.mark.parametrize("name", SCORES)
def test_closed_form(name: str) -> None:
    structure, expected = SCORES[name]
    assert score_of(structure) == pytest.approx(expected, rel=1e-9)


def test_entropies_of_the_stages() -> None:
    expected = (math.log(27) / 2 + math.log(32), 54.96125632, 150.19609569, 254.45827632722495)
    first, _, *others = entropies(SMALL)
    assert (first, *others) == pytest.approx(expected, abs=1e-8)


def test_the_score_of_the_vectors() -> None:
    with np.load(ROOT / "tests/vectors/zendet-narrow.npz") as vectors:
        assert score_of(NARROW) == pytest.approx(float(vectors["score"]), rel=1e-9)


def test_sampled_at_480_is_within_one_percent() -> None:
    """On one thread: OpenBLAS's wait for each other where others use the processors, too."""
    program = (
        "from tests.dyninfer.search.structures import SMALL\n"
        "from dyninfer.search.score import sampled_score\n"
        "print(sampled_score(SMALL, (480, 480)))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(1731.907, rel=0.01)


def test_sampled_is_measured_with_groups_and_a_stride_in_the_middle() -> None:
    """Small maps lose more at their borders."""
    for structure in (NARROW, START):
        assert sampled_score(structure, (64, 96)) == pytest.approx(score_of(structure), rel=0.1)
    assert sampled_score(NARROW, (64, 64)) == sampled_score(NARROW, (64, 64))
    assert sampled_score(NARROW, (64, 64)) != sampled_score(NARROW, (64, 64), seed=1)
