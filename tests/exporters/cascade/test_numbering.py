"""Which class a number stands for: by what is said, known, and seen on the built-in photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dyninfer import ConfigError
from dyninfer.exporters.cascade.conventions import YOLO, Known
from dyninfer.exporters.cascade.guesses import Guesses
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.numbering import (
    COCO_IDS,
    Classes,
    count_right,
    is_class,
    settle_classes,
    shows_known,
)
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    ClassIds,
    Decode,
    DetectorSource,
    Match,
    Part,
    Scores,
)
from dyninfer.exporters.cascade.plan import PlannedDetector, plan_detector
from dyninfer.exporters.class_names import COCO
from tests import support
from tests.exporters.cascade import formats
from tests.exporters.cascade.formats import Core, Format

SIX = tuple(range(6))


def rows(label: Callable[[Core], str], classes: int = 6) -> Format:
    """Rows of box, score and a label that is made so."""

    def write(core: Core) -> None:
        made = core.columns(core.boxes, core.confidence, label(core))
        core.output(made, "out", ["batch", formats.ANCHORS, 6])

    return Format(write, Decode.DETECTIONS, classes=classes)


def from_number(first: int) -> Format:
    return rows(lambda core: core.plus(core.label, first))


def planned(form: Format, folder: Path, names: tuple[str, ...] = (), **more) -> PlannedDetector:
    path = form.save(folder / "tiny.onnx")
    if names:
        more["class_names"] = folder / "names.txt"
        more["class_names"].write_text("\n".join(names))
    return plan_detector("first-", DetectorSource(path, **more), read_onnx(path))


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_only_one_count_explains_settle_it(tmp_path: Path, first: int) -> None:
    found = planned(from_number(first), tmp_path, formats.NAMES)
    assert found.class_names == formats.NAMES
    assert found.plan.class_numbers == tuple(n + first for n in SIX)
    assert f"class-offset {first}" in str(found.guesses)
    assert found.doubt is None


def test_the_post_processing_of_tflite_counts_from_0(tmp_path: Path) -> None:
    """Its files say so by their outputs' names, whatever the pictures leave open."""
    name = "TFLite_Detection_PostProcess"

    def write(core: Core) -> None:
        core.out(core.yx(core.shares(core.boxes)), name)
        core.out(core.flat(core.label), f"{name}:1", rank=2)
        core.out(core.flat(core.confidence), f"{name}:2", rank=2)
        one = core.add("ReduceMax", core.label, axes=[1, 2], keepdims=0)
        core.out(core.plus(core.times(one, 0), formats.ANCHORS), f"{name}:3", rank=1)

    form = Format(write, Decode.BOXES_SCORES_LABELS, lists=True, classes=6, saved=formats.NHWC)
    found = planned(form, tmp_path, (*formats.NAMES, "seven", "eight"))
    assert found.plan.class_numbers == tuple(range(8))
    assert found.plan.box_format is BoxFormat.YXYX
    assert found.plan.unit is BoxUnit.NORMALISED


def test_tensorflow_s_detections_count_from_1(tmp_path: Path) -> None:
    """Its files say so by their outputs' names, where the pictures would allow for 0, too."""

    def write(core: Core) -> None:
        core.out(core.yx(core.shares(core.boxes)), "detection_boxes")
        core.out(core.flat(core.plus(core.label, 1)), "detection_classes", rank=2)
        core.out(core.flat(core.confidence), "detection_scores", rank=2)
        one = core.add("ReduceMax", core.label, axes=[1, 2], keepdims=0)
        core.out(core.plus(core.times(one, 0), formats.ANCHORS), "num_detections", rank=1)

    form = Format(write, Decode.BOXES_SCORES_LABELS, lists=True, classes=6, saved=formats.NHWC)
    found = planned(form, tmp_path, (*formats.NAMES, "seven", "eight"))
    assert found.plan.class_numbers == tuple(range(1, 9))
    assert found.plan.box_format is BoxFormat.YXYX
    assert found.plan.unit is BoxUnit.NORMALISED
    assert found.doubt is None


