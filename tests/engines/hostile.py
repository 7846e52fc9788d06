"""Bundles whose manifest, hashes right, says of its stages what is not so.

A cascade of two exits: ``first`` makes ``value`` (N, 3) of ``images``, ``router`` the easiness of
that, ``head`` boxes of it, ``second`` boxes of ``images`` and ``value``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dyninfer.bundle.documents import dump_sealed

SIZE = 4
Axes = list[Any]
SHAPES: dict[str, Axes] = {
    "images": ["batch", 3, SIZE, SIZE],
    "value": ["batch", 3],
    "easiness": ["batch"],
    "boxes_xyxy": ["batch", 2, 4],
    "class_scores": ["batch", 2, 2],
}
BOXES = ("boxes_xyxy", "class_scores")
STAGES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "first": (("images",), ("value",)),
    "router": (("value",), ("easiness",)),
    "head": (("value",), BOXES),
    "second": (("images", "value"), BOXES),
}
Value = onnx.ValueInfoProto
Nodes = list[onnx.NodeProto]


def node(kind: str, reads: Sequence[str], makes: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(reads), [makes], **attributes)


CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "last": np.array([-1]),
    "end": np.array([2**40]),
    "row": np.array(0),
    "first_only": np.array([True]),
    "fixed": np.full((1, 3), 7, np.float32),
    "corners": np.arange(8, dtype=np.float32).reshape(1, 2, 4),
    "scores": np.array([[[0.25, 0.75], [0.5, 0.125]]], np.float32),
    "axes": np.array([1, 2]),
    "far": np.array(1000, np.float32),
    "little": np.array(2**-14, np.float32),  # scores stay below 1
}
HONEST: dict[str, Callable[[], Nodes]] = {
    "first": lambda: [node("ReduceMean", ["images"], "raw_value", axes=[2, 3], keepdims=0)],
    "router": lambda: [node("Gather", ["value", "row"], "raw_easiness", axis=1)],
    "head": lambda: boxes_of("value"),
    "second": lambda: [
        node("ReduceMean", ["images"], "mean", axes=[2, 3], keepdims=0),
        node("Add", ["mean", "value"], "both"),
        node("Add", ["both", "far"], "moved"),
        *boxes_of("moved"),
    ],
}


def boxes_of(value: str) -> Nodes:
    return [
        node("Gather", [value, "last"], "column", axis=1),
        node("Unsqueeze", ["column", "one"], "cell"),
        node("Add", ["cell", "corners"], "raw_boxes_xyxy"),
        node("Mul", ["cell", "little"], "share"),
        node("Add", ["share", "scores"], "raw_class_scores"),
    ]


def _cast(to: int) -> Callable[[str, str], Nodes]:
    return lambda raw, name: [node("Cast", [raw], name, to=to)]


def _turned(raw: str, name: str) -> Nodes:
    rank = len(SHAPES[name])
    return [node("Transpose", [raw], name, perm=list(reversed(range(rank))))]


TYPES = {
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "bool": TensorProto.BOOL,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
}
TWISTS: dict[str, Callable[[str, str], Nodes]] = {
    **{name: _cast(number) for name, number in TYPES.items()},
    "as it is": lambda raw, name: [node("Identity", [raw], name)],
    "twice as many rows": lambda raw, name: [node("Concat", [raw, raw], name, axis=0)],
    "one row": lambda raw, name: [node("Slice", [raw, "zero", "one", "zero"], name)],
    "one row less": lambda raw, name: [node("Slice", [raw, "one", "end", "zero"], name)],
    "no row": lambda raw, name: [node("Slice", [raw, "zero", "zero", "zero"], name)],
    "the first row, found by looking": lambda raw, name: [
        node("Compress", [raw, "first_only"], name, axis=0)
    ],
    "the first column, found by looking": lambda raw, name: [
        node("Compress", [raw, "first_only"], name, axis=-1)
    ],
    "the mean row": lambda raw, name: [node("ReduceMean", [raw], name, axes=[0], keepdims=1)],
    "no batch": lambda raw, name: [node("ReduceMean", [raw], name, axes=[0], keepdims=0)],
    "wider": lambda raw, name: [node("Concat", [raw, raw], name, axis=-1)],
    "narrower": lambda raw, name: [node("Slice", [raw, "zero", "one", "last"], name)],
    "empty": lambda raw, name: [node("Slice", [raw, "zero", "zero", "last"], name)],
    "flat": lambda raw, name: [node("Reshape", [raw, "last"], name)],
    "a scalar": lambda raw, name: [node("ReduceSum", [raw], name, keepdims=0)],
    "one axis more": lambda raw, name: [node("Unsqueeze", [raw, "last"], name)],
    "turned": _turned,
    "where it is not zero": lambda raw, name: [
        node("NonZero", [raw], f"{name}_found"),
        node("Cast", [f"{name}_found"], name, to=TensorProto.FLOAT),
    ],
    "a constant": lambda _, name: [node("Identity", ["fixed"], name)],
    "a sequence": lambda raw, name: [node("SequenceConstruct", [raw], name)],
    "optional": lambda raw, name: [node("Optional", [raw], name)],
}
"""What a stage makes of an output, from what it should be."""
KEEPING_RANK = (
    "as it is",
    "wider",
    "narrower",
    "the first column, found by looking",
    "one row",
    "one row less",
    "twice as many rows",
    "turned",
)
TOLD = ("truth", "axes", "nothing")
"""What a file says of the shape of an output."""
Spec = dict[str, Any]


def _resized(change: Callable[[Axes], Axes]) -> Callable[[Spec], list[Spec]]:
    return lambda spec: [spec | {"shape": change(spec["shape"])}]


def _last(size: Any) -> Callable[[Spec], list[Spec]]:
    return _resized(lambda axes: [*axes[:-1], size])


LIES: dict[str, Callable[[Spec], list[Spec]]] = {
    "float16": lambda spec: [spec | {"dtype": "float16"}],
    "axes of any size": lambda spec: [
        spec | {"shape": ["batch", *(f"{spec['name']}_{i}" for i in range(1, len(spec["shape"])))]}
    ],
    "axes of one name": _resized(lambda axes: [*axes[:1], *("any" for _ in axes[1:])]),
    "no batch": _resized(lambda axes: ["any", *axes[1:]]),
    "a batch of one": _resized(lambda axes: [1, *axes[1:]]),
    "one axis more": _resized(lambda axes: [*axes, 1]),
    "one axis less": _resized(lambda axes: axes[:-1]),
    "no axis": _resized(lambda _: []),
    "as wide as the batch": _last("batch"),
    "narrower": _last(1),
    "wider": _last(5),
    "much wider": _last(4096),
    "empty": _last(0),
    "negative": _last(-1),
    "a terabyte": _last(2**38),
    "beyond all": _last(2**64),
    "renamed": lambda spec: [spec | {"name": "another"}],
    "gone": lambda _: [],
    "twice": lambda spec: [spec, spec],
    "one more": lambda spec: [spec, spec | {"name": "another"}],
}
"""What the manifest says of a tensor, from what is so."""


@dataclass(frozen=True)
class Lie:
    """What the manifest says of a tensor, in one stage or (None) wherever it is read or made."""

    tensor: str
    what: str
    stage: str | None = None

    def tell(self, stages: Mapping[str, Any]) -> None:
        """Change the manifest's stages."""
        for name, entry in stages.items():
            for side in ("inputs", "outputs") if self.stage in (None, name) else ():
                entry[side] = [
                    told
                    for spec in entry[side]
                    for told in (LIES[self.what](spec) if spec["name"] == self.tensor else [spec])
                ]


