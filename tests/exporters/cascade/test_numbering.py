"""Which class a number stands for: by what is said, known, and seen on the built-in photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dyninfer import ConfigError
from dyninfer.exporters.cascade.numbering import COCO_IDS
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import (
    BoxFormat,
    BoxUnit,
    ClassIds,
    Decode,
    DetectorSource,
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


def test_numbers_that_two_counts_explain_are_pointed_out(tmp_path: Path) -> None:
    names = (*formats.NAMES, "seven", "eight")
    found = planned(from_number(1), tmp_path, names)
    assert found.plan.class_numbers == tuple(range(8))
    assert "the classes 1 to 6" in str(found.doubt)
    assert "--first-class-offset 1" in str(found.doubt)
    nothing = planned(rows(lambda core: core.times(core.label, 0)), tmp_path, names)
    assert nothing.doubt is None  # the class 0 was seen
    said = planned(from_number(1), tmp_path, names, class_offset=1)
    assert said.plan.class_numbers == tuple(range(1, 9))
    assert said.doubt is None


def test_a_class_outside_the_list_is_refused_with_the_options(tmp_path: Path) -> None:
    with support.refuses(ConfigError, "class 10", "numbered 0 to 5", "--first-class-offset"):
        planned(from_number(5), tmp_path, formats.NAMES)
    with support.refuses(ConfigError, "class 6", "0 to 5", "--first-class-names"):
        planned(from_number(1), tmp_path, formats.NAMES, class_offset=0)
    assert planned(from_number(5), tmp_path, formats.NAMES, class_offset=5).plan.class_numbers == (
        tuple(range(5, 11))
    )


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


def test_gaps_and_the_background_in_a_list_are_no_classes(tmp_path: Path) -> None:
    names = ("__background__", *formats.NAMES[:2], "N/A", *formats.NAMES[2:])
    table = np.array([1, 2, 4, 5, 6, 7], np.float32)

    def label(core: Core) -> str:
        whole = core.add("Cast", core.label, to=formats.INT64)
        return core.add("Gather", core.constant(table), whole)

    found = planned(rows(label), tmp_path, names)
    assert found.class_names == formats.NAMES
    assert found.plan.class_numbers == (1, 2, 4, 5, 6, 7)


def test_an_offset_leaves_out_the_first_columns(tmp_path: Path) -> None:
    form = Format(formats.dense("centred", last=False), Decode.YOLOV8)
    found = planned(form, tmp_path, formats.NAMES[1:], class_offset=1)
    assert found.plan.class_numbers == (1, 2, 3, 4, 5)
    with support.refuses(ConfigError, "names 5 classes", "have 6", "--first-class-offset"):
        planned(form, tmp_path, formats.NAMES[1:])
    with support.refuses(ConfigError, "names 6 classes", "have 6", "--first-class-offset"):
        planned(form, tmp_path, formats.NAMES, class_offset=1)