def test_ids_of_coco_are_told_from_numbers_without_gaps(tmp_path: Path) -> None:
    found = planned(rows(Core.coco_ids, 80), tmp_path)
    assert found.class_names == COCO
    assert found.plan.class_numbers == COCO_IDS
    assert COCO_IDS[79] == 90
    assert "class-ids coco91" in str(found.guesses)
    with support.refuses(ConfigError, "80 classes are numbered 0 to 79", "--first-class-ids"):
        planned(rows(Core.coco_ids, 80), tmp_path, class_ids=ClassIds.SEQUENTIAL, class_offset=0)
    with support.refuses(ConfigError, "coco91", "6 classes that are not COCO's"):
        planned(from_number(0), tmp_path, formats.NAMES, class_ids=ClassIds.COCO91)


def settled(
    scores: np.ndarray,
    names: tuple[str, ...] | None = None,
    kind: Scores = Scores.PROBABILITIES,
    objectness: bool = False,
    **said,
) -> tuple[Classes, str | None]:
    """Classes of a detector that gave these scores (1, A, C), and what was guessed."""
    part = Part(("scores",), "nav")
    match = Match((part,), part, scores.shape[2], 9, objectness=part if objectness else None)
    guesses = Guesses("first-", "tiny.onnx")
    measured = Measured(({"scores": scores},), (64, 96), None)
    source = DetectorSource(Path("tiny.onnx"), **said)
    found = settle_classes(source, names, match, kind, Known(YOLO), measured, guesses)
    return found, guesses.line()


def won_by(column: int, columns: int, share: float = 0.6) -> np.ndarray:
    """Probabilities that sum to 1, of which one column wins this share of ten boxes."""
    scores = np.full((1, 10, columns), 0.5 / (columns - 1), np.float32)
    others = [n for n in range(columns) if n not in (0, columns - 1)]
    winners = [column if n < round(10 * share) else others[n % len(others)] for n in range(10)]
    scores[0, range(10), winners] = 0.5
    return scores


PLAIN = {4: np.full((1, 10, 4), 0.5, np.float32)}
FOUR, THREE = ("a", "b", "c", "d"), ("a", "b", "c")


@pytest.mark.parametrize(
    ("scores", "names", "more", "numbers"),
    [
        (PLAIN[4], None, {}, (0, 1, 2, 3)),
        (PLAIN[4], FOUR, {}, (0, 1, 2, 3)),
        (won_by(0, 4), THREE, {}, (1, 2, 3)),
        (won_by(0, 4), None, {}, (1, 2, 3)),
        (won_by(0, 4), FOUR, {}, (0, 1, 2, 3)),  # names of all columns: none is the background
        (won_by(0, 4), ("background", "a", "b", "c"), {}, (1, 2, 3)),
        (won_by(0, 4), ("background", "a", "b"), {}, "names 3 classes"),
        (won_by(0, 4), ("a", "b", "background"), {}, (1, 2)),
        (won_by(3, 4), THREE, {}, (0, 1, 2)),
        (won_by(3, 4), None, {}, (0, 1, 2)),
        (won_by(3, 4), FOUR, {}, (0, 1, 2, 3)),
        (won_by(3, 4), ("a", "b"), {}, "names 2 classes"),
        (won_by(0, 4, 0.5), THREE, {}, "names 3 classes"),
        (won_by(3, 4, 0.5), THREE, {}, "names 3 classes"),
        (won_by(0, 4, 0.5), THREE, {"kind": Scores.SOFTMAX}, (0, 1, 2)),
        (won_by(0, 4, 0.6), THREE, {"kind": Scores.SOFTMAX}, (1, 2, 3)),
        (9 * won_by(0, 4), THREE, {"kind": Scores.SOFTMAX}, (1, 2, 3)),
        (1.005 * won_by(0, 4), THREE, {}, (1, 2, 3)),
        (1.015 * won_by(0, 4), THREE, {}, "names 3 classes"),
        (won_by(0, 4), THREE, {"kind": Scores.LOGITS}, "names 3 classes"),
        (won_by(0, 4), THREE, {"objectness": True}, "names 3 classes"),
        (PLAIN[4], THREE, {"class_offset": 1}, (1, 2, 3)),
        (PLAIN[4], THREE, {"class_offset": 0}, (0, 1, 2)),
        (PLAIN[4], THREE, {"class_offset": 2}, "names 3 classes"),
        (PLAIN[4], THREE, {"class_offset": -1}, "columns -1 to 1, but it has 4"),
        (PLAIN[4][..., :1], None, {}, (0,)),
        (PLAIN[4][..., :1], ("a",), {}, (0,)),
    ],
)
def test_which_columns_hold_the_classes(scores, names, more, numbers) -> None:
    if isinstance(numbers, str):
        with support.refuses(ConfigError, numbers):
            settled(scores, names, **more)
        return
    found, line = settled(scores, names, **more)
    assert found.numbers == numbers
    kept = [name for name in names or () if name != "background"]
    assert found.names == (tuple(kept) or tuple(f"class_{n}" for n in range(len(numbers))))
    whole = numbers == tuple(range(scores.shape[2]))
    said = names is not None and (whole or "class_offset" in more)
    assert (line is None) is said
    if not whole and "class_offset" not in more:
        offset = numbers[0] - (names is not None and names[0] == "background")
        assert f"class-offset {offset}" in str(line)


