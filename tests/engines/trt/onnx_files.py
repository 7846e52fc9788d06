"""Stages of one node or two, for what a compiler makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto, helper

from dyninfer.bundle.manifest import Precision, Stage, TensorSpec
from dyninfer.engines.trt.file_types import StageFile

SHAPE = ("batch", 3, 8, 8)


def write_stage(
    path: Path,
    nodes: Sequence[NodeProto],
    shape: Sequence[int | str] = SHAPE,
    initializers: Sequence[TensorProto] = (),
    rows_per_run: int | None = None,
) -> StageFile:
    """A stage from ``images`` of this shape to ``y``, in opset 17."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(list(nodes), "stage", [images], [y], list(initializers))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("odd", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    spec = TensorSpec(name="images", dtype="float32", shape=("batch", *shape[1:]))
    stage = Stage(
        file="onnx/body.onnx",
        sha256="0" * 64,
        inputs=(spec,),
        outputs=(),
        parameters=0,
        macs=0,
        rows_per_run=rows_per_run,  # type: ignore[arg-type]  # 1 or None
    )
    return StageFile("body", stage, Precision.FP32, path)


def relu() -> list[NodeProto]:
    return [helper.make_node("Relu", ["images"], ["y"], name="relu")]
