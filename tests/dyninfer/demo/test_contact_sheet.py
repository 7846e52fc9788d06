from __future__ import annotations

import numpy as np
import pytest

from dyninfer.demo.contact_sheet import Column, contact_sheet, write_picture
from dyninfer.images.pictures import read_image


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