@pytest.mark.parametrize(
    ("columns", "background", "more", "first"),
    [
        (80, False, {}, None),
        (90, False, {}, 0),
        (91, False, {}, 1),
        (92, True, {}, 1),
        (90, False, {"class_ids": ClassIds.COCO91}, 0),
        (95, False, {"class_ids": ClassIds.COCO91}, 1),
        (95, False, {"class_ids": ClassIds.COCO91, "class_offset": 3}, 3),
    ],
)
@pytest.mark.parametrize("names", [None, COCO])
def test_columns_of_coco_s_ids(columns, background, more, first, names) -> None:
    last = won_by(columns - 1, columns) if background else np.full((1, 9, columns), 0.5, "f4")
    found, line = settled(last, names, **more)
    assert found.names == COCO
    if first is None:
        assert found.numbers == tuple(range(80))
        return
    assert found.numbers == tuple(n - 1 + first for n in COCO_IDS)
    assert ("class-ids coco91" in str(line)) is ("class_ids" not in more)
    assert ("class-offset" in str(line)) is (first == 0)


def test_columns_that_are_too_few_or_of_other_names_are_no_ids_of_coco() -> None:
    with support.refuses(ConfigError, "columns 1 to 90, but it has 85"):
        settled(np.full((1, 9, 85), 0.5, "f4"), class_ids=ClassIds.COCO91, class_offset=1)
    with support.refuses(ConfigError, "80 classes", "have 92"):
        settled(np.full((1, 9, 92), 0.5, "f4"), COCO)
    names = tuple(f"n{n}" for n in range(91))
    assert settled(np.full((1, 9, 91), 0.5, "f4"), names)[0].numbers == tuple(range(91))
    with support.refuses(ConfigError, "80 classes", "have 91"):
        settled(np.full((1, 9, 91), 0.5, "f4"), COCO, class_ids=ClassIds.SEQUENTIAL)


