"""Small graphs and inputs that several tests of precision share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from dyninfer.exporters.precision.ranges import open_session
from tests.support import tiny_model

SIDE = 8


def weights(*shape: int, seed: int = 0, scale: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def conv(source: str, weight: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], kernel_shape=[3, 3], pads=[1] * 4)


def silu(source: str, target: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Sigmoid", [source], [f"{source}_gate"]),
        helper.make_node("Mul", [source, f"{source}_gate"], [target]),
    ]


def two_layers(scale: float = 1.0) -> onnx.ModelProto:
    """images (N, 3, 8, 8) -> feature, which a second layer reads too, and deep (N, 8, 8, 8)."""
    return tiny_model(
        {"images": ["batch", 3, SIDE, SIDE]},
        {"feature": ["batch", 8, SIDE, SIDE], "deep": ["batch", 8, SIDE, SIDE]},
        [
            conv("images", "w1", "c1"),
            *silu("c1", "feature"),
            conv("feature", "w2", "c2"),
            *silu("c2", "deep"),
        ],
        {"w1": weights(8, 3, 3, 3) * np.float32(scale), "w2": weights(8, 8, 3, 3, seed=1)},
    )


def images(count: int = 4, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"images": rng.random((1, 3, SIDE, SIDE), np.float32)} for _ in range(count)]


def feed_of(inputs: Sequence[Mapping[str, np.ndarray]]) -> Callable[[], Iterator[Mapping]]:
    return lambda: iter(inputs)


def run(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, open_session(model).run(names, dict(inputs)), strict=True))


def elem_types(model: onnx.ModelProto) -> dict[str, int]:
    """Tensor -> element type, inferred."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def assert_same_frame(converted: onnx.ModelProto, source: onnx.ModelProto) -> None:
    """Same inputs, outputs and versions, and a model that ONNX accepts."""
    inputs = [[(v.name, v.type) for v in model.graph.input] for model in (converted, source)]
    assert inputs[0] == inputs[1]
    assert [v.name for v in converted.graph.output] == [v.name for v in source.graph.output]
    assert all(
        v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in converted.graph.output
    )
    assert converted.ir_version == source.ir_version
    assert list(converted.opset_import) == list(source.opset_import)
    onnx.checker.check_model(converted, full_check=True)