@dataclass(frozen=True)
class Hostile:
    """What is wrong in files, and in the manifest.

    ``twists`` are (stage, output) -> what it makes, and what its file says of that; with ``vague``
    files take inputs of any size. ``alone`` are stages that the manifest runs row by row, ``noise``
    bytes that take the place of as many of the name ``easiness`` in the router's file.
    """

    twists: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    vague: bool = False
    lies: Sequence[Lie] = ()
    alone: Sequence[str] = ()
    noise: bytes = b""


def _axes(name: str) -> Axes:
    return [f"{name}_{axis}" for axis in range(len(SHAPES[name]))]


def _declared(name: str, twist: str, told: str) -> Value:
    dtype = TYPES.get(twist, TensorProto.FLOAT)
    keeps_rank = twist in (*TYPES, *KEEPING_RANK)
    known = {"truth": SHAPES[name] if twist in (*TYPES, "as it is") else None, "axes": _axes(name)}
    axes = known.get(told) if keeps_rank else None
    if twist == "a sequence":
        return helper.make_tensor_sequence_value_info(name, dtype, None)
    if twist == "optional":
        tensor = helper.make_tensor_type_proto(dtype, None)
        return helper.make_value_info(name, helper.make_optional_type_proto(tensor))
    return helper.make_tensor_value_info(name, dtype, axes)


