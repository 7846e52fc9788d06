"""The types that an ONNX file says, against ONNX's own inference of types."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.trt.file_types import node_types
from dyninfer.errors import EngineBuildError
from dyninfer.exporters.precision.fp16 import to_fp16
from tests import support
from tests.engines.trt.onnx_files import relu, write_stage

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def expected(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    computes = {}
    for node in graph.node:
        floats = [types[name] for name in node.input if types.get(name) in FLOATS]
        if floats and node.op_type != "Cast":
            computes[node.name] = floats[0]
    return computes


def test_the_types_of_every_node_are_those_that_onnx_infers(embedded_bundle, tmp_path) -> None:
    bundle = Bundle.open(embedded_bundle)
    seen: set[int] = set()
    for name in bundle.manifest.stages:
        single = onnx.load(bundle.stage_path(name))
        for kind, model in (("fp32", single), ("fp16", to_fp16(single))):
            if model is None:  # nothing of the stage can be in float16
                continue
            path = tmp_path / f"{name}-{kind}.onnx"
            onnx.save(model, path)
            found = node_types(path)
            assert found == {name: type for name, type in expected(model).items() if name}
            assert found
            seen |= {*found.values()} if kind == "fp16" else set()
    assert seen == set(FLOATS)


def test_a_file_without_types_or_without_onnx(tmp_path: Path) -> None:
    assert node_types(write_stage(tmp_path / "relu.onnx", relu()).onnx) == {"relu": 1}
    for index, data in enumerate((b"", b"no ONNX file", b"\x3a\xff\xff")):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(data)
        with support.refuses(EngineBuildError, str(path), "cannot be read as an ONNX file"):
            node_types(path)
