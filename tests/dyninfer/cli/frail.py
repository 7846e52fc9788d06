"""Bundles of every route in which one stage loses much in a lower precision, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import NodeProto, helper

import dyninfer
from dyninfer.bundle.manifest import CascadeRoute, Exit, SelectRoute, StaticRoute, Way
from tests import support

SIZE = 8
FAR = np.float32(3000)  # there float16 tells apart every second whole number


def _conv(source: str, weight: str, target: str) -> NodeProto:
    return helper.make_node("Conv", [source, weight], [target], kernel_shape=[3, 3], pads=[1] * 4)


def _each(*factors: float) -> np.ndarray:
    """A kernel that multiplies each channel by its factor."""
    kernel = np.zeros((3, 3, 3, 3), np.float32)
    for channel, factor in enumerate(np.broadcast_to(factors, 3)):
        kernel[channel, channel, 1, 1] = factor
    return kernel


LAYERS: dict[str, tuple[list[NodeProto], dict[str, np.ndarray]]] = {
    # beyond 65504 where a picture is brighter than two thirds; exact where all are darker
    "overflows": (
        [_conv("images", "up", "a"), _conv("a", "up", "b"), _conv("b", "down", "map")],
        {"up": _each(300), "down": _each(1 / 9e4)},
    ),
    "loses digits": (
        [
            _conv("images", "same", "a"),
            helper.make_node("Add", ["a", "far"], ["b"]),
            helper.make_node("Sub", ["b", "far"], ["c"]),
            _conv("c", "same", "map"),
        ],
        {"same": _each(1), "far": FAR},
    ),
    # channels 0 and 1 are less than one of 255 parts of what channel 2 holds
    "loses channels": (
        [_conv("images", "up", "a"), _conv("a", "down", "map")],
        {"up": _each(1, 1, 2000), "down": _each(1, 1, 1 / 2000)},
    ),
    "halves": ([_conv("images", "half", "map")], {"half": _each(0.5)}),
    "is robust": ([_conv("images", "same", "map")], {"same": _each(1)}),
}


def body(layers: str, value: str = "value") -> onnx.ModelProto:
    """The mean of each channel (N, 3), by layers that change nothing, but for those that halve."""
    nodes, constants = LAYERS[layers]
    mean = helper.make_node("ReduceMean", ["map"], [value], axes=[2, 3], keepdims=0)
    inputs = {"images": ["batch", 3, SIZE, SIZE]}
    return support.tiny_model(inputs, {value: ["batch", 3]}, [*nodes, mean], constants)


def head(value: str = "value") -> onnx.ModelProto:
    """One box, 2 pixels wide, which channel 0 moves to the right by up to 6."""
    constants = {
        "first": np.array(0),
        "axes": np.array([1, 2]),
        "far": np.array([[[6, 0, 6, 0]]], np.float32),
        "corners": np.array([[[0, 0, 2, 8]]], np.float32),
        "no_score": np.zeros((1, 1, 2), np.float32),
        "scores": np.array([[[0.25, 0.75]]], np.float32),
    }
    nodes = [
        helper.make_node("Gather", [value, "first"], ["red"], axis=1),
        helper.make_node("Unsqueeze", ["red", "axes"], ["column"]),
        helper.make_node("Mul", ["column", "far"], ["moved"]),
        helper.make_node("Add", ["moved", "corners"], ["boxes_xyxy"]),
        helper.make_node("Mul", ["column", "no_score"], ["zeros"]),
        helper.make_node("Add", ["zeros", "scores"], ["class_scores"]),
    ]
    return support.tiny_model({value: ["batch", 3]}, support.DETECTIONS, nodes, constants)


def write_cascade(path: Path, layers: str) -> Path:
    """Two exits; ``first`` is what is frail, and channel 0 the easiness."""
    models = {
        "first": body(layers),
        "router": support.channel_router("value", 0),
        "head": head(),
        "second": body("is robust", "deep"),
        "last": head("deep"),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second", head="last"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def write_maps(path: Path, layers: str) -> Path:
    """Two exits, whose stages hand maps on; ``first`` is what is frail, channel 0 the easiness."""
    nodes, constants = LAYERS[layers]
    shape = ["batch", 3, SIZE, SIZE]
    mean = helper.make_node("ReduceMean", ["map"], ["value"], axes=[2, 3], keepdims=0)
    handed = {"map": shape, "value": ["batch", 3]}
    same = {"same": _each(1)}
    second = support.tiny_model(
        {"map": shape}, {"deep": shape}, [_conv("map", "same", "deep")], same
    )
    models = {
        "first": support.tiny_model({"images": shape}, handed, [*nodes, mean], constants),
        "router": support.channel_router("value", 0),
        "head": _map_head("map"),
        "second": second,
        "last": _map_head("deep"),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second", head="last"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": SIZE})


def _map_head(source: str) -> onnx.ModelProto:
    """:func:`head`, after a layer and the mean of its map."""
    tail = head("mean").graph
    layer = _conv(source, "same", "even")
    mean = helper.make_node("ReduceMean", ["even"], ["mean"], axes=[2, 3], keepdims=0)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tail.initializer}
    inputs = {source: ["batch", 3, SIZE, SIZE]}
    nodes = [layer, mean, *tail.node]
    return support.tiny_model(inputs, support.DETECTIONS, nodes, weights | {"same": _each(1)})


def write_select(path: Path, layers: str) -> Path:
    """Two branches; ``body_1`` is what is frail."""
    models = {
        "chooser": support.channel_chooser("images", SIZE),
        "body_0": body("is robust", "value_0"),
        "head_0": head("value_0"),
        "body_1": body(layers, "value_1"),
        "head_1": head("value_1"),
    }
    branches = tuple(Way(body=f"body_{n}", head=f"head_{n}") for n in range(2))
    route = SelectRoute(chooser="chooser", branches=branches)
    return support.write_tiny_bundle(path, models, route, {"images": SIZE})


def write_static(path: Path, layers: str) -> Path:
    models = {"body": body(layers), "head": head()}
    route = StaticRoute(body="body", head="head")
    return support.write_tiny_bundle(path, models, route, {"images": SIZE})


def write_pictures(folder: Path, reds: Sequence[int]) -> Path:
    """A plain picture of 48 pixels for each red, in order; the other channels are dark."""
    folder.mkdir()
    for number, red in enumerate(reds):
        picture = np.full((48, 48, 3), 20, np.uint8)
        picture[..., 2] = red
        assert cv2.imwrite(str(folder / f"{number:02}.png"), picture)
    return folder


def write_labels(bundle: Path, pictures: Path) -> Path:
    """What the bundle itself finds in float32 at its last way: its own AP is 100."""
    found, images = [], []
    with dyninfer.load(bundle) as detector:
        for number, path in enumerate(sorted(pictures.glob("*.png"))):
            images.append({"id": number, "file_name": path.name, "width": 48, "height": 48})
            (raw,) = detector([path])
            for left, top, right, bottom in raw.boxes_xyxy.tolist():
                box = [left, top, right - left, bottom - top]
                area = box[2] * box[3]
                row = {"image_id": number, "category_id": 2, "bbox": box, "area": area}
                found.append({"id": len(found), "iscrowd": 0, **row})
    categories = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    labels = pictures.parent / "labels.json"
    labels.write_text(
        json.dumps({"images": images, "annotations": found, "categories": categories})
    )
    return labels


def write_foreign(path: Path, layers: str) -> Path:
    """A detector as others export them: rows (x, y, x, y, confidence, class) of the same box."""
    nodes, constants = LAYERS[layers]
    mean = helper.make_node("ReduceMean", ["map"], ["value"], axes=[2, 3], keepdims=0)
    tail = [
        helper.make_node("Gather", ["value", "first"], ["red"], axis=1),
        helper.make_node("Unsqueeze", ["red", "axes"], ["column"]),
        helper.make_node("Mul", ["column", "reach"], ["moved"]),
        helper.make_node("Add", ["moved", "row"], ["rows"]),
    ]
    constants = constants | {
        "first": np.array(0),
        "axes": np.array([1, 2]),
        "reach": np.array([[[6, 0, 6, 0, 0, 0]]], np.float32),
        "row": np.array([[[0, 0, 2, 8, 0.75, 1]]], np.float32),
    }
    inputs = {"images": ["batch", 3, SIZE, SIZE]}
    outputs = {"rows": ["batch", 1, 6]}
    model = support.tiny_model(inputs, outputs, [*nodes, mean, *tail], constants)
    helper.set_model_props(model, {"names": "{0: 'left', 1: 'right'}"})
    path.write_bytes(model.SerializeToString())
    return path
