"""What outputs of a detector are read as, told by small arrays alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dyninfer.exporters.cascade.measured import Measured, cells
from dyninfer.exporters.cascade.options import Coding, Decode, Match, Part
from dyninfer.exporters.cascade.original import read_part
from dyninfer.exporters.cascade.recognise import MATCHERS, recognise
from dyninfer.exporters.cascade.recognise_grids import (
    find_dense,
    is_undecoded,
    match_nanodet,
    match_yolov5,
    match_yolov8,
    match_yolox,
)
from dyninfer.exporters.cascade.recognise_lists import match_boxes_scores, match_lists, match_rows
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
        "line": (4,),
    }
    tables = measured(**shapes).tables(range(4, 5))
    assert [(table.name, table.axes, table.rows) for table in tables] == [
        ("flat", "n1av", 9),
        ("column", "na1v", 9),
    ]


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool"])
def test_a_table_holds_floating_point_numbers(kind: str) -> None:
    arrays = {"whole": np.zeros((1, 9, 4), kind), "last": np.zeros((1, 7, 4), np.float16)}
    tables = Measured((arrays,), SIZE, None).tables(range(4, 5))
    assert [table.name for table in tables] == ["last"]


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
        ((1, 200, 126), "nva", 126, 200),
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
    [
        ((1, 20, 60), 4, "nav"),
        ((1, 60, 20), 4, "nva"),
        ((1, 60, 20), 5, "nav"),
        ((1, 60, 70), 4, "nva"),
        ((1, 70, 60), 4, "nav"),
        ((1, 60, 60), 4, "nva"),
        ((1, 126, 20), 4, "nav"),
    ],
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
    for other in ((2, 20, 60), (1, 21, 60), (1, 20, 61)):
        changing = measured(output=(1, 20, 60)).samples + measured(output=other).samples
        assert find_dense(Measured(changing, SIZE, None)) is None
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
    assert (match.anchors, match.varies, match.columns) == (5, False, 0)
    if width == 7:
        rows[1, 0] = 0.5  # no number of an image
        assert match_rows(Measured(({"output": rows[None]},), SIZE, None)) is None


def test_the_number_of_cells_is_rounded_up_on_each_side() -> None:
    assert cells((64, 96), (8, 16, 32)) == 8 * 12 + 4 * 6 + 2 * 3
    assert cells((65, 97), (32, 64)) == 3 * 4 + 2 * 2


def given(declared: dict[str, tuple[int | None, ...]] | None = None, **values) -> Measured:
    """What a detector gave for one picture: these numbers."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    return Measured((arrays,), SIZE, None, declared or {})


@pytest.mark.parametrize(
    ("values", "integral", "in_unit"),
    [
        (np.float32([0, 1]), True, True),
        (np.float32([-0.001, 1.001]) * np.float32(0.999), False, True),
        (np.float32([-0.0011]), False, False),
        (np.float32([1.0011]), False, False),
        (np.float32([-1, 7]), True, False),
        (np.float32([0.5, np.inf]), False, False),
        (np.float32([np.nan]), False, False),
        (np.float32([np.inf]), False, False),
        (np.int64([0, 1]), True, True),
        (np.uint8([0, 2]), True, False),
        (np.float32([]), True, True),
    ],
)
def test_whole_numbers_and_shares_are_told_by_all_of_them(values, integral, in_unit) -> None:
    found = given(x=values)
    assert (found.integral("x"), found.in_unit("x")) == (integral, in_unit)
    later = Measured(({"x": np.float32([1])}, {"x": values}), SIZE, None)
    assert (later.integral("x"), later.in_unit("x")) == (integral, in_unit)


def test_an_axis_that_changes_or_is_declared_as_open_has_no_length() -> None:
    samples = tuple(
        {"odd": odd, "out": np.zeros((1, rows, 6), "f4"), "flat": np.zeros((9, 6), "f4")}
        for rows, odd in ((5, np.zeros(3)), (7, np.zeros((1, 3))))
    )
    found = Measured(samples, SIZE, None)
    assert found.outputs is samples[0]
    assert found.shapes == {"out": (1, None, 6), "flat": (9, 6)}
    tables = {table.name: table for table in found.tables(range(6, 7))}
    assert {name: (t.axes, t.rows, t.varies, t.anchors) for name, t in tables.items()} == {
        "out": ("nav", None, True, 300),
        "flat": ("av", None, True, 300),
    }
    for declared, rows in (((1, 5, 6), 5), ((1, None, 6), None), ((None, 5, 6), 5), ((), 5)):
        one = Measured(samples[:1], SIZE, None, {"out": declared})
        assert next(iter(one.tables(range(6, 7)))).rows == rows
        assert one.rows_of("out", 0) is None