def of_labels(
    *pictures: list[tuple[float, float]],
    names: tuple[str, ...] | None = COCO,
    known: Known | None = None,
    count: int | None = None,
    **said,
) -> tuple[Classes, str | None]:
    """Classes of a detector that gave these labels and confidences for the photos."""
    samples = tuple(
        {
            "labels": np.float32([[label for label, _ in rows]]),
            "scores": np.float32([[score for _, score in rows]]),
            "count": np.int64([len(rows) if count is None else count]),
        }
        for rows in pictures
    )
    labels, scores, counts = (
        Part(("labels",), "na"),
        Part(("scores",), "na"),
        Part(("count",), "n1"),
    )
    match = Match((labels,), scores, 0, 9, labels=labels, count=counts)
    guesses = Guesses("", "tiny.onnx")
    source = DetectorSource(Path("tiny.onnx"), **said)
    found = settle_classes(
        source,
        names,
        match,
        Scores.PROBABILITIES,
        known or Known(YOLO),
        Measured(samples, (64, 96), None),
        guesses,
    )
    return found, guesses.line()


SEQUENCES = {0: tuple(range(80)), 1: tuple(range(1, 81))}
IDS = {first: tuple(n - 1 + first for n in COCO_IDS) for first in (0, 1)}
PERSON, CAT, CUP = (COCO.index(name) for name in ("person", "cat", "cup"))


@pytest.mark.parametrize("numbers", [*SEQUENCES.values(), *IDS.values()])
@pytest.mark.parametrize("missed", [0, 1, 2])
def test_what_is_seen_on_the_photos_settles_how_labels_count(numbers, missed) -> None:
    photos = [[(numbers[n], 0.25), (numbers[3], 0.2)] for n in (PERSON, CAT, CUP)]
    photos[missed] = [(numbers[3], 0.3)]
    found, line = of_labels(*photos)
    assert (found.names, found.numbers, found.doubt) == (COCO, numbers, None)
    assert ("class-ids coco91" in str(line)) is (numbers in IDS.values())
    assert (f"class-offset {numbers[0]}" in str(line)) is (numbers != IDS[1])
    once = [[(numbers[3], 0.3)]] * 3
    once[missed - 1] = photos[missed - 1]  # right on a single photo, which may be chance
    assert of_labels(*once)[0].numbers == SEQUENCES[0]
    unsure = [[(label, score - 0.06) for label, score in rows] for rows in photos]
    found, _ = of_labels(*unsure)
    assert found.numbers == SEQUENCES[0]
    assert (found.doubt is None) is (0 in {label for rows in photos for label, _ in rows})


@pytest.mark.parametrize(
    ("label", "known", "said", "numbers"),
    [
        (5, Known(YOLO, class_offset=1), {}, SEQUENCES[1]),
        (5, Known(YOLO, class_offset=0), {}, SEQUENCES[0]),
        (5, Known(YOLO, class_offset=1, coco_ids=ClassIds.COCO91), {}, IDS[1]),
        (5, Known(YOLO, class_offset=0, coco_ids=ClassIds.COCO91), {}, IDS[0]),
        (5, Known(YOLO), {"class_ids": ClassIds.COCO91}, IDS[1]),
        (5, Known(YOLO), {"class_ids": ClassIds.COCO91, "class_offset": 0}, IDS[0]),
        (5, Known(YOLO, class_offset=1), {"class_offset": 0}, SEQUENCES[0]),
        (
            5,
            Known(YOLO, class_offset=0, coco_ids=ClassIds.COCO91),
            {"class_offset": 1},
            SEQUENCES[1],
        ),
        (
            5,
            Known(YOLO, class_offset=1, coco_ids=ClassIds.COCO91),
            {"class_ids": ClassIds.SEQUENTIAL},
            SEQUENCES[1],
        ),
        (90, Known(YOLO), {}, IDS[1]),  # no other way counts so far
        (80, Known(YOLO), {}, SEQUENCES[1]),
        (0, Known(YOLO), {}, SEQUENCES[0]),
    ],
)
def test_what_is_said_and_known_goes_before_what_is_usual(label, known, said, numbers) -> None:
    found, line = of_labels([(label, 0.1), (79, 0.1)], known=known, **said)
    assert (found.numbers, found.doubt is None) == (numbers, label != 80)
    assert ("class-offset" in str(line)) is (numbers != IDS[1] and "class_offset" not in said)


