"""Tiny cascades of which it is known what a router should learn, and pictures for them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import helper

from dyninfer.bundle.manifest import CascadeRoute, Exit
from tests import support

SIZE = 8
OBJECT = [1.0, 1.0, 7.0, 7.0]


FIRST = ((0, 1), (1.0, 1.0), (0.0, 0.0))
"""Scores of the two classes: red and green."""
SWAPPED = ((1, 0), (1.0, 1.0), (0.0, 0.0))
LAST = ((2, 2), (1.0, -1.0), (0.0, 1.0))
"""Blue, and 1 - blue."""


def detecting_channels(value: str, scores: tuple) -> tuple[list[onnx.NodeProto], dict]:
    """One box that is always the same, whose class scores are channels * factors + shifts."""
    channels, factors, shifts = scores
    nodes = [
        helper.make_node("Gather", [value, "chosen"], ["pair"], axis=1),
        helper.make_node("Mul", ["pair", "factors"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shifts"], ["shifted"]),
        helper.make_node("Unsqueeze", ["shifted", "second"], ["class_scores"]),
        helper.make_node("ReduceSum", ["class_scores", "last"], ["sum"]),
        helper.make_node("Mul", ["sum", "zero"], ["none"]),
        helper.make_node("Add", ["none", "corners"], ["boxes_xyxy"]),
    ]
    constants = {
        "chosen": np.array(channels),
        "factors": np.array(factors, np.float32),
        "shifts": np.array(shifts, np.float32),
        "second": np.array([1]),
        "last": np.array([2]),
        "zero": np.array(0, np.float32),
        "corners": np.array([[OBJECT]], np.float32),
    }
    return nodes, constants


def body(images: str, scores: tuple) -> onnx.ModelProto:
    nodes, constants = detecting_channels("mean", scores)
    mean = helper.make_node("ReduceMean", [images], ["mean"], axes=[2, 3], keepdims=0)
    inputs = {images: ["batch", 3, SIZE, SIZE]}
    return support.tiny_model(inputs, support.DETECTIONS, [mean, *nodes], constants)


def head(value: str, scores: tuple) -> onnx.ModelProto:
    nodes, constants = detecting_channels(value, scores)
    return support.tiny_model({value: ["batch", 3]}, support.DETECTIONS, nodes, constants)


def write_learnable(path: Path, *, second: tuple = LAST) -> Path:
    """Red and green are the scores of two classes at exit 0; blue tells which it is at exit 1."""
    models = {"first": body("images", FIRST), "second": body("images", second)}
    exits = (Exit(body="first"), Exit(body="second"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def write_learnable_with_head(path: Path) -> Path:
    """The same, but exit 0 hands a feature to a head, and has a router that reads blue."""
    models = {
        "first": support.means_of("images", SIZE, SIZE, "value"),
        "router": support.channel_router("value", 2),
        "head": head("value", FIRST),
        "second": body("images", LAST),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def write_learnable_three(path: Path) -> Path:
    """Exit 0 as above, exit 1 the same the other way round, exit 2 blue."""
    models = {
        "first": body("images", FIRST),
        "second": body("images", SWAPPED),
        "third": body("images", LAST),
    }
    exits = (Exit(body="first"), Exit(body="second"), Exit(body="third"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def write_not_finite(path: Path) -> Path:
    """A first body whose feature is infinite."""
    infinite = support.tiny_model(
        {"images": ["batch", 3, SIZE, SIZE]},
        {"value": ["batch", 3]},
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Div", ["mean", "zero"], ["value"]),
        ],
        {"zero": np.array(0, np.float32)},
    )
    models = {"first": infinite, "head": head("value", FIRST), "second": body("images", LAST)}
    exits = (Exit(body="first", head="head"), Exit(body="second"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def write_pictures(folder: Path, count: int = 40, *, seed: int = 0, told: bool = True) -> Path:
    """``count`` plain pictures, half of them hard, and ``labels.json``: what they show.

    An object is of class 0 where blue is bright, else of class 1. In an easy picture exit 0 is sure
    of that class; in a hard one it finds both about as likely, and the wrong one a little more.
    With ``told`` False, red and green are drawn at random and say nothing.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir()
    images, annotations = [], []
    for number in range(count):
        hard, class_id = number % 2 == 1, int(rng.integers(2))
        right, wrong = (0.5, 0.6) if hard else (0.75, 0.1)
        noise = rng.uniform(-0.05, 0.05, 2)
        scores = np.array([right, wrong]) + noise if told else 0.5 + 8 * noise
        red, green = scores[::-1] if class_id else scores
        blue = 0.1 if class_id else 0.9
        pixel = np.round(255 * np.array([blue, green, red])).astype(np.uint8)
        name = f"{number:03}.png"
        picture = np.broadcast_to(pixel, (SIZE, SIZE, 3))
        assert cv2.imwrite(str(folder / name), np.ascontiguousarray(picture))
        images.append({"id": number, "file_name": name, "width": SIZE, "height": SIZE})
        left, top, right, bottom = OBJECT
        annotations.append(
            {
                "id": number + 1,
                "image_id": number,
                "category_id": class_id,
                "bbox": [left, top, right - left, bottom - top],
                "area": 36.0,
                "iscrowd": 0,
            }
        )
    categories = [{"id": 0, "name": "left"}, {"id": 1, "name": "right"}]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    return folder
