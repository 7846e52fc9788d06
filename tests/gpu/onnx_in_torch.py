"""Runs an ONNX graph with PyTorch: the operators of this project's stages, and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor
from torch.nn import functional

TYPES = {1: torch.float32, 10: torch.float16, 3: torch.int8, 2: torch.uint8, 6: torch.int32}
TYPES |= {7: torch.int64, 9: torch.bool}
Run = Callable[..., Tensor | Sequence[Tensor]]


class TorchGraph:
    """An ONNX graph whose constants lie on a device; call it with its inputs by name.

    What computes with shapes and indices (int64 constants) stays on the host, so that nothing in a
    run waits for the device.
    """

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        self._nodes = list(model.graph.node)
        unknown = sorted({node.op_type for node in self._nodes} - set(OPERATORS) - {"Constant"})
        if unknown:
            raise NotImplementedError(f"tests/gpu/onnx_in_torch.py lacks {', '.join(unknown)}")
        self._outputs = [value.name for value in model.graph.output]
        self._constants: dict[str, Tensor] = {}
        for name, proto in _constants(model.graph):
            array = torch.from_numpy(np.array(numpy_helper.to_array(proto)))
            self._constants[name] = array if array.dtype == torch.int64 else array.to(device)

    def __call__(self, feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = {**self._constants, **feeds}
        for node in self._nodes:
            if node.op_type == "Constant":
                continue
            options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            arguments = [values[name] if name else None for name in node.input]
            if node.op_type == "Split":
                options["parts"] = len(node.output)
            made = OPERATORS[node.op_type](*arguments, **options)
            results = [made] if isinstance(made, Tensor) else made
            values.update(zip(node.output, results, strict=False))
        return {name: values[name] for name in self._outputs}


def _constants(graph: onnx.GraphProto) -> list[tuple[str, onnx.TensorProto]]:
    found = [(proto.name, proto) for proto in graph.initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            (value,) = node.attribute
            if value.name != "value":
                raise NotImplementedError(f"a Constant with {value.name}")
            found.append((node.output[0], value.t))
    return found


def _axes(axes: Tensor | Sequence[int] | None) -> list[int]:
    if axes is None:
        return []
    return [int(axis) for axis in axes]


def _paired(pads: Sequence[int], shape: Sequence[int]) -> list[int]:
    half = len(pads) // 2
    if list(pads[:half]) != list(pads[half:]):
        raise NotImplementedError(f"pads {list(pads)} of {list(shape)}")
    return list(pads[:half])


def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, **how: Any) -> Tensor:
    assert how.get("auto_pad", b"NOTSET") == b"NOTSET", how
    padding = _paired(how["pads"], x.shape) if "pads" in how else 0
    strides, dilations = how.get("strides", 1), how.get("dilations", 1)
    return functional.conv2d(x, weight, bias, strides, padding, dilations, how.get("group", 1))


def max_pool(x: Tensor, *, kernel_shape: Any, **how: Any) -> Tensor:
    assert not how.get("ceil_mode"), how
    assert set(how.get("dilations", [1])) == {1}, how
    padding = _paired(how["pads"], x.shape) if "pads" in how else 0
    return functional.max_pool2d(x, kernel_shape, how.get("strides", 1), padding)


def resize(x: Tensor, _roi: Any = None, scales: Any = None, sizes: Any = None, **how: Any):
    assert how.get("mode", b"nearest") == b"nearest", how
    size = _axes(sizes)[2:] or [int(n * s) for n, s in zip(x.shape[2:], scales[2:], strict=True)]
    return functional.interpolate(x, size, mode="nearest")


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    count, channels, height, width = x.shape
    cells = (count, channels, height // blocksize, blocksize, width // blocksize, blocksize)
    return x.reshape(cells).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    wanted = _axes(shape)
    if not allowzero:
        wanted = [x.shape[i] if axis == 0 else axis for i, axis in enumerate(wanted)]
    return x.reshape(wanted)


def reduce(function: Callable[..., Tensor]) -> Run:
    def run(x: Tensor, axes: Any = None, *, keepdims: int = 1, **attributes: Any) -> Tensor:
        axes = _axes(axes if axes is not None else attributes.get("axes"))
        return function(x, dim=axes or list(range(x.ndim)), keepdim=bool(keepdims))

    return run


def slice_(x: Tensor, starts: Tensor, ends: Tensor, axes: Any = None, steps: Any = None) -> Tensor:
    starts, ends = _axes(starts), _axes(ends)
    axes = _axes(axes) or list(range(len(starts)))
    index = [slice(None)] * x.ndim
    strides = _axes(steps) or [1] * len(axes)
    for axis, start, end, step in zip(axes, starts, ends, strides, strict=True):
        assert step > 0, "a negative step"
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def split(x: Tensor, sizes: Any = None, *, axis: int = 0, parts: int, **_: Any) -> list[Tensor]:
    lengths = _axes(sizes) or [x.shape[axis] // parts] * parts
    return list(torch.split(x, lengths, axis))


def unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    for axis in sorted(a % (x.ndim + len(axes)) for a in _axes(axes)):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze(tuple(_axes(axes))) if axes is not None else x.squeeze()


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    indices = indices.to(x.device)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis % x.ndim + 1 :])
    return x.index_select(axis, indices.reshape(-1)).reshape(shape)


def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int) -> Tensor:
    assert batch_dims == 1, batch_dims
    assert indices.shape[-1] == 1, indices.shape
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, indices.squeeze(-1).to(x.device)]


def top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1):
    return torch.topk(x, int(k.reshape(-1)[0]), axis, bool(largest), bool(sorted))


def _along(scale: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale of each channel, in the shape of what it scales."""
    if scale.ndim == 0 or scale.numel() == 1:
        return scale.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return scale.reshape(shape)


def quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, **_: Any):
    dtype = zero.dtype if zero is not None else torch.uint8
    shift = _along(zero, x, axis).float() if zero is not None else 0
    limits = torch.iinfo(dtype)
    steps = torch.round(x.float() / _along(scale, x, axis).float()) + shift
    return steps.clamp(limits.min, limits.max).to(dtype)


def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Tensor:
    shift = _along(zero, x, axis).float() if zero is not None else 0
    return ((x.float() - shift) * _along(scale, x, axis).float()).to(scale.dtype)


def non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x).T.contiguous()


def gemm(a: Tensor, b: Tensor, c: Any = None, *, transA: int = 0, transB: int = 0, **scale: float):  # noqa: N803  # ONNX's names
    product = scale.get("alpha", 1.0) * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + scale.get("beta", 1.0) * c


OPERATORS: dict[str, Run] = {
    "Add": torch.add,
    "Cast": lambda x, *, to: x.to(TYPES[to]),
    "Clip": lambda x, low=None, high=None: x.clamp(low, high),
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Conv": conv,
    "DequantizeLinear": dequantize,
    "Div": lambda a, b: a / b,
    "Exp": torch.exp,
    "Gather": gather,
    "GatherND": gather_nd,
    "GatherElements": lambda x, indices, *, axis=0: torch.gather(x, axis, indices),
    "Gemm": gemm,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "Greater": torch.gt,
    "Identity": lambda x: x,
    "MatMul": torch.matmul,
    "MaxPool": max_pool,
    "Mul": torch.mul,
    "NonZero": non_zero,
    "QuantizeLinear": quantize,
    "ReduceMax": reduce(torch.amax),
    "ReduceMean": reduce(torch.mean),
    "ReduceSum": reduce(torch.sum),
    "Relu": torch.relu,
    "Reshape": reshape,
    "Resize": resize,
    "Sigmoid": torch.sigmoid,
    "Slice": slice_,
    "Softmax": lambda x, *, axis=-1: torch.softmax(x, axis),
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Sqrt": torch.sqrt,
    "Squeeze": squeeze,
    "Sub": torch.sub,
    "TopK": top_k,
    "Transpose": lambda x, *, perm: x.permute(*perm),
    "Unsqueeze": unsqueeze,
}