def test_grids_and_counts_of_an_image() -> None:
    found = measured(x=(1,))
    levels = {126: (8, 16, 32), 128: (8, 16, 32, 64), 510: (4, 8, 16, 32), 30: (16, 32)}
    levels[129] = (8, 16, 32, 64, 128)
    assert found.grids == levels
    assert found.counts == {*levels} | {3 * count for count in levels}


def nanodet(classes: int, sides: int, levels: tuple[int, ...] = (8, 16, 32)) -> dict:
    """Outputs of NanoDet, the smallest level first and scores after distances."""
    found = {}
    for stride in reversed(levels):
        found[f"sides{stride}"] = (1, cells(SIZE, (stride,)), sides)
        found[f"scores{stride}"] = (1, cells(SIZE, (stride,)), classes)
    return found


@pytest.mark.parametrize(
    ("classes", "sides", "named", "levels"),
    [
        (80, 32, None, (8, 16, 32)),
        (32, 80, 32, (8, 16, 32)),
        (3, 8, None, (8, 16)),
        (7, 44, None, (8, 16, 32, 64)),
        (4, 8, 4, (4, 128)),
        (80, 44, 7, (8, 16, 32)),  # named otherwise: COCO's
    ],
)
def test_levels_of_nanodet_are_sorted_and_their_outputs_told_apart(classes, sides, named, levels):
    outputs = nanodet(classes, sides, levels)
    match = match_nanodet(measured(named, **outputs))
    assert match is not None
    assert match == match_nanodet(measured(named, **dict(reversed(outputs.items()))))
    assert recognise(measured(named, **outputs)) is Decode.NANODET
    assert match.scores == Part(tuple(f"scores{n}" for n in levels), "nav")
    assert match.boxes == (Part(tuple(f"sides{n}" for n in levels), "nav"),)
    assert (match.coding, match.strides, match.bins) == (Coding.DISTANCES, levels, sides // 4)
    assert (match.columns, match.anchors) == (classes, sum(cells(SIZE, (n,)) for n in levels))


def test_what_is_no_level_of_nanodet_is_not_read_so() -> None:
    right = nanodet(3, 8)
    assert match_nanodet(measured(**right)) is not None
    assert match_nanodet(measured(**right, of_no_image=(0, 24, 5))) is not None
    assert match_nanodet(measured(**right | {"sides16": (1, 24, 10)})) is None  # no fourths
    assert match_nanodet(measured(**right | {"sides16": (1, 24, 12)})) is None  # more bins
    assert match_nanodet(measured(**{n: s for n, s in right.items() if "8" in n})) is None
    assert match_nanodet(measured(**nanodet(3, 4))) is None  # one bin each
    off = right | {"sides16": (1, 25, 8), "scores16": (1, 25, 3)}
    assert match_nanodet(measured(**off)) is None
    unsure = measured(**nanodet(12, 8))
    assert match_nanodet(unsure) is None  # both within [0, 1]
    for stride in (8, 16, 32):
        unsure.samples[0][f"sides{stride}"][0, 0, 0] = 2
    match = match_nanodet(unsure)
    assert match is not None
    assert (match.columns, match.bins) == (12, 2)
    unsure.samples[0]["scores16"][0, 0, 0] = 2
    assert match_nanodet(unsure) is None  # neither is


@pytest.mark.parametrize(
    ("width", "named", "classes", "bins"),
    [
        (112, None, 80, 8),
        (33, None, 1, 8),
        (11, 3, 3, 2),
        (31, 3, 3, 7),
        (32, None, None, None),
        (7, 3, None, None),
        (12, 3, None, None),
    ],
)
def test_nanodet_in_one_output_has_scores_before_distances(width, named, classes, bins) -> None:
    match = match_nanodet(measured(named, out=(1, 126, width)))
    if classes is None:
        assert match is None
        return
    assert match is not None
    assert match.scores == Part(("out",), "nav", 0, classes)
    assert match.boxes == (Part(("out",), "nav", classes, width),)
    assert (match.columns, match.anchors, match.bins) == (classes, 126, bins)
    assert match.strides == (8, 16, 32)
    assert match_nanodet(measured(named, out=(1, 127, width))) is None


@pytest.mark.parametrize(
    ("boxes", "undecoded"),
    [
        ([[0.5, 0.5, -1, 2]], True),
        ([[0.5, 0.5, 1, 2.1]], True),
        ([[0.5, 0.5, 1, 2]], False),  # shares
        ([[0.5, 0.5, 0, 2]], False),
        ([[-0.5, 0.5, 0, 0.5]], False),
        ([[0.5, 0.5, -1, 8.1]], False),
        ([[0.5, 0.5, -1, -8.1]], False),
        ([[0.5, 0.5, -1, 7.9]], True),
        ([[0.5, 0.5, -1, 2], [0.5, 0.5, -1, 900]], True),  # one number of 504
        ([[0.5, 0.5, -1, 2], [0.5, 0.5, -1, np.inf]], False),
        ([[0.5, 0.5, -1, 2], [0.5, np.nan, -1, 2]], False),
    ],
)
def test_offsets_within_cells_are_told_from_boxes(boxes, undecoded) -> None:
    rows = np.zeros((1, 126, 8), np.float32)
    rows[..., :4] = boxes[0]
    rows[0, -1, :4] = boxes[-1]
    assert is_undecoded(given(out=rows), "out") is undecoded
    assert not is_undecoded(given(out=rows), "other")
    assert not is_undecoded(given(out=rows[:, :125]), "out")
    assert recognise(given(out=rows)) is (Decode.YOLOX if undecoded else None)


def test_columns_of_grids_lie_where_the_decodes_have_them() -> None:
    def part(start: int, stop: int) -> Part:
        return Part(("out",), "nav", start, stop)

    found = measured(out=(1, 126, 8))
    assert match_yolov8(found) == Match((part(0, 4),), part(4, 8), 4, 126)
    five = Match((part(0, 4),), part(5, 8), 3, 126, objectness=part(4, 5))
    assert match_yolov5(found) == five
    assert match_yolox(found) == replace(five, coding=Coding.CELLS, strides=(8, 16, 32))
    narrow = measured(out=(1, 126, 5))
    assert match_yolov5(narrow) is match_yolox(narrow) is None
    assert match_yolov8(narrow) is not None
    assert match_yolox(measured(out=(1, 3 * 126, 8))) is None


@pytest.mark.parametrize(
    ("shape", "named", "decode"),
    [
        ((1, 126, 84), None, Decode.YOLOV8),
        ((1, 126, 85), None, Decode.YOLOV5),
        ((1, 126, 112), None, Decode.NANODET),
        ((1, 126, 100), None, Decode.NANODET),  # the fewest bins
        ((1, 126, 96), None, None),
        ((1, 126, 208), None, Decode.NANODET),  # the most
        ((1, 126, 212), None, None),
        ((1, 127, 112), None, None),
        ((1, 126, 9), 5, Decode.YOLOV8),
        ((1, 126, 9), 4, Decode.YOLOV5),
        ((1, 126, 23), 3, Decode.NANODET),
        ((1, 126, 9), None, None),
        ((1, 126, 9), 3, None),
        ((1, 3 * 126, 9), None, Decode.YOLOV5),
        ((1, 3 * 127, 9), None, None),
        ((1, 3 * 126 + 1, 9), None, None),
        ((1, 3 * 126 - 1, 9), None, None),
        ((1, 9, 126), None, Decode.YOLOV8),
    ],
)
def test_the_decode_of_one_grid(shape, named, decode) -> None:
    assert recognise(measured(named, out=shape)) is decode


@pytest.mark.parametrize(
    ("columns", "high", "named", "name", "decode"),
    [
        (5, 1.0, None, "scores", Decode.BOXES_SCORES),
        (5, 1.0, None, "logits", Decode.DETR),
        (5, 4.0, None, "scores", Decode.DETR),  # the last column wins most boxes
        (5, 4.0, 5, "scores", Decode.RTDETR),
        (5, 4.0, 4, "scores", Decode.DETR),
        (1, 4.0, None, "scores", Decode.RTDETR),
        (80, 4.0, None, "scores", Decode.RTDETR),
        (81, 4.0, None, "scores", Decode.DETR),
        (91, 4.0, None, "scores", Decode.RTDETR),
        (92, 4.0, None, "scores", Decode.DETR),
    ],
)
def test_what_scores_beside_boxes_are(columns, high, named, name, decode) -> None:
    scores = np.full((1, 10, columns), 0.25, np.float32)
    scores[0, :6, -1] = high
    found = Measured(({"boxes": np.ones((1, 10, 4), "f4"), name: scores},), SIZE, named)
    assert recognise(found) is decode
    if columns == 5 and decode is Decode.DETR and named is None:
        scores[0, 5] = 0.25  # it wins no more than half
        assert recognise(found) is Decode.RTDETR


@pytest.mark.parametrize(
    ("columns", "named", "decode"),
    [
        (91, None, Decode.RTDETR),
        (92, None, Decode.DETR),
        (93, None, Decode.RTDETR),
        (5, 4, Decode.DETR),
        (5, 3, Decode.RTDETR),
        (5, 6, Decode.RTDETR),
        (81, None, Decode.RTDETR),
    ],
)
def test_a_column_more_than_classes_is_one_for_nothing_though_it_wins_no_box(
    columns, named, decode
) -> None:
    scores = np.full((1, 10, columns), -4, np.float32)
    scores[..., 0] = 4
    boxes = np.ones((1, 10, 4), np.float32)
    assert recognise(Measured(({"boxes": boxes, "scores": scores},), SIZE, named)) is decode


def test_names_tell_rows_of_yolov8_from_those_of_yolov5() -> None:
    by_four, by_five = (measured(named=56, output=(1, wide, 20)) for wide in (60, 61))
    for found, match, kept in ((by_four, match_yolov8, 56), (by_five, match_yolov5, 56)):
        read = match(found)
        assert read is not None
        assert (read.anchors, read.columns, read.scores.axes) == (20, kept, "nva")
    for found, match in ((by_four, match_yolov5), (by_five, match_yolov8)):
        read = match(found)
        assert read is not None
        assert read.scores.axes == "nav"


def test_the_outputs_of_rf_detr_are_told_by_their_names() -> None:
    scores = np.full((1, 10, 5), 4, np.float32)
    scores[..., -1] = 5  # of others it would be the column for nothing
    assert recognise(given(dets=np.ones((1, 10, 4), "f4"), labels=scores)) is Decode.RTDETR


def test_more_than_a_thousand_rows_are_a_grid() -> None:
    for width, decode in ((6, Decode.DETECTIONS), (7, Decode.YOLO_END2END)):
        rows = np.full((1, 1000, width), 17.25, np.float32)
        rows[..., -2:] = 0.5, 1
        if width == 7:
            rows[..., 0], rows[..., -2:] = 0, (1, 0.5)
        assert recognise(given(out=rows)) is decode
        more = np.concatenate([rows, rows[:, :1]], 1)
        assert recognise(given(out=more)) is not decode


BOXES = np.float32([[[5, 6, 50, 60]] * 3])
SCORES, LABELS = np.float32([[0.9, 0.5, 0.2]]), np.int64([[2, 0, 1]])


def test_lists_are_told_by_their_names_and_else_by_their_values() -> None:
    by_names = match_lists(given(boxes=BOXES, scores=SCORES, classes=LABELS))
    by_values = match_lists(given(a=BOXES, b=SCORES, c=LABELS))
    assert by_names is not None
    assert by_values is not None
    assert by_names.tensors == ("boxes", "scores", "classes")
    assert by_values.tensors == ("a", "b", "c")
    assert (by_names.anchors, by_names.columns, by_names.varies, by_names.best) == (
        3,
        0,
        False,
        False,
    )
    assert (by_names.boxes[0].axes, by_names.scores.axes) == ("nav", "na")
    ones = np.float32([[1, 1, 0]])  # confidences of 0 and 1 are whole, too
    for labels in (LABELS, LABELS.astype("f4")):
        match = match_lists(given(a=BOXES, b=ones, class_ids=labels))
        assert match is not None
        assert (match.scores.tensors, match.labels) == (("b",), Part(("class_ids",), "na"))
    unnamed = match_lists(given(a=BOXES, b=ones, c=LABELS))
    assert unnamed is not None
    assert unnamed.tensors == ("a", "b", "c")


@pytest.mark.parametrize(
    "outputs",
    [
        {"boxes": BOXES, "scores": SCORES},
        {"boxes": BOXES, "scores": SCORES, "classes": SCORES},
        {"boxes": BOXES, "classes": LABELS},
        {"boxes": BOXES, "classes": LABELS, "other": SCORES + 1},
        {"raw_boxes": BOXES, "scores": SCORES, "classes": LABELS},
        {"boxes": np.ones((1, 3, 6), "f4"), "scores": SCORES, "classes": LABELS},
        {"boxes": BOXES, "scores": SCORES[:, :2], "classes": LABELS},
        {"boxes": BOXES, "scores": SCORES, "raw_classes": LABELS},
    ],
)
def test_what_lacks_boxes_scores_or_labels_is_no_list(outputs) -> None:
    assert match_lists(given(**outputs)) is None


def test_boxes_that_are_called_so_go_before_others() -> None:
    found = given(a=BOXES, box=BOXES, scores=SCORES, classes=LABELS)
    match = match_lists(found)
    assert match is not None
    assert match.boxes[0].tensors == ("box",)


def test_a_fifth_number_of_a_box_is_its_confidence() -> None:
    dets = np.float32([[[5, 6, 50, 60, 0.5]] * 3])
    match = match_lists(given(dets=dets, labels=LABELS))
    assert match is not None
    assert match.boxes == (Part(("dets",), "nav", 0, 4),)
    assert match.scores == Part(("dets",), "nav", 4, 5)


@pytest.mark.parametrize(
    ("count", "is_count"),
    [([3], True), ([0], True), ([4], False), ([-1], False), ([[2]], True), ([1.5], False)],
)
def test_a_number_of_valid_rows_is_no_more_than_there_are(count, is_count) -> None:
    found = given(num=count, **{"boxes": BOXES, "scores": SCORES, "classes": LABELS})
    match = match_lists(found)
    assert match is not None
    assert match.count == (Part(("num",), "n1") if is_count else None)
    other = dict(found.outputs) | {"first": np.int64([1])}
    match = match_lists(given(**other))
    assert match is not None
    assert match.count == Part(("num" if is_count else "first",), "n1")


@pytest.mark.parametrize(
    ("count", "decode"),
    [
        ({}, Decode.BOXES_SCORES_LABELS),
        ({"num": [3]}, Decode.BOXES_SCORES_LABELS),
        ({"num_dets": [3]}, Decode.YOLO_END2END),
    ],
)
def test_lists_of_efficient_nms_are_told_by_the_name_of_their_number(count, decode) -> None:
    lists = {"boxes": BOXES, "scores": SCORES, "classes": LABELS}
    assert recognise(given(**lists, **count)) is decode
    for kind in (Decode.BOXES_SCORES_LABELS, Decode.YOLO_END2END):
        assert MATCHERS[kind](given(**lists, **count)) == match_lists(given(**lists, **count))


def test_lists_without_an_axis_of_images_have_any_number_of_rows() -> None:
    flat = {name: array[0] for name, array in {"a": BOXES, "b": SCORES, "c": LABELS}.items()}
    match = match_lists(given(**flat))
    assert match is not None
    assert (match.anchors, match.varies, match.best, match.scores.axes) == (300, True, True, "a")


@pytest.mark.parametrize(
    ("boxes", "labels", "axes"),
    [
        ((1, 3, 4), (1, 3), "na"),
        ((1, 3, 4), (1, 3, 1), "na1"),
        ((1, 3, 4), (3,), "a"),
        ((1, 3, 4), (3, 1), "a1"),
        ((3, 4), (3,), "a"),
        ((3, 4), (3, 1), "a1"),
        ((1, 1, 4), (1, 1), "na"),
        ((1, 4), (1, 1), "a1"),
        ((1, 3, 4), (1, 1, 3), None),
        ((3, 4), (1, 3), None),
        ((1, 3, 4), (1, 3, 1, 1), None),
        ((1, 1, 4), (), None),
    ],
)
@pytest.mark.parametrize("changing", [False, True])
def test_lists_have_a_row_for_every_box_whatever_their_axes(boxes, labels, axes, changing) -> None:
    """Where the number of rows changes, an axis has no length."""
    samples = []
    for rows in (3, 2) if changing else (3,):

        def of(shape: tuple[int, ...], rows: int = rows) -> tuple[int, ...]:
            return tuple(rows if side == 3 else side for side in shape)

        made = {"boxes": np.full(of(boxes), 17.25, "f4"), "classes": np.ones(of(labels), "i8")}
        made["scores"] = np.full(of(labels), 0.5, "f4")
        samples.append(made)
    match = match_lists(Measured(tuple(samples), SIZE, None))
    if axes is None:
        assert match is None
        return
    assert match is not None
    assert match.labels == Part(("classes",), axes)
    assert match.scores == Part(("scores",), axes)
    assert [len(read_part(match.scores, s)) for s in samples] == [
        len(read_part(match.boxes[0], s)) for s in samples
    ]


@pytest.mark.parametrize(
    ("first", "second", "label"),
    [([1, 0, 1], [0, 0, 0], "b"), ([0, 0, 0], [1, 0, 1], "a"), ([0, 0, 0], [-1, -1, -1], "a")],
)
def test_of_whole_numbers_the_smaller_ones_are_labels(first, second, label) -> None:
    match = match_lists(given(x=BOXES, a=np.int64([first]), b=np.int64([second]), scores=SCORES))
    assert match is not None
    assert match.labels == Part((label,), "na")


def test_of_several_that_would_do_the_first_is_read() -> None:
    lists = {"boxes": BOXES, "classes": LABELS}
    match = match_lists(given(scores=SCORES, conf=SCORES / 2, num=[3], valid=[2], **lists))
    assert match is not None
    assert (match.scores.tensors, match.count) == (("scores",), Part(("num",), "n1"))
    of_few = {"box": BOXES[:, :2], "class_ids": LABELS[:, :2]}  # without scores
    match = match_lists(given(**of_few, other=BOXES, scores=SCORES, labels=LABELS))
    assert match is not None
    assert match.tensors == ("other", "scores", "labels")
    match = match_lists(given(box=BOXES[:, :2], other=BOXES, scores=SCORES, labels=LABELS))
    assert match is not None
    assert match.tensors == ("other", "scores", "labels")


@pytest.mark.parametrize(
    ("score", "label", "fits"),
    [
        (1.0009, 1, True),
        (1.0011, 1, False),
        (-0.0009, 1, True),
        (-0.0011, 1, False),
        (0.5, -1, True),
        (0.5, -2, False),
    ],
)
def test_rows_hold_shares_and_whole_numbers_from_minus_one_on(score, label, fits) -> None:
    rows = np.full((1, 3, 6), 17.25, np.float32)
    rows[..., 4:] = 0.5, 1
    rows[0, 2, 4:] = score, label
    assert (match_rows(given(out=rows)) is not None) is fits
    assert match_rows(given(one=rows, two=rows)) is None
    assert (match_rows(given(one=rows, two=rows), (7,)) or None) is None


@pytest.mark.parametrize(("largest", "logs"), [(5.9, True), (6.1, False)])
def test_sizes_of_the_surest_peaks_tell_whether_they_are_logarithms(largest, logs) -> None:
    found = measured(hm=(1, 3, 16, 24), dims=(1, 2, 16, 24), reg=(1, 2, 16, 24))
    found.samples[0]["dims"][0, 1, 3, 7] = largest
    found.samples[0]["dims"][0, 1, 5, 5] = 900  # of no peak
    found.samples[0]["hm"][0, :, 3, 7], found.samples[0]["hm"][0, :, 5, 5] = 1, 0
    match = match_centernet(found)
    assert match is not None
    assert match.log_sizes is logs


MAPS = {"hm": (1, 3, 16, 24), "wh": (1, 2, 16, 24), "reg": (1, 2, 16, 24)}


def last_axis(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: (n, h, w, v) for name, (n, v, h, w) in shapes.items()}


@pytest.mark.parametrize(
    ("shapes", "read"),
    [
        (MAPS, ("hm", "wh", "reg", 4)),
        (last_axis(MAPS), ("hm", "wh", "reg", 4)),
        ({n: (1, shape[1], 4, 6) for n, shape in MAPS.items()}, ("hm", "wh", "reg", 16)),
        ({n: (1, shape[1], 64, 96) for n, shape in MAPS.items()}, ("hm", "wh", "reg", 1)),
        ({n: (1, shape[1], 2, 3) for n, shape in MAPS.items()}, None),  # a stride of 32
        ({n: (1, shape[1], 16, 23) for n, shape in MAPS.items()}, None),
        ({n: (1, shape[1], 15, 24) for n, shape in MAPS.items()}, None),
        ({"a": MAPS["hm"], "b": MAPS["wh"], "c": MAPS["reg"]}, ("a", "b", "c", 4)),
        ({"b": MAPS["wh"], "c": MAPS["reg"], "a": MAPS["hm"]}, ("a", "b", "c", 4)),
        ({"a": MAPS["hm"], "wh": MAPS["wh"], "c": MAPS["reg"]}, ("a", "wh", "c", 4)),
        ({"a": MAPS["hm"], "b": MAPS["wh"], "c": MAPS["wh"], "d": MAPS["wh"]}, None),
        ({"a": MAPS["hm"], "b": MAPS["wh"]}, None),
        ({"wh": MAPS["wh"], "reg": MAPS["reg"]}, None),
        ({"a": (1, 1, 16, 24), "b": MAPS["wh"], "c": MAPS["reg"]}, ("a", "b", "c", 4)),
        ({"x": MAPS["wh"], "y": MAPS["reg"]} | last_axis(MAPS), ("hm", "wh", "reg", 4)),
        (MAPS | {"more": (1, 2, 16, 24)}, ("hm", "wh", "reg", 4)),
        (MAPS | {"hm": (1, 3, 8, 12)}, None),
        (MAPS | {"reg": (1, 2, 8, 12)}, None),
        (MAPS | {"wh": (1, 2, 16 * 24)}, None),
        (MAPS | {"wh": (1, 2, 16, 24, 1)}, None),
        (MAPS | {"x": (1, 2, 16, 24, 1), "y": (7,)}, ("hm", "wh", "reg", 4)),
        ({"x": MAPS["hm"], "cls": (1, 5, 16, 24)} | MAPS | {"hm": (9,)}, ("cls", "wh", "reg", 4)),
        ({"x": MAPS["hm"], "y": (1, 5, 16, 24)} | MAPS | {"hm": (9,)}, ("x", "wh", "reg", 4)),
    ],
)
def test_peaks_are_read_from_maps_of_one_stride(shapes, read) -> None:
    match = match_centernet(measured(**shapes))
    if read is None:
        assert match is None
        return
    assert match is not None
    heat, sizes, offsets, stride = read
    (part,) = match.scores.tensors
    assert (part, match.boxes[1].tensors, match.boxes[0].tensors) == (heat, (sizes,), (offsets,))
    assert (match.coding, match.strides, match.best) == (Coding.PEAKS, (stride,), True)
    assert match.anchors == min(300, (64 // stride) * (96 // stride))
    channel = shapes[heat].index(match.columns, 1)
    assert match.scores.axes == ("nvhw" if channel == 1 else "nhwv")


def test_maps_of_whole_numbers_are_no_peaks() -> None:
    found = measured(**MAPS)
    found.samples[0]["wh"] = np.ones(MAPS["wh"], np.int64)
    assert match_centernet(found) is None


@pytest.mark.parametrize(
    ("name", "largest", "logs"),
    [
        ("scale", 900.0, True),
        ("log_size", 900.0, True),
        ("wh", 0.5, False),
        ("size", 6.0, True),
        ("size", 6.01, False),
    ],
)
def test_names_of_sizes_tell_more_than_their_values(name, largest, logs) -> None:
    """Of values those at the ten surest places are looked at."""
    found = measured(heat=(1, 3, 16, 24), off=(1, 2, 16, 24), **{name: (1, 2, 16, 24)})
    heat, sizes = found.samples[0]["heat"], found.samples[0][name]
    heat[:], sizes[:] = 0, 900
    heat[0, 1].ravel()[:11] = np.linspace(0.9, 0.3, 11)
    sizes.reshape(2, -1)[:, :10] = largest
    match = match_centernet(found)
    assert match is not None
    assert match.log_sizes is logs


@pytest.mark.parametrize(
    ("boxes", "scores", "read"),
    [
        ((1, 50, 4), (1, 50, 3), ("nav", "nav", 3)),
        ((1, 50, 4), (1, 3, 50), ("nav", "nva", 3)),
        ((1, 50, 4), (1, 50, 1, 3), ("nav", "na1v", 3)),
        ((1, 50, 4), (1, 50), ("nav", "na", 1)),
        ((1, 50, 1, 4), (1, 50, 3), ("na1v", "nav", 3)),
        ((1, 4, 50), (1, 3, 50), ("nva", "nva", 3)),
        ((1, 4, 5), (1, 3, 5), ("nva", "nva", 3)),
        ((50, 4), (50, 3), ("av", "av", 3)),
        ((50, 4), (50,), ("av", "a", 1)),
        ((1, 50, 4), (1, 49, 3), None),
        ((1, 50, 4), (2, 50, 3), None),
        ((1, 50, 4), (1, 50, 2, 3), None),
        ((1, 50, 4), (50, 3), None),
        ((50, 4), (1, 50, 3), None),
        ((1, 50, 5), (1, 50, 3), None),
        ((1, 50, 3), (1, 50, 3), None),
        ((1, 50, 4), (1, 50, 0), None),
        ((1, 50, 4), (1, 50, 0, 3), None),
    ],
)
def test_scores_lie_beside_boxes_whatever_the_order_of_axes(boxes, scores, read) -> None:
    match = match_boxes_scores(measured(boxes=boxes, scores=scores))
    if read is None:
        assert match is None
        return
    assert match is not None
    assert (match.boxes[0].axes, match.scores.axes, match.columns) == read
    assert match.boxes[0].tensors + match.scores.tensors == ("boxes", "scores")
    assert (match.varies, match.best, match.anchors) == (False, False, max(boxes))
    if match.boxes[0].axes == "nva":  # whose number of columns tells them from rows
        return
    many = measured(boxes=boxes, scores=scores).samples[0]
    few = {name: array.take(range(45), array.shape.index(50)) for name, array in many.items()}
    open_ended = match_boxes_scores(Measured((few, many), SIZE, None))
    assert open_ended is not None
    assert (open_ended.varies, open_ended.best, open_ended.anchors) == (True, True, 300)


def test_as_many_classes_as_boxes_are_read_as_rows() -> None:
    match = match_boxes_scores(measured(boxes=(1, 5, 4), scores=(1, 5, 5)))
    assert match is not None
    assert (match.scores.axes, match.columns, match.anchors) == ("nav", 5, 5)


def test_of_several_pairs_names_tell_boxes_and_then_scores() -> None:
    four = (1, 50, 4)  # of four classes: either may be the boxes
    located = match_boxes_scores(measured(a=four, loc=four))
    assert located is not None
    assert located.tensors == ("loc", "a")
    named = match_boxes_scores(measured(scores=four, boxes=four))
    assert named is not None
    assert named.tensors == ("boxes", "scores")
    assert match_boxes_scores(measured(a=four, b=four)) is None
    more = match_boxes_scores(measured(boxes=four, other=(1, 50, 9), logits=(1, 50, 7)))
    assert more is not None
    assert more.tensors == ("boxes", "logits")
    assert match_boxes_scores(measured(boxes=four, other=(1, 50, 9), third=(1, 50, 7))) is None
    assert match_boxes_scores(measured(boxes=four, conf=(1, 50, 9), cls=(1, 50, 7))) is None
    assert match_boxes_scores(measured(raw_boxes=four, scores=(1, 50, 9))) is None
    assert match_boxes_scores(measured(boxes=four, hidden_state=(1, 50, 9))) is None
