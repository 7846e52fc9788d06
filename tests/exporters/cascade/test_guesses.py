"""What is told of guesses, and what they start from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from onnx import TensorProto

from dyninfer import ConfigError, InputError
from dyninfer.exporters.cascade.conventions import (
    IMAGENET,
    NANODET,
    NANODET_MEAN,
    NANODET_STD,
    YOLO,
    Picture,
)
from dyninfer.exporters.cascade.guesses import (
    Guesses,
    declared_names,
    declared_size,
    prepared_with,
)
from dyninfer.exporters.cascade.options import BoxUnit, DetectorSource
from dyninfer.exporters.class_names import COCO
from dyninfer.images.spec import ColorOrder, ResizeMode
from tests import support

RGB, BGR = ColorOrder.RGB, ColorOrder.BGR


def test_guesses_are_told_in_one_line_with_the_first_option() -> None:
    guesses = Guesses("second-", "tiny.onnx")
    assert guesses.line() is None
    assert guesses.add("boxes", BoxUnit.PIXELS) is BoxUnit.PIXELS
    assert guesses.add("mean", (1.0, 2.5, 0.0)) == (1.0, 2.5, 0.0)
    own = guesses.fresh()
    assert (own.prefix, own.line()) == ("second-", None)
    own.add("cell-offset", 0.5)
    guesses.take(own)
    assert guesses.line() == (
        "tiny.onnx: guessed boxes pixels, mean 1:2.5:0, cell-offset 0.5 (change with "
        "--second-boxes and so on)"
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("class_0",), "class-names class_0 ("),
        (("class_0", "class_1"), "class-names class_0 to class_1 ("),
        (COCO, "class-names COCO's 80 ("),
        (COCO[:-1], f"class-names class_0 to {COCO[-2]} ("),
    ],
)
def test_guessed_names_are_told_by_their_ends(names, told) -> None:
    guesses = Guesses("", "tiny.onnx")
    assert guesses.add_names(names) == names
    assert told in str(guesses.line())


def file_of(kind: int = TensorProto.FLOAT, **metadata: str) -> SimpleNamespace:
    image = SimpleNamespace(elem_type=kind)
    return SimpleNamespace(image=image, path=Path("tiny.onnx"), metadata=metadata)


@pytest.mark.parametrize(
    ("noted", "size"),
    [
        ("[320, 640]", (320, 640)),
        ("[ 1,2 ]", (1, 2)),
        ("640", None),
        ("[640]", None),
        ("[1, 2, 3]", None),
        ("[-1, 2]", None),
    ],
)
def test_a_noted_size_is_a_pair_of_height_and_width(noted, size) -> None:
    assert declared_size(file_of(imgsz=noted)) == size
    assert declared_size(file_of()) is None


@pytest.mark.parametrize(
    ("noted", "names"),
    [("", None), (" None ", None), ("null", None), ("[]", None), ("{}", None), ("[a]", ("a",))],
)
def test_metadata_may_say_that_there_are_no_names(noted, names) -> None:
    source = DetectorSource(Path("tiny.onnx"))
    assert declared_names("", source, file_of(names=noted)) == names
    assert declared_names("", source, file_of()) is None
    with support.refuses(ConfigError, "cannot be read", "--first-class-names"):
        declared_names("first-", source, file_of(names="7"))


NO, ONE, LEVELS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (255.0, 255.0, 255.0)


@pytest.mark.parametrize(
    ("picture", "said", "mean", "std", "color", "told"),
    [
        (YOLO, {}, NO, LEVELS, RGB, "mean 0:0:0, std 255:255:255, resize letterbox, color rgb"),
        (YOLO, {"mean": (1.0, 2.0, 3.0)}, (1.0, 2.0, 3.0), ONE, RGB, "resize letterbox, color"),
        (YOLO, {"std": (4.0, 5.0, 6.0)}, NO, (4.0, 5.0, 6.0), RGB, "resize letterbox, color"),
        (NANODET, {}, NANODET_MEAN, NANODET_STD, BGR, "mean 103.53:116.28:123.675"),
        (NANODET, {"color": BGR}, NANODET_MEAN, NANODET_STD, BGR, "std 57.375:57.12:58.395"),
        (NANODET, {"color": RGB}, NANODET_MEAN[::-1], NANODET_STD[::-1], RGB, "mean 123.675"),
        (IMAGENET, {"color": BGR}, NANODET_MEAN, NANODET_STD, BGR, "mean 103.53"),
        (YOLO, {"resize": ResizeMode.STRETCH}, NO, LEVELS, RGB, "255, color rgb ("),
    ],
)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_means_follow_the_order_of_colours_unless_they_are_said(
    picture: Picture, said, mean, std, color, told, kind
) -> None:
    guesses = Guesses("", "tiny.onnx")
    source = DetectorSource(Path("tiny.onnx"), **said)
    made = prepared_with(source, file_of(kind), picture, (32, 64), guesses)
    assert (made.height, made.width) == (32, 64)
    assert (made.mean, made.std, made.color_order) == (mean, std, color)
    assert made.resize is said.get("resize", picture.resize)
    assert told in str(guesses.line())
    assert ("mean" in str(guesses.line())) is not bool({"mean", "std"} & said.keys())


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ({}, True),
        ({"mean": NO, "std": ONE}, True),
        ({"mean": (1.0, 0.0, 0.0)}, False),
        ({"std": LEVELS}, False),
        ({"mean": (-1.0, 0.0, 0.0)}, False),
        ({"std": (0.5, 0.5, 0.5)}, False),
    ],
)
def test_pictures_of_whole_numbers_are_not_normalised(said, fits) -> None:
    guesses = Guesses("", "tiny.onnx")
    source, file = DetectorSource(Path("tiny.onnx"), **said), file_of(TensorProto.UINT8)
    if fits:
        made = prepared_with(source, file, YOLO, (32, 64), guesses)
        assert (made.mean, made.std) == (NO, ONE)
        assert "mean" not in str(guesses.line())
    else:
        with support.refuses(InputError, "whole numbers from 0 to 255"):
            prepared_with(source, file, YOLO, (32, 64), guesses)
