"""Reference vectors, small checkpoints, and bundles made by hand."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import dyninfer
from dyninfer.bundle.documents import SEAL, dump_sealed
from dyninfer.bundle.folder import MANIFEST_FILE, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import (
    CascadeRoute,
    Exit,
    Manifest,
    SelectRoute,
    Source,
    Stage,
    StaticRoute,
    TensorSpec,
    Way,
)
from dyninfer.bundle.writing import write_bundle, write_stage_file
from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.model import DynamicDetector, random_model
from dyninfer.exporters.dynamicdet.plan import Plan
from dyninfer.exporters.dynamicdet.topology import Op, Part, Topology
from dyninfer.images.spec import ImageSpec
from dyninfer.routing.policy import DecisionPoint

TESTS = Path(__file__).parent
ROOT = TESTS.parent
VECTORS = TESTS / "vectors"
VARIANTS = ("dy-yolov7", "dy-yolov7x", "dy-yolov7-w6")
SIZE = 128
BOX_TOLERANCE = 1e-3
EASINESS_TOLERANCE = 1e-5
T = TypeVar("T")


def in_fresh_process(function: Callable[..., T], *arguments: object) -> T:
    """What a module's function gives in a process in which no other test has left its memory.

    The C library takes memory that is asked for from what was freed before, if that is large
    enough, and gives that back to the system when it likes.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def checkpoint_of(variant: str) -> Path:
    return VECTORS / f"{variant}-narrow.pt"


def vector_of(variant: str) -> Mapping[str, np.ndarray]:
    with np.load(VECTORS / f"{variant}-narrow.npz") as arrays:
        return dict(arrays)


def expected_outputs(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 5 + C) as cx, cy, w, h, objectness, classes -> boxes_xyxy and class_scores."""
    centre, half = reference[..., :2], reference[..., 2:4] / 2
    boxes = np.concatenate([centre - half, centre + half], -1)
    return boxes, reference[..., 4:5] * reference[..., 5:]


def stacked(outputs: Sequence[dyninfer.RawOutput], name: str) -> np.ndarray:
    return np.stack([output.outputs[name] for output in outputs])


def random_images(count: int, height: int = SIZE, width: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, height, width), dtype=np.float32)


def random_pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Blurred noise in several sizes, (h, w, 3) uint8."""
    generator = np.random.default_rng(seed)
    pictures = []
    for index in range(count):
        height, width = generator.integers(40, 200, 2)
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        picture = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        pictures.append(np.ascontiguousarray(np.roll(picture, index, 0)))
    return pictures


def shared_folder() -> Path:
    """Data that is not part of the repository."""
    return Path(os.environ.get("DYNINFER_SHARED", ROOT.parent / "shared"))


def photo_paths(count: int) -> list[Path]:
    folder = shared_folder() / "data" / "photos50" / "images"
    paths = sorted(folder.glob("*.jpg"))[:count]
    if len(paths) < count:
        pytest.skip(f"no photos in {folder}; set DYNINFER_SHARED to the folder that holds them")
    return paths


def copy_checkout(to: Path) -> None:
    """Copy this checkout as a clone of it would be, with its links, without what was made in it."""
    lines = [".git/", *(ROOT / ".gitignore").read_text("utf-8").split()]

    def made(folder: str, names: list[str]) -> set[str]:
        folders = {name for name in names if (Path(folder) / name).is_dir()}
        return {
            name
            for line in lines
            for name in fnmatch.filter(folders if line.endswith("/") else names, line.rstrip("/"))
        }

    shutil.copytree(ROOT, to, symlinks=True, ignore=made)


