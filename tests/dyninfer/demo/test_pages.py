from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from dyninfer.demo.pages import Column, contact_sheet, draw_curve, write_picture
from dyninfer.errors import MissingExtra
from dyninfer.evaluation.runs import CurvePoint, Timed
from dyninfer.images.pictures import read_image
from dyninfer.results.scores import Scores
from dyninfer.routing.goals import HardFraction
from tests.dyninfer.evaluation.test_routed_curve import ROWS
from tests.support import refuses

POINTS = [
    CurvePoint(HardFraction(share), share, Scores(ap), Timed((ms,), ()))
    for share, ms, ap in ((0.0, 4.0, 0.5), (0.5, 6.0, 0.64), (1.0, 8.0, 0.65))
]


def solid(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_columns_of_different_lengths_and_sizes_share_a_page() -> None:
    columns = [
        Column("a", [solid(10, 10, 10), solid(30, 90, 20)], (0, 0, 255)),
        Column("a title that is far too long for a tile of this size", [solid(64, 64, 30)]),
        Column("empty", []),
    ]
    page = contact_sheet("page", columns, 64)
    height, width = page.shape[:2]
    assert height > 2 * 64
    assert width > 3 * 64
    for value in (10, 20, 30):
        assert (page == value).all(2).any()
    assert (page == (0, 0, 255)).all(2).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_extreme_pictures_are_never_cropped(size: tuple[int, int]) -> None:
    page = contact_sheet("page", [Column("a", [solid(*size, 7)])], 50)
    assert (page == 7).all(2).any()


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_picture_is_written_without_a_word_of_the_encoder(suffix, tmp_path, capfd) -> None:
    path = tmp_path / "new" / f"page{suffix}"
    write_picture(path, solid(20, 30, 128))
    assert capfd.readouterr().err == ""
    assert read_image(path).shape == (20, 30, 3)


def test_a_picture_shows_three_lines_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    draw_curve(path, ROWS, POINTS, "four pictures", "a machine")
    picture = cv2.imread(str(path))
    assert picture is not None
    assert min(picture.shape[:2]) >= 600
    for bgr in ((178, 114, 0), (0, 94, 213), (122, 122, 122)):
        assert (np.abs(picture.astype(int) - bgr).max(axis=2) < 8).sum() > 100


def test_a_single_row_is_drawn_too(tmp_path: Path) -> None:
    draw_curve(tmp_path / "one.png", ROWS[:1], POINTS[:1], "", "")
    assert (tmp_path / "one.png").stat().st_size > 0


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with refuses(MissingExtra, "[demo]"):
        draw_curve(tmp_path / "curve.png", ROWS, POINTS, "", "")
    assert not (tmp_path / "curve.png").exists()
