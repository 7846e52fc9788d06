from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.evaluation.runs import WayTimes
from dyninfer.evaluation.worth import collapsed, error_of_ends, no_better, not_faster
from tests.support import write_dear_first, write_select_detectors, write_static, write_two_exits

NAMES = ("exit 0", "exit 1", "exit 2")


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ((0.234, 0.212), "a cascade costs accuracy (AP 21.2, exit 0 23.4, on 60 pictures)"),
        ((0.1, 0.3, 0.2), "a cascade costs accuracy (AP 20.0, exit 1 30.0, on 60 pictures)"),
        ((0.2, 0.2), "costs time and gains no accuracy (AP 20.0, exit 0 20.0, on 60 pictures)"),
        ((0.212, 0.234), None),
        ((0.2, None), None),
        ((None, None), None),
        ((None, 0.2), None),
        ((None, 0.3, 0.2), "costs accuracy (AP 20.0, exit 1 30.0, on 60 pictures)"),
        ((0.2,), None),
    ],
)
def test_a_last_exit_that_is_no_better_is_told(scores, told) -> None:
    line = no_better("AP", scores, NAMES, 60)
    if told is None:
        assert line is None
    else:
        assert line is not None
        assert line.startswith("the last exit is no better here: a cascade costs ")
        assert line.endswith(told)


def test_a_dear_branch_that_is_no_better_is_told_wherever_it_stands(tmp_path: Path) -> None:
    manifest = Bundle.open(write_dear_first(tmp_path / "dear.dyn")).manifest
    assert no_better("top-1", (0.8, 0.7), manifest.way_names, 60, manifest) is None
    assert no_better("top-1", (0.7, 0.8), manifest.way_names, 60, manifest) == (
        "branch 0, the dearest, is no better here: choosing it costs accuracy (top-1 70.0, branch "
        "1 80.0, on 60 pictures)"
    )
    three = SimpleNamespace(ways_by_cost=(2, 1, 0), hardest_name="branch 0, the dearest,")
    line = no_better("top-1", (0.7, 0.6, 0.75), NAMES, 60, three)
    assert str(line).endswith("costs accuracy (top-1 70.0, exit 2 75.0, on 60 pictures)")


def times(easy: tuple[float, ...], hard: tuple[float, ...]) -> WayTimes:
    steps = {"prepare": 1.0, "first": 4.0, "router": 1.0, "second": 3.0, "postprocess": 1.0}
    return WayTimes((easy, hard), (steps, steps))


def test_a_cascade_that_never_breaks_even_is_told_with_its_figures(tmp_path: Path) -> None:
    manifest = Bundle.open(write_two_exits(tmp_path / "two.dyn")).manifest
    # alone, the last network needs neither the first, 4 ms, nor the router, 1 ms
    assert not_faster(times((4.9, 4.9), (10.0, 10.0)), manifest) is None
    line = not_faster(times((5.5, 5.5), (10.0, 10.0)), manifest)
    assert line == (
        "do not cascade: with every image easy it is 5.50 ms, and the last exit's network alone "
        "takes 5.00 ms"
    )
    assert not_faster(times((4.99, 4.99), (10.0, 10.0)), manifest) is None
    level = not_faster(times((5.0, 5.0), (10.0, 10.0)), manifest)
    assert str(level).endswith("alone takes 5.00 ms; the two differ by no more than times vary")
    unsure = not_faster(times((5.0, 6.0), (10.0, 10.0)), manifest)
    assert unsure == f"{line}; the two differ by no more than times vary"
    once = not_faster(times((5.5,), (10.0,)), manifest)  # which tells nothing of how they vary
    assert once == unsure


def test_the_error_of_both_ends_is_that_of_their_means_together() -> None:
    # two blocks 1 ms apart: Student's 12.71 times a standard error of 0.5 ms
    assert error_of_ends(times((5.0, 6.0), (10.0, 10.0))) == pytest.approx(12.71 / 2)
    assert error_of_ends(times((5.0, 6.0), (10.0, 11.0))) == pytest.approx(12.71)
    assert error_of_ends(times((5.0, 5.0), (10.0, 10.0))) == 0
    between = WayTimes(((5.0, 6.0), (2.0, 9.0), (10.0, 11.0)), ({}, {}, {}))
    assert error_of_ends(between) == pytest.approx(12.71)


def test_only_a_cascade_can_be_advised_against(tmp_path: Path) -> None:
    static = Bundle.open(write_static(tmp_path / "static.dyn")).manifest
    select = Bundle.open(write_select_detectors(tmp_path / "select.dyn")).manifest
    assert not_faster(WayTimes(((9.0,),), ({"prepare": 1.0},)), static) is None
    assert not_faster(times((9.0,), (2.0,)), select) is None


def test_an_easiness_that_varies_by_rounding_alone_has_collapsed() -> None:
    assert collapsed(np.array([0.5, 0.50011, 0.5])) is None
    rounding = collapsed(np.array([0.5, 0.50009, 0.5]))
    assert rounding is not None
    assert "every easiness is 0.500000 to 0.500090, so rounding errors decide" in rounding
    assert collapsed(np.array([0.0, 1e-4])) is not None
    same = collapsed(np.array([0.5, 0.5]))
    assert same is not None
    assert "the same easiness, so HardFraction will be refused" in same