def files_below(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of everything in a folder, hidden files included."""
    return {
        str(path.relative_to(folder)): file_sha256(path) if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def refuses(error: type[dyninfer.DyninferError], *parts: str):
    """The block raises exactly this error, in one line that names all ``parts``."""
    with pytest.raises(error) as caught:
        yield caught
    message = str(caught.value)
    assert message
    assert "\n" not in message
    for part in parts:
        assert part in message


def imported_anew(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> ModuleType:
    """The module as a new process would import it, for the duration of the test."""
    parent, _, name = module.__name__.rpartition(".")
    monkeypatch.delitem(sys.modules, module.__name__)
    anew = importlib.import_module(module.__name__)
    monkeypatch.setattr(sys.modules[parent], name, module)  # where the import has put the new one
    return anew


# Checkpoints


def randomise(model: DynamicDetector, seed: int = 0) -> DynamicDetector:
    """Give batch norms and implicit layers values that show whether folding is right."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.8, 1.6)
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.2, 0.2)
            uniform(module.running_var, 0.3, 1.2)
        elif isinstance(module, layers.ImplicitA):
            uniform(module.implicit, -0.2, 0.2)
        elif isinstance(module, layers.ImplicitM):
            uniform(module.implicit, 0.8, 1.2)
    return model


def published_format(state: Mapping[str, Tensor], *, ema: bool = False) -> dict[str, object]:
    half = OrderedDict(
        (name, tensor.half() if tensor.is_floating_point() else tensor)
        for name, tensor in state.items()
    )
    return {
        "epoch": 3,
        "best_fitness": np.array([0.25]),
        "training_results": "nothing",
        "model": None if ema else half,
        "ema": half if ema else None,
        "updates": 7,
        "optimizer": None,
        "wandb_id": None,
    }


def save_checkpoint(model: DynamicDetector, path: Path, *, without: str | None = None) -> Path:
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if without is None or not name.startswith(without)
    }
    torch.save(published_format(state), path)
    return path


def decoded_by_definition(
    model: DynamicDetector, raw: Sequence[Tensor], detect: layers.Detect
) -> tuple[np.ndarray, np.ndarray]:
    """The decode of the published description, cell by cell grids, without dyninfer's own."""
    anchors, values = detect.anchor_grid.shape[2], 5 + detect.classes
    rows = []
    for level, stride, grid in zip(raw, model.plan.strides, detect.anchor_grid, strict=True):
        batch, _, height, width = level.shape
        s = level.view(batch, anchors, values, height, width).permute(0, 1, 3, 4, 2).sigmoid()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = (s[..., :2] * 2 - 0.5 + torch.stack([x, y], -1)) * stride
        size = (s[..., 2:4] * 2) ** 2 * grid.view(1, anchors, 1, 1, 2)
        rows.append(torch.cat([centre, size, s[..., 4:]], -1).reshape(batch, -1, values))
    reference = torch.cat(rows, 1).numpy()
    boxes, scores = expected_outputs(reference)
    return boxes, reference[..., 4:5] if detect.classes == 1 else scores


SMALL_YAML = """
nc: 2
anchors:
  - [8,9, 12,20]
  - [30,25, 40,60]
depth_multiple: 1.0
width_multiple: 1.0
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 2, Conv, [8, 3, 1]]
  - [-1, 1, MP, []]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 1, 1]]
  - [[-1, -2], 1, Concat, [1]]
  - [-1, 1, Conv, [16, 3, 2]]
b1_save: [5, 6]
keep_input: True
dynamic: True
router_ins: [1, 5, 6]
router_channels: 56
router_reduction: 4
dual_backbone:
  - [input, 1, ReOrg, []]
  - [-1, 1, Conv, [8, 3, 2]]
  - [5, 1, CBLinear, [[8, 16]]]
  - [[-1, -2], 1, CBFuse, [[0]]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [[-3, -1], 1, CBFuse, [[1]]]
  - [-1, 1, Conv, [24, 3, 2]]
head:
  - [6, 1, SPPCSPC, [8]]
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 5], 1, Concat, [1]]
  - [-1, 1, RepConv, [16, 3, 1]]
  - [-4, 1, Conv, [16, 1, 1]]
  - [[-2, -1], 1, IDetect, [nc, anchors]]
head2:
  - [5, 1, RepConv, [16, 3, 1]]
  - [6, 1, Conv, [16, 1, 1]]
  - [[-2, -1], 1, IDetect, [nc, anchors]]
n_first_layers: 7
"""


SMALL_WIDTHS = {
    Part.FIRST: (8, 8, 0, 16, 16, 0, 16),
    Part.SECOND: (0, 8, 0, 0, 16, 0, 24),
    Part.HEAD: (8, 0, 0, 16, 16, 0),
    Part.HEAD2: (16, 16, 0),
}


