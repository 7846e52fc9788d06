"""What boxes and scores are read as, told by small arrays alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dyninfer import CheckpointError, ConfigError
from dyninfer.exporters.cascade.boxes import check_boxes, score_kind, settle_boxes
from dyninfer.exporters.cascade.conventions import YOLO, Known
from dyninfer.exporters.cascade.guesses import Guesses
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    Coding,
    Decode,
    DetectorPlan,
    DetectorSource,
    Layout,
    Match,
    Part,
    Scores,
)
from dyninfer.images.spec import ImageSpec
from tests import support

HEIGHT, WIDTH = 80, 100
PIXELS, SHARES = BoxUnit.PIXELS, BoxUnit.NORMALISED
XYXY, CXCYWH, XYWH = BoxFormat.XYXY, BoxFormat.CXCYWH, BoxFormat.XYWH
PAIR = Match((Part(("boxes",), "nav"),), Part(("scores",), "nav"), 1, 30)
THREE = replace(PAIR, labels=Part(("rows",), "nav", 4, 5))
IN_ONE = Match((Part(("rows",), "nav", 0, 4),), Part(("rows",), "nav", 4, 5), 1, 30)


def plan(decode: Decode, match: Match = PAIR, **more) -> DetectorPlan:
    image = ImageSpec(height=HEIGHT, width=WIDTH)
    fields = {"decode": decode, "layout": Layout.NCHW, "image": image, "class_numbers": (0,)}
    return DetectorPlan(**vars(match) | fields | more)


def outputs(boxes, scores=0.9) -> dict[str, np.ndarray]:
    boxes = np.asarray(boxes, np.float32)
    column = np.broadcast_to(np.float32(scores), len(boxes)).reshape(-1, 1)
    return {
        "boxes": boxes[None],
        "scores": column[None],
        "rows": np.concatenate([boxes, column], 1)[None],
    }


def source(**said) -> DetectorSource:
    return DetectorSource(Path("tiny.onnx"), **said)


def settled(
    rows, /, decode=Decode.BOXES_SCORES, match=PAIR, scores=0.9, known=None, more=None, **said
) -> tuple[DetectorPlan, str]:
    """The plan and what was guessed, of a detector that gives these boxes."""
    guesses = Guesses("second-", "tiny.onnx")
    measured = Measured((outputs(rows, scores),), (HEIGHT, WIDTH), None)
    made = plan(decode, match, **more or {})
    found = settle_boxes(made, source(**said), known or Known(YOLO), measured, guesses)
    return found, guesses.line() or ""


CORNERS = np.array([[10, 20, 50, 60], [0, 0, 100, 80], [5, 6, 9, 70.5]])
CENTRES = np.array([[60, 50, 40, 20], [90, 70, 15, 18], [20, 30, 30, 50.5]])
CORNER_AND_SIZE = np.array([[10, 20, 5, 60], [0, 0, 100, 80], [40, 6, 59, 70.5]])
SIDES = np.array([WIDTH, HEIGHT] * 2)


@pytest.mark.parametrize("unit", [PIXELS, SHARES])
@pytest.mark.parametrize(
    ("boxes", "form"), [(CORNERS, XYXY), (CENTRES, CXCYWH), (CORNER_AND_SIZE, XYWH)]
)
def test_unit_and_format_are_told_from_the_boxes(boxes, form, unit) -> None:
    given = boxes / SIDES if unit is SHARES else boxes
    found, line = settled(given)
    assert (found.unit, found.box_format) == (unit, form)
    assert f"box-format {form.value}, boxes {unit.value}" in line
    unsure = np.concatenate([given, [[50, 50, 1, 1], [0, 0, 0, 0]]])
    scores = [0.9, 0.6, 0.05, 0.0499, 0.9]  # too low to be looked at, or nothing at all
    found, _ = settled(unsure, scores=scores)
    assert (found.unit, found.box_format) == (unit, form)


@pytest.mark.parametrize(
    ("largest", "unit"), [(2.0, SHARES), (2.01, PIXELS), (-2.01, PIXELS), (-2.0, SHARES)]
)
def test_shares_are_within_two_sides_of_the_corner(largest, unit) -> None:
    low, high = sorted((largest, 0.5))
    found, _ = settled([[low, 0.1, high, 0.9]])
    assert found.unit is unit


@pytest.mark.parametrize(
    ("ordered", "of", "form"), [(49, 50, XYXY), (48, 50, CXCYWH), (50, 50, XYXY)]
)
def test_corners_may_be_out_of_order_in_two_of_a_hundred(ordered, of, form) -> None:
    boxes = [[10, 20, 95, 60]] * ordered + [[60, 50, 40, 20]] * (of - ordered)
    assert settled(boxes)[0].box_format is form


@pytest.mark.parametrize(
    ("box", "form"),
    [
        ([30, 40, 20, 39], CXCYWH),  # past no side either way
        ([10, 20, 5, 70], CXCYWH),  # past one either way
        ([10, 20, 5, 61.5], XYWH),
        ([10, 20, 5, 61.7], CXCYWH),  # of corner and size, 2 % beyond the lower edge
        ([96, 10, 5.9, 25], XYWH),
        ([96, 10, 6.1, 25], CXCYWH),
        ([-1.9, 25, 12, 20], XYWH),
        ([-2.1, 25, 12, 20], CXCYWH),
        ([20, -1.5, 10, 5], XYWH),
        ([20, -1.7, 10, 5], CXCYWH),
        ([5, 25, 14, 20], CXCYWH),  # of centre and size, 2 % beyond the left edge
        ([5, 25, 14.2, 20], XYWH),
        ([20, 10, 10, 23], CXCYWH),
        ([20, 10, 10, 23.4], XYWH),
    ],
)
@pytest.mark.parametrize("unit", [PIXELS, SHARES])
def test_a_corner_and_a_size_stay_within_the_image(box, form, unit) -> None:
    """Of a centre and a size, half of it would lie outside."""
    found, _ = settled([np.array(box) / SIDES if unit is SHARES else box])
    assert (found.box_format, found.unit) == (form, unit)


@pytest.mark.parametrize(("within", "form"), [(0, XYWH), (39, XYWH), (40, CXCYWH), (50, CXCYWH)])
def test_centres_may_fit_as_well_in_less_than_four_of_five(within, form) -> None:
    boxes = [[30, 40, 20, 39]] * within + [[5, 25, 16, 20]] * (50 - within)
    assert settled(boxes)[0].box_format is form


@pytest.mark.parametrize("decode", [Decode.YOLOV5, Decode.YOLOV8, Decode.DETR, Decode.RTDETR])
def test_centred_decodes_give_corners_only_where_nearly_all_boxes_show_it(decode) -> None:
    """All boxes are looked at, however unsure they are."""
    corners, centres = [[10, 20, 50, 60]], [[60, 50, 40, 20]]
    for count, share, form in ((21, 21, XYXY), (20, 20, CXCYWH), (50, 49, XYXY), (50, 48, CXCYWH)):
        boxes = corners * share + centres * (count - share) + [[0, 0, 0, 0]] * 9
        scores = [0.9, *[0.0] * (len(boxes) - 1)]
        found, line = settled(boxes, decode, IN_ONE, scores)
        assert (found.box_format, found.unit) == (form, PIXELS)
        assert line.count("guessed box-format xyxy") == (form is XYXY)
        assert "boxes" not in line
    shares, line = settled(np.array(centres) / SIDES, decode, IN_ONE)
    assert (shares.unit, shares.box_format) == (SHARES, CXCYWH)
    assert "guessed boxes normalised" in line


@pytest.mark.parametrize(("beyond", "form"), [(1, XYWH), (2, CXCYWH)])
def test_corners_with_sizes_may_go_beyond_an_edge_in_two_of_a_hundred(beyond, form) -> None:
    boxes = [[10, 20, 5, 60]] * (50 - beyond) + [[10, 20, 5, 70]] * beyond
    assert settled(boxes)[0].box_format is form


def test_what_is_said_goes_before_what_is_known_and_that_before_what_is_seen() -> None:
    known = Known(YOLO, XYWH, SHARES)
    found, line = settled(CORNERS, known=known)
    assert (found.unit, found.box_format) == (SHARES, XYWH)
    assert "guessed box-format xywh, boxes normalised" in line
    said, line = settled(CORNERS, known=known, boxes=PIXELS, box_format=BoxFormat.YXYX)
    assert (said.unit, said.box_format, line) == (PIXELS, BoxFormat.YXYX, "")
    nothing, _ = settled(np.zeros((3, 4)))
    assert (nothing.unit, nothing.box_format) == (PIXELS, XYXY)


@pytest.mark.parametrize(
    ("decode", "match", "unit", "said"),
    [
        (Decode.DETECTIONS, IN_ONE, PIXELS, "boxes pixels"),
        (Decode.YOLOV8, IN_ONE, PIXELS, ""),
        (Decode.YOLOV8, IN_ONE, SHARES, "boxes normalised"),
        (Decode.BOXES_SCORES, PAIR, PIXELS, "box-format xyxy, boxes pixels"),
        (Decode.BOXES_SCORES_LABELS, PAIR, PIXELS, "boxes pixels"),
        (Decode.BOXES_SCORES_LABELS, THREE, PIXELS, "box-format xyxy, boxes pixels"),
    ],
)
def test_only_what_is_not_usual_of_a_decode_is_pointed_out(decode, match, unit, said) -> None:
    form = CXCYWH if decode is Decode.YOLOV8 else XYXY
    _, line = settled(CORNERS, decode, match, known=Known(YOLO, form, unit))
    assert line == (
        f"tiny.onnx: guessed {said} (change with --second-{said.split()[0]} and so on)"
        if said
        else ""
    )


@pytest.mark.parametrize("coding", Coding)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("boxes", PIXELS),
        ("box_format", CXCYWH),
        ("box_format", XYXY),
        ("box_format", BoxFormat.CYCXHW),
        ("cell_offset", 0.0),
    ],
)
def test_every_option_is_obeyed_or_refused(coding, option, value) -> None:
    plain, centred = coding is Coding.PLAIN, value in (CXCYWH, BoxFormat.CYCXHW)
    obeyed = plain is (option != "cell_offset")
    obeyed |= coding is Coding.PEAKS and option == "box_format" and centred
    more = {"coding": coding, "strides": (8,)}
    if obeyed:
        found, line = settled(CORNERS, more=more, **{option: value})
        field = "unit" if option == "boxes" else option
        assert getattr(found, field) == value
        assert f"{option.replace('_', '-')} " not in line
        return
    reads = "reads plain boxes" if plain else "reads no plain boxes"
    hint = "; it takes cxcywh or cycxhw" * (coding is Coding.PEAKS and option == "box_format")
    flag = option.replace("_", "-")
    with support.refuses(ConfigError, f"--second-{flag} changes nothing", f"{reads}{hint}; leave"):
        settled(CORNERS, more=more, **{option: value})


@pytest.mark.parametrize(
    ("coding", "tensors", "strides", "logs", "offset", "form"),
    [
        (Coding.CELLS, 1, (8, 16, 32), False, 0.0, CXCYWH),
        (Coding.PEAKS, 3, (4,), False, 0.0, CXCYWH),
        (Coding.PEAKS, 3, (4,), True, 0.5, BoxFormat.CYCXHW),
        (Coding.DISTANCES, 1, (8, 16, 32), False, 0.5, CXCYWH),
        (Coding.DISTANCES, 1, (8, 16, 32, 64), False, 0.0, CXCYWH),
        (Coding.DISTANCES, 2, (8, 16, 32, 64), False, 0.5, CXCYWH),
    ],
)
def test_where_cells_have_their_centres(coding, tensors, strides, logs, offset, form) -> None:
    match = replace(IN_ONE, boxes=(Part(("rows", "boxes", "scores")[:tensors], "nav", 0, 4),))
    more = {"coding": coding, "strides": strides, "log_sizes": logs}
    found, line = settled(CORNERS, match=match, more=more)
    assert (found.cell_offset, found.box_format) == (offset, form)
    assert f"cell-offset {offset}" in line
    assert ("box-format" in line) is (coding is Coding.PEAKS)
    said, line = settled(CORNERS, match=match, more=more, cell_offset=0.25)
    assert said.cell_offset == 0.25
    assert "cell-offset" not in line


def test_kinds_of_scores() -> None:
    measured = Measured((outputs(CORNERS),), (HEIGHT, WIDTH), None)
    logits = Measured((outputs(CORNERS, 3.0),), (HEIGHT, WIDTH), None)
    usual = {Decode.DETR: Scores.SOFTMAX, Decode.RTDETR: Scores.LOGITS}
    for decode in Decode:
        expected = usual.get(decode, Scores.PROBABILITIES)
        assert score_kind(source(), decode, PAIR, measured) is expected
        for kind in Scores:
            assert score_kind(source(scores=kind), decode, PAIR, logits) is kind
    assert score_kind(source(), Decode.CENTERNET, PAIR, logits) is Scores.LOGITS
    labels = replace(PAIR, labels=Part(("scores",), "na"))
    for match in (labels, replace(PAIR, varies=True)):
        assert score_kind(source(), Decode.RTDETR, match, measured) is Scores.LOGITS
        with support.refuses(ConfigError, "a softmax needs a score of every class", "--scores"):
            score_kind(source(), Decode.DETR, match, measured)


def checked(rows, /, scores=0.9, decode=Decode.BOXES_SCORES, **more) -> str | None:
    said = {name: more.pop(name) for name in ("boxes", "box_format") if name in more}
    return check_boxes("", plan(decode, **more), source(**said), [outputs(rows, scores)])


@pytest.mark.parametrize(
    ("scores", "finite", "fine"),
    [
        (1.0009, True, True),
        (1.0011, True, False),
        (-0.0009, True, True),
        (-0.0011, True, False),
        (np.nan, True, False),
        (0.5, False, False),
    ],
)
def test_scores_beyond_probabilities_and_boxes_without_end_are_refused(scores, finite, fine):
    boxes = CORNERS if finite else CORNERS * [1, 1, np.inf, 1]
    if fine:
        assert checked(boxes, [0.9, scores, 0.9]) is None
        return
    with support.refuses(CheckpointError, "gives class scores from", "--scores logits"):
        checked(boxes, [0.9, scores, 0.9])


@pytest.mark.parametrize(
    ("box", "usable"),
    [
        ([10, 20, 11, 21], True),
        ([10, 20, 10.9, 60], False),
        ([10, 20, 50, 20.9], False),
        ([-20, 20, 0, 60], True),
        ([-30, 20, 8, 60], False),
        ([100, 20, 120, 60], True),
        ([100, 20, 121, 60], False),
        ([10, -16, 50, 0], True),
        ([10, -18, 50, 0.1], False),
        ([10, 80, 50, 96], True),
        ([10, 80, 50, 97], False),
    ],
)
def test_boxes_of_less_than_a_pixel_or_outside_the_image_are_pointed_out(box, usable) -> None:
    """A tenth beyond an edge a centre may lie, and half of the boxes may be no good."""
    line = checked([box])
    assert (line is None) is usable
    if not usable:
        assert str(line).startswith("warning: 1 of the 1 more confident boxes of tiny.onnx")
        assert "empty, below a pixel or outside the image" in str(line)
        assert "check --decode, --boxes, --box-format, and" in str(line)
        assert checked([box, CORNERS[0]]) is None
        assert str(checked([box, box, CORNERS[0]])).startswith("warning: 2 of the 3")


@pytest.mark.parametrize(
    ("best", "others", "told"),
    [(0.9, 0.06, "2 of the 3"), (0.9, 0.04, None), (0.04, 0.03, None), (0.04, 0.04, "2 of the 3")],
)
def test_boxes_from_a_score_of_a_twentieth_on_are_looked_at_and_the_surest_in_any_case(
    best, others, told
) -> None:
    empty = [10, 20, 10, 20]
    line = checked([CORNERS[0], empty, empty], [best, others, others])
    assert (line is None) == (told is None)
    assert str(told) in str(line)


@pytest.mark.parametrize(
    ("count", "centre", "cornered"),
    [(20, (5, 4), True), (19, (5, 4), False), (20, (5.1, 4), False), (20, (5, 4.1), False)],
)
def test_boxes_that_are_all_in_a_corner_are_refused_unless_asked_for(count, centre, cornered):
    x, y = centre
    boxes = [[x - 3, y - 3, x + 3, y + 3]] * count
    if not cornered:
        assert checked(boxes) is None
        return
    told = f"{count} of the {count} more confident boxes", "within a few pixels of the top left"
    with support.refuses(CheckpointError, *told):
        checked(boxes)
    for said in ({"boxes": PIXELS}, {"box_format": XYXY}):
        line = checked(boxes, **said)
        assert line is not None
        assert line.startswith(f"warning: {told[0]}")
    assert checked([*boxes, CORNERS[0]]) is None
