from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dyninfer.demo.curve_picture import Mark, write_curve_picture
from dyninfer.errors import MissingExtra
from tests.dyninfer.evaluation.test_routed_curve import ROWS
from tests.support import refuses

MARKS = [Mark("exit 0 only", 4, 0.5), Mark("50% hard", 6, 0.64), Mark("exit 1 always", 8, 0.65)]


def test_a_picture_shows_three_lines_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    write_curve_picture(path, ROWS, MARKS, "four pictures", "a machine")
    picture = cv2.imread(str(path))
    assert picture is not None
    assert min(picture.shape[:2]) >= 600
    for bgr in ((178, 114, 0), (0, 94, 213), (122, 122, 122)):
        assert (np.abs(picture.astype(int) - bgr).max(axis=2) < 8).sum() > 100


def test_a_single_row_is_drawn_too(tmp_path: Path) -> None:
    write_curve_picture(tmp_path / "one.png", ROWS[:1], MARKS[:1], "", "")
    assert (tmp_path / "one.png").stat().st_size > 0


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with refuses(MissingExtra, "dyninfer[demo]"):
        write_curve_picture(tmp_path / "curve.png", ROWS, MARKS, "", "")
    assert not (tmp_path / "curve.png").exists()