def small_detector(topology: Topology, classes: int = 2) -> DynamicDetector:
    """A model of :data:`SMALL_YAML` with random weights."""
    plan = Plan(topology, classes=classes, anchors_per_level=2)
    for row in topology.rows():
        if row.op in (Op.CONV, Op.SPPCSPC, Op.REP_CONV):
            assert row.ref.part is not None
            plan.out[row.ref] = SMALL_WIDTHS[row.ref.part][row.ref.index]
            plan.hidden[row.ref] = plan.out[row.ref]
    plan.router_hidden = plan.router_channels // 4
    anchors = [[8, 9, 12, 20], [30, 25, 40, 60]]
    return randomise(random_model(plan, anchors, seed=3), seed=4)


# Bundles made by hand

FLOAT = TensorProto.FLOAT


def tiny_model(
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    def values(specs: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, FLOAT, list(s)) for name, s in specs.items()]

    initializers = [numpy_helper.from_array(a, name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "tiny", values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def means_of(images: str, height: int, width: int, value: str) -> onnx.ModelProto:
    """A body whose feature (N, 3) is the mean of each channel."""
    return tiny_model(
        {images: ["batch", 3, height, width]},
        {value: ["batch", 3]},
        [helper.make_node("ReduceMean", [images], [value], axes=[2, 3], keepdims=0)],
    )


def channel_router(value: str, channel: int) -> onnx.ModelProto:
    """Easiness (N,) = one channel of the feature; NaN where that is negative."""
    return tiny_model(
        {value: ["batch", 3]},
        {"easiness": ["batch"]},
        [
            helper.make_node("Gather", [value, "channel"], ["picked"], axis=1),
            helper.make_node("Sqrt", ["picked"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["nan_or_zero"]),
            helper.make_node("Add", ["picked", "nan_or_zero"], ["easiness"]),
        ],
        {"channel": np.array(channel), "nothing": np.array(0, np.float32)},
    )


def detection_nodes(value: str, offset: float) -> tuple[list[onnx.NodeProto], dict]:
    """One box (N, 1, 4): channel 2 of the feature, plus ``offset``, plus 0, 0, 8, 8; 2 classes."""
    nodes = [
        helper.make_node("Gather", [value, "third"], ["identity"], axis=1),
        helper.make_node("Unsqueeze", ["identity", "axes"], ["column"]),
        helper.make_node("Add", ["column", "corners"], ["boxes_xyxy"]),
        helper.make_node("Mul", ["column", "no_score"], ["zeros"]),
        helper.make_node("Add", ["zeros", "scores"], ["class_scores"]),
    ]
    constants = {
        "third": np.array(2),
        "axes": np.array([1, 2]),
        "corners": np.array([[[0, 0, 8, 8]]], np.float32) + np.float32(offset),
        "no_score": np.zeros((1, 1, 2), np.float32),
        "scores": np.array([[[0.25, 0.75]]], np.float32),
    }
    return nodes, constants


DETECTIONS = {"boxes_xyxy": ["batch", 1, 4], "class_scores": ["batch", 1, 2]}


def detecting_head(value: str, offset: float) -> onnx.ModelProto:
    nodes, constants = detection_nodes(value, offset)
    return tiny_model({value: ["batch", 3]}, DETECTIONS, nodes, constants)


def detecting_body(
    images: str, size: int, offset: float, carried: str | None = None
) -> onnx.ModelProto:
    """A body that ends in detections itself; it may read an earlier feature as well."""
    nodes, constants = detection_nodes("mean", offset)
    reduce = helper.make_node("ReduceMean", [images], ["mean"], axes=[2, 3], keepdims=0)
    inputs: dict[str, Sequence[int | str]] = {images: ["batch", 3, size, size]}
    if carried:
        inputs[carried] = ["batch", 3]
        average = [
            helper.make_node("Add", ["mean_of_images", carried], ["twice"]),
            helper.make_node("Mul", ["twice", "half"], ["mean"]),
        ]
        reduce.output[0] = "mean_of_images"
        nodes = [*average, *nodes]
        constants["half"] = np.array(0.5, np.float32)
    return tiny_model(inputs, DETECTIONS, [reduce, *nodes], constants)


def stage_entry(model: onnx.ModelProto, file: str, data: bytes) -> Stage:
    def specs(values: Sequence[onnx.ValueInfoProto]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                name=value.name,
                dtype="float32",
                shape=tuple(
                    axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim
                ),
            )
            for value in values
        )

    return Stage(
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        inputs=specs(model.graph.input),
        outputs=specs(model.graph.output),
        parameters=0,
        macs=0,
    )


def write_tiny_bundle(
    path: Path,
    models: Mapping[str, onnx.ModelProto],
    route: CascadeRoute | StaticRoute | SelectRoute,
    image_sizes: Mapping[str, int],
    *,
    task: str = "detect",
    class_names: Sequence[str] = ("left", "right"),
    macs: Mapping[str, int] | None = None,
) -> Path:
    def write(folder: Path) -> Manifest:
        stages = {}
        for name, model in models.items():
            data = model.SerializeToString()
            write_stage_file(folder, f"onnx/{name}.onnx", data)
            entry = stage_entry(model, f"onnx/{name}.onnx", data)
            stages[name] = entry.model_copy(update={"macs": (macs or {}).get(name, 0)})
        return Manifest(
            name=path.name.removesuffix(".dyn"),
            family="tiny",
            task=task,
            class_names=tuple(class_names),
            route=route,
            stages=stages,
            image_inputs={n: ImageSpec(height=s, width=s) for n, s in image_sizes.items()},
            source=Source(file_name="none", sha256="0" * 64),
            written_by="a test",
        )

    write_bundle(path, write)
    return path


def write_two_exits(path: Path, size: int = 8, *, router: bool = True) -> Path:
    """Exit 0 adds 0 to its box and exit 1 adds 1000; channel 0 is the easiness."""
    models = {"first": means_of("images", size, size, "value")}
    if router:
        models["router"] = channel_router("value", 0)
    models["head"] = detecting_head("value", 0)
    models["second"] = detecting_body("images", size, 1000)
    exits = (
        Exit(body="first", router="router" if router else None, head="head"),
        Exit(body="second"),
    )
    return write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": size})


def write_three_exits(path: Path, size: int = 8, second_size: int = 4) -> Path:
    """Easiness in channel 0, then in channel 1 of ``images_2``; the third body reads ``images``."""
    models = {
        "body_1": means_of("images", size, size, "value_1"),
        "router_1": channel_router("value_1", 0),
        "head_1": detecting_head("value_1", 0),
        "body_2": means_of("images_2", second_size, second_size, "value_2"),
        "router_2": channel_router("value_2", 1),
        "head_2": detecting_head("value_2", 1000),
        "body_3": detecting_body("images", size, 2000, carried="value_1"),
    }
    exits = (
        Exit(body="body_1", router="router_1", head="head_1"),
        Exit(body="body_2", router="router_2", head="head_2", image_input="images_2"),
        Exit(body="body_3"),
    )
    sizes = {"images": size, "images_2": second_size}
    return write_tiny_bundle(path, models, CascadeRoute(exits=exits), sizes)


def write_static(path: Path, size: int = 8) -> Path:
    models = {"body": detecting_body("images", size, 0)}
    return write_tiny_bundle(path, models, StaticRoute(body="body"), {"images": size})


def write_static_two_stages(path: Path, size: int = 8) -> Path:
    """A body and a head without any decision."""
    models = {"body": means_of("images", size, size, "value"), "head": detecting_head("value", 0)}
    return write_tiny_bundle(path, models, StaticRoute(body="body", head="head"), {"images": size})


def channel_chooser(images: str, size: int) -> onnx.ModelProto:
    """Scores (N, 2): the means of channels 0 and 1; NaN for both where channel 0 is negative."""
    return tiny_model(
        {images: ["batch", 3, size, size]},
        {"choice_scores": ["batch", 2]},
        [
            helper.make_node("ReduceMean", [images], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Gather", ["mean", "channels"], ["picked"], axis=1),
            helper.make_node("Gather", ["mean", "channel"], ["first"], axis=1),
            helper.make_node("Sqrt", ["first"], ["root"]),
            helper.make_node("Mul", ["root", "nothing"], ["nan_or_zero"]),
            helper.make_node("Add", ["picked", "nan_or_zero"], ["choice_scores"]),
        ],
        {
            "channels": np.array([0, 1]),
            "channel": np.array([0]),
            "nothing": np.array(0, np.float32),
        },
    )


def classifying_body(images: str, size: int, weights: Sequence[float]) -> onnx.ModelProto:
    """Logits (N, 3): the mean of each channel times its weight."""
    return tiny_model(
        {images: ["batch", 3, size, size]},
        {"logits": ["batch", 3]},
        [
            helper.make_node("ReduceMean", [images], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "weights"], ["logits"]),
        ],
        {"weights": np.array([weights], np.float32)},
    )


COLOURS = ("red", "green", "blue")


def write_static_classifier(path: Path, size: int = 8) -> Path:
    """The class is the channel with the largest mean."""
    models = {"body": classifying_body("images", size, (10, 10, 10))}
    return write_tiny_bundle(
        path,
        models,
        StaticRoute(body="body"),
        {"images": size},
        task="classify",
        class_names=COLOURS,
    )


def write_select_classifiers(
    path: Path, size: int = 8, macs: Mapping[str, int] | None = None
) -> Path:
    """Branch 0 where channel 0 is at least channel 1; it does not see channel 2, branch 1 does."""
    models = {
        "chooser": channel_chooser("images", size),
        "body_0": classifying_body("images", size, (10, 10, 0)),
        "body_1": classifying_body("images", size, (10, 10, 10)),
    }
    route = SelectRoute(chooser="chooser", branches=(Way(body="body_0"), Way(body="body_1")))
    return write_tiny_bundle(
        path, models, route, {"images": size}, task="classify", class_names=COLOURS, macs=macs
    )


def write_dear_first(path: Path) -> Path:
    """Classifiers of which branch 0 costs more than branch 1."""
    return write_select_classifiers(path, macs={"chooser": 1, "body_0": 50, "body_1": 5})


SHARED_KERNEL = np.random.default_rng(4).normal(size=(16, 3, 3, 3)).astype(np.float32)
SHARED_COLUMNS = np.random.default_rng(5).normal(size=(16, 16)).astype(np.float32)


def convolving_body(size: int, scale: float, kernel: np.ndarray) -> onnx.ModelProto:
    """Logits (N, 3) of a convolution with a kernel, and a scale of its own behind it."""
    return tiny_model(
        {"images": ["batch", 3, size, size]},
        {"logits": ["batch", 3]},
        [
            helper.make_node("Conv", ["images", "kernel"], ["convolved"]),
            helper.make_node("Mul", ["convolved", "scale"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("MatMul", ["mean", "columns"], ["wide"]),
            helper.make_node("Slice", ["wide", "start", "end", "axis"], ["logits"]),
        ],
        {
            "kernel": kernel,
            "columns": SHARED_COLUMNS,
            "scale": np.full((16, 1, 1), scale, np.float32),
            "start": np.array([0]),
            "end": np.array([3]),
            "axis": np.array([1]),
        },
    )


def write_convolving_classifiers(
    path: Path, kernels: tuple[np.ndarray, np.ndarray] = (SHARED_KERNEL, SHARED_KERNEL)
) -> Path:
    """A chooser and two branches, of the same weights but for their scale."""
    models = {
        "chooser": channel_chooser("images", 8),
        "body_0": convolving_body(8, 1.0, kernels[0]),
        "body_1": convolving_body(8, 2.0, kernels[1]),
    }
    route = SelectRoute(chooser="chooser", branches=(Way(body="body_0"), Way(body="body_1")))
    return write_tiny_bundle(
        path, models, route, {"images": 8}, task="classify", class_names=COLOURS
    )


def write_shared_weights(
    path: Path, kernels: tuple[np.ndarray, np.ndarray] = (SHARED_KERNEL, SHARED_KERNEL)
) -> Path:
    """The same with what the branches have in common in a file of its own."""
    from dyninfer.exporters.shared_weights import share_weights

    old = Bundle.open(write_convolving_classifiers(path.with_name(f"plain-{path.name}"), kernels))

    def write(folder: Path) -> Manifest:
        for name in old.manifest.stages:
            old.copy_stage(name, folder)
        stages = share_weights(folder, old.manifest.stages)
        return old.manifest.model_copy(update={"stages": stages})

    write_bundle(path, write)
    return path


def write_cascade_classifiers(path: Path, size: int = 8) -> Path:
    """Channel 0 is the easiness; the first head does not see channel 2, the second body does."""
    head = tiny_model(
        {"value": ["batch", 3]},
        {"logits": ["batch", 3]},
        [helper.make_node("Mul", ["value", "weights"], ["logits"])],
        {"weights": np.array([[10, 10, 0]], np.float32)},
    )
    models = {
        "first": means_of("images", size, size, "value"),
        "router": channel_router("value", 0),
        "head": head,
        "second": classifying_body("images", size, (10, 10, 10)),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    return write_tiny_bundle(
        path,
        models,
        CascadeRoute(exits=exits),
        {"images": size},
        task="classify",
        class_names=COLOURS,
    )


def write_select_detectors(path: Path, size: int = 8, second_size: int = 4) -> Path:
    """Branch 0 adds 0 to its box; branch 1 reads ``images_2``, has a head, and adds 1000."""
    models = {
        "chooser": channel_chooser("images", size),
        "body_0": detecting_body("images", size, 0),
        "body_1": means_of("images_2", second_size, second_size, "value"),
        "head_1": detecting_head("value", 1000),
    }
    branches = (Way(body="body_0"), Way(body="body_1", head="head_1", image_input="images_2"))
    route = SelectRoute(chooser="chooser", branches=branches)
    return write_tiny_bundle(path, models, route, {"images": size, "images_2": second_size})


def write_priced_select(path: Path) -> Path:
    """The same, its chooser for 10 million multiply-accumulates and its branches for 100 and 300.

    A picture's scores are its red and its green as shares of 255.
    """
    write_select_detectors(path)
    costs = {"chooser": 10_000_000, "body_0": 100_000_000, "body_1": 299_000_000}

    def price(manifest: dict) -> None:
        for stage, macs in (costs | {"head_1": 1_000_000}).items():
            manifest["stages"][stage]["macs"] = macs

    reseal(path, price)
    return path


def at_exit(index: int, count: int, exits: int = 2) -> DecisionPoint:
    """Where ``count`` images are at exit ``index`` of a cascade."""
    later = frozenset(range(index + 1, exits))
    return DecisionPoint(index, "easiness", (frozenset({index}), later), np.arange(count))


def go_on(policy: dyninfer.Policy, easiness: np.ndarray, index: int = 0, exits: int = 2):
    """(N,) which images a policy sends on from exit ``index``."""
    return policy.decide(easiness, at_exit(index, len(easiness), exits)) == 1


def coded_images(codes: Sequence[tuple[float, float, float]], size: int = 8) -> np.ndarray:
    """Images whose three channels are constant: easiness, later easiness, identity."""
    values = np.asarray(codes, np.float32).reshape(-1, 3, 1, 1)
    return np.ascontiguousarray(np.broadcast_to(values, (len(values), 3, size, size)))


def reseal(bundle: Path, change) -> None:
    """Edit a manifest as somebody would who knows how the seal is made."""
    path = bundle / MANIFEST_FILE
    payload = json.loads(path.read_text(encoding="utf-8"))
    del payload[SEAL]
    change(payload)
    path.write_text(dump_sealed(payload), encoding="utf-8")


def ordered_candidates() -> dict[str, np.ndarray]:
    """Six candidates of an image, the surest first: boxes (1, 6, 4), class scores (1, 6, 2)."""
    low = np.arange(6, dtype=np.float32)[:, None] * np.float32(20)
    boxes = np.concatenate([low, low, low + 10, low + 15], 1)
    scores = np.linspace(0.9, 0.4, 6, dtype=np.float32)
    return {
        "boxes_xyxy": boxes[None],
        "class_scores": np.stack([scores, scores / 2], 1)[None],
    }