def test_labels_that_leave_their_count_open_are_shown() -> None:
    names = ("a", "b", "c", "d")
    cases = {"the classes 1 to 3": [(1, 0.1), (3, 0.9)], "only the class 2": [(2, 0.9)]}
    cases["no classes"] = [(7, 0.0), (-1, 0.0)]  # what fills a list up
    for told, rows in cases.items():
        found, _ = of_labels(rows, names=names)
        assert found.numbers == (0, 1, 2, 3)
        assert f"gave {told} on" in str(found.doubt)
        assert "count from 0, as" in str(found.doubt)
        assert "--class-offset 1 or --class-ids coco91" in str(found.doubt)
    found, _ = of_labels([(1, 0.5), (7, 0.9)], names=names, count=1)  # the rest is not valid
    assert found.numbers == (0, 1, 2, 3)


def test_labels_of_no_class_are_refused_but_for_gaps() -> None:
    names = ("background", "a", "N/A", "b")
    found, _ = of_labels([(0, 0.9), (2, 0.5), (3, 0.1)], names=names)
    assert (found.names, found.numbers) == (("a", "b"), (1, 3))
    with support.refuses(ConfigError, "class 4 on", "2 classes are numbered 1 to 3"):
        of_labels([(4, 0.1), (0, 0.9)], names=names)
    gap = {"class_ids": ClassIds.COCO91, "class_offset": 1}
    assert of_labels([(12, 0.1)], **gap)[0].numbers == IDS[1]
    with support.refuses(ConfigError, "class 91 on"):
        of_labels([(91, 0.1)], **gap)
    assert of_labels([(0, 0.1)], known=Known(YOLO, class_offset=1), names=names[1:2] + names[3:])[
        0
    ].numbers == (0, 1)
    known = Known(YOLO, class_offset=1)
    assert of_labels([(1, 0.1)], known=known, names=names)[0].numbers == (1, 3)
    assert of_labels([(0, 0.1)], known=known, names=names)[0].numbers == (1, 3)
    assert of_labels([(1, 0.9), (4, 0.1)], names=names)[0].numbers == (2, 4)
    found, _ = of_labels([(2, 0.9), (3, 0.1)], names=("a", "N/A", "b"), class_offset=1)
    assert found.numbers == (1, 3)


def test_a_way_of_counting_that_leaves_no_gap_goes_before_one_that_does() -> None:
    known = Known(YOLO, class_offset=1, coco_ids=ClassIds.COCO91)
    assert of_labels([(12, 0.1)], known=known)[0].numbers == SEQUENCES[0]
    assert of_labels([(13, 0.1)], known=known)[0].numbers == IDS[1]
    zero = {"class_ids": ClassIds.COCO91, "class_offset": 0}
    assert of_labels([(11, 0.1)], **zero)[0].numbers == IDS[0]
    with support.refuses(ConfigError, "class 90 on"):
        of_labels([(90, 0.1)], **zero)


def test_names_of_no_class() -> None:
    for name in (
        "background",
        "__Background__",
        "bg",
        "N/A",
        "na",
        "???",
        "no object",
        "no-object",
    ):
        assert not is_class(name)
        assert not is_class(f" {name} ")
        assert is_class(f"a{name}")
        assert is_class(f"{name}s")


def test_how_many_photos_are_right() -> None:
    names = ("cup", "cat", "Person", "dog")
    assert shows_known(names)
    assert not shows_known(names[:2])
    right = [np.float32([[0, 0.1, 0.2, 0], [0, 0.1, 0, 0]])]  # a person by one of its boxes
    right += [np.float32([[0, 0.9, 0.2, 0]]), np.float32([[0.3, 0, 0, 0.2]])]
    assert count_right(names, right) == 3
    assert count_right(names, [right[1], right[1], right[1]]) == 1
    assert count_right(names, [*right, right[0]]) == 3  # of the fourth nothing is known
    assert count_right(names, [np.zeros((0, 4), "f4")] * 3) == 1  # the first name, of the cup
