"""One ONNX detector as its author exported it, and a bundle of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dyninfer.exporters.cascade.export import export_onnx
from dyninfer.exporters.cascade.options import DetectorSource
from tests.dyninfer.evaluation.coded import SIDE


def write_detector(path: Path) -> Path:
    """It finds the whole of any picture: as ``right``, of ``left`` and ``right``, with 0.75."""
    constants = {
        "nothing": np.zeros((1, 1, 1), np.float32),
        "row": np.array([[[0, 0, SIDE, SIDE, 0.75, 1]]], np.float32),
        "shape": np.array([-1, 1, 1]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pictures"], ["mean"], axes=[1, 2, 3]),
            helper.make_node("Reshape", ["mean", "shape"], ["means"]),
            helper.make_node("Mul", ["means", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "row"], ["rows"]),
        ],
        "whole",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 1, 6])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    helper.set_model_props(model, {"names": "{0: 'left', 1: 'right'}"})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_onnx_alone(path: Path) -> Path:
    """A bundle of that detector; its file lies beside it."""
    export_onnx(DetectorSource(write_detector(path.with_suffix(".onnx"))), path)
    return path
