"""What outputs of a detector are read as, told by small arrays alone."""

from __future__ import annotations

import numpy as np
import pytest

from dyninfer.exporters.cascade.measured import Measured, cells
from dyninfer.exporters.cascade.options import Coding, Part
from dyninfer.exporters.cascade.recognise_grids import find_dense
from dyninfer.exporters.cascade.recognise_lists import match_boxes_scores, match_rows
from dyninfer.exporters.cascade.recognise_maps import match_centernet

SIZE = (64, 96)
RNG = np.random.default_rng(0)


def measured(named: int | None = None, count: int = 1, **shapes: tuple[int, ...]) -> Measured:
    """What a detector gave for pictures: numbers in [0, 1) of these shapes."""
    samples = [
        {name: RNG.random(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(count)
    ]
    return Measured(tuple(samples), SIZE, named)


def test_boxes_of_two_outputs_stand_side_by_side_for_all_pictures() -> None:
    found = measured(count=2, hm=(1, 3, 16, 24), wh=(1, 2, 16, 24), reg=(1, 2, 16, 24))
    match = match_centernet(found)
    assert match is not None
    assert (match.coding, match.strides, match.columns) == (Coding.PEAKS, (4,), 3)
    boxes = found.boxes(match)
    assert boxes.shape == (2 * 16 * 24, 4)
    for picture, sample in enumerate(found.samples):
        for row, column in ((0, 0), (15, 23), (3, 7)):
            place = picture * 16 * 24 + row * 24 + column
            offsets, sides = sample["reg"][0, :, row, column], sample["wh"][0, :, row, column]
            np.testing.assert_array_equal(boxes[place], [*offsets, *sides])


def test_of_two_maps_that_are_called_so_the_first_is_the_heatmap() -> None:
    found = measured(
        hm=(1, 3, 16, 24), hm_pose=(1, 5, 16, 24), wh=(1, 2, 16, 24), reg=(1, 2, 16, 24)
    )
    match = match_centernet(found)
    assert match is not None
    assert (match.scores.tensors, match.columns) == (("hm",), 3)


def test_only_four_axes_with_a_single_row_between_are_a_table() -> None:
    shapes = {
        "flat": (1, 1, 9, 4),
        "column": (1, 9, 1, 4),
        "grid": (1, 3, 9, 4),
        "two": (2, 1, 9, 4),
    }
    tables = measured(**shapes).tables(range(4, 5))
    assert [(table.name, table.axes) for table in tables] == [("flat", "n1av"), ("column", "na1v")]


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers_beside_boxes_are_no_scores(kind: str) -> None:
    found = measured(one=(1, 50, 4), two=(1, 50, 3))
    for sample in found.samples:
        sample["more"] = np.zeros((1, 50, 7), kind)
    match = match_boxes_scores(found)
    assert match is not None
    assert (match.boxes[0].tensors, match.scores.tensors) == (("one",), ("two",))
    assert (match.columns, match.anchors, match.varies) == (3, 50, False)


@pytest.mark.parametrize(
    ("shape", "axes", "rows", "width"),
    [
        ((1, 60, 20), "nav", 60, 20),
        ((1, 20, 60), "nva", 60, 20),
        ((1, 20, 21), "nva", 21, 20),
        ((1, 20, 20), "nva", 20, 20),  # neither: as YOLOv8 and its successors write it
        ((1, 5, 6), "nva", 6, 5),
        ((1, 1, 60, 20), "n1av", 60, 20),
        ((1, 6, cells(SIZE, (8, 16, 32))), "nva", 126, 6),
        ((1, 126, 200), "nav", 126, 200),  # so many cells, though more numbers
        ((1, 200, 3 * 126), "nva", 3 * 126, 200),
    ],
)
def test_the_longer_side_of_a_grid_holds_its_boxes_unless_cells_tell(
    shape, axes, rows, width
) -> None:
    dense = find_dense(measured(output=shape))
    assert dense is not None
    assert (dense.axes, dense.rows, dense.width) == (axes, rows, width)


@pytest.mark.parametrize(
    ("shape", "extra", "axes"),
    [((1, 20, 60), 4, "nav"), ((1, 60, 20), 4, "nva"), ((1, 60, 20), 5, "nav")],
)
def test_known_class_names_tell_the_sides_of_a_grid_apart(shape, extra, axes) -> None:
    dense = find_dense(measured(named=56, output=shape), extra)
    assert dense is not None
    assert dense.axes == axes


def test_what_is_too_narrow_or_whole_is_no_grid() -> None:
    assert find_dense(measured(output=(1, 4, 60))) is None
    assert find_dense(measured(output=(2, 20, 60))) is None
    whole = measured(output=(1, 20, 60))
    whole.samples[0]["output"] = np.zeros((1, 20, 60), np.int64)
    assert find_dense(whole) is None
    assert find_dense(measured(one=(1, 20, 60), two=(1, 20, 61))) is None
    pair = find_dense(measured(one=(1, 20, 60), two=(1, 20, 126)))
    assert pair is not None
    assert pair.name == "two"


@pytest.mark.parametrize(
    ("width", "box", "score", "label"),
    [
        *((6, *places) for places in ((0, 4, 5), (0, 5, 4), (2, 1, 0), (2, 0, 1))),
        *((7, *places) for places in ((1, 6, 5), (1, 5, 6), (3, 2, 1))),
    ],
)
def test_columns_of_rows_are_told_by_their_values(width, box, score, label) -> None:
    rows = np.full((3, width), 17.25, np.float32)  # of boxes: neither whole nor shares
    rows[:, score] = 0.25, 0.5, 1
    rows[:, label] = 0, 7, 2
    if width == 7:
        rows[:, 0] = 0
    empty = np.full((2, width), -1, np.float32)
    found = Measured(({"output": np.concatenate([rows, empty])[None]},), SIZE, None)
    match = match_rows(found)
    assert match is not None
    assert match.boxes == (Part(("output",), "nav", box, box + 4),)
    assert match.scores == Part(("output",), "nav", score, score + 1)
    assert match.labels == Part(("output",), "nav", label, label + 1)
    assert (match.anchors, match.varies) == (5, False)


def test_the_number_of_cells_is_rounded_up_on_each_side() -> None:
    assert cells((64, 96), (8, 16, 32)) == 8 * 12 + 4 * 6 + 2 * 3
    assert cells((65, 97), (32, 64)) == 3 * 4 + 2 * 2