def model_of(stage: str, hostile: Hostile) -> onnx.ModelProto:
    """The file of a stage."""
    reads, makes = STAGES[stage]
    nodes, outputs = HONEST[stage](), []
    for name in makes:
        twist, told = hostile.twists.get((stage, name), ("as it is", "truth"))
        nodes += TWISTS[twist](f"raw_{name}", name)
        outputs.append(_declared(name, twist, told))
    sizes = {name: _axes(name) if hostile.vague else SHAPES[name] for name in reads}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in sizes.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()]
    graph = helper.make_graph(nodes, stage, inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def honest_stages() -> dict[str, Any]:
    """The manifest's stages where nothing is wrong."""

    def specs(names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": "float32", "shape": [*SHAPES[name]]} for name in names]

    return {
        stage: {"inputs": specs(reads), "outputs": specs(makes)}
        for stage, (reads, makes) in STAGES.items()
    }


def write(path: Path, hostile: Hostile) -> Path:
    """Write the bundle, whatever is wrong with it, and seal it."""
    (path / "onnx").mkdir(parents=True)
    stages = honest_stages()
    for lie in hostile.lies:
        lie.tell(stages)
    for stage in hostile.alone:
        stages[stage]["rows_per_run"] = 1
    for stage, entry in stages.items():
        data = model_of(stage, hostile).SerializeToString()
        if hostile.noise and stage == "router":
            data = data.replace(b"easiness", hostile.noise + b"easiness"[len(hostile.noise) :])
        entry |= _write_file(path, stage, data)
    first = {"body": "first", "router": "router", "head": "head"}
    return seal(path, stages, {"kind": "cascade", "exits": [first, {"body": "second"}]})


def write_passing_on(path: Path) -> Path:
    """A head that gives its input back as an output of the same name, said to be larger."""
    (path / "onnx").mkdir(parents=True)
    boxes = helper.make_tensor_value_info("boxes_xyxy", TensorProto.FLOAT, ["n", "k", "four"])
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, SHAPES["images"])
    scores = helper.make_tensor_value_info("class_scores", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items()]
    body = [node("ReduceMean", ["images"], "boxes_xyxy", axes=[1], keepdims=0)]
    head = [
        node("ReduceMean", ["boxes_xyxy"], "mean", axes=[1, 2]),
        node("Expand", ["mean", "size"], "class_scores"),
    ]
    size = numpy_helper.from_array(np.array([1, 512, 2]), "size")
    graphs = {
        "body": helper.make_graph(body, "body", [images], [boxes]),
        "head": helper.make_graph(head, "head", [boxes], [boxes, scores], [*constants, size]),
    }
    shapes = SHAPES | {"boxes_xyxy": ["batch", 512, 4], "class_scores": ["batch", 512, 2]}
    stages = {}
    for stage, graph in graphs.items():
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        entry = _write_file(path, stage, model.SerializeToString())
        sides = {"inputs": graph.input, "outputs": graph.output}
        stages[stage] = entry | {
            side: [
                {
                    "name": value.name,
                    "dtype": "float32",
                    # what the body makes and the head reads has any number of boxes
                    "shape": ["batch", "k", 4]
                    if value.name == "boxes_xyxy" and (stage, side) != ("head", "outputs")
                    else shapes[value.name],
                }
                for value in values
            ]
            for side, values in sides.items()
        }
    return seal(path, stages, {"kind": "static", "body": "body", "head": "head"})


def _write_file(path: Path, stage: str, data: bytes) -> dict[str, Any]:
    file = f"onnx/{stage}.onnx"
    (path / file).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return {"file": file, "sha256": sha256, "parameters": 0, "macs": 0}


def seal(path: Path, stages: Mapping[str, Any], route: Mapping[str, Any]) -> Path:
    """Write the manifest of stages whose files are there."""
    manifest = {
        "schema_version": 2,
        "name": "hostile",
        "family": "tiny",
        "task": "detect",
        "class_names": ["left", "right"],
        "route": route,
        "stages": stages,
        "image_inputs": {"images": {"height": SIZE, "width": SIZE}},
        "source": {"file_name": "none", "sha256": "0" * 64},
        "written_by": "a test",
    }
    (path / "bundle.json").write_text(dump_sealed(manifest), encoding="utf-8")
    return path
