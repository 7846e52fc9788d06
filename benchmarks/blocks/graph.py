"""Pieces of backbones, and whole ones, as ONNX files with drawn weights; PyTorch is not needed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from dyninfer.bundle.manifest import BATCH_AXIS, Stage, TensorSpec
from dyninfer.search.pieces import Kind, Piece
from dyninfer.search.structure import Block, Structure

INPUT = "maps"
_OPSET, _IR_VERSION = 17, 8  # as an export writes them
_DRAWN = np.random.default_rng(0).standard_normal(1 << 16, np.float32)


class Graph:
    """An ONNX graph that grows by its last tensor, ``at``."""

    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        self.at, self.channels, self.size = INPUT, channels, size
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._input = (channels, *size)
        self._outputs: list[tuple[str, tuple[int, int, int]]] = []
        self._parameters = self._macs = 0

    def convolve(
        self, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = False
    ) -> None:
        """A convolution with bias, as batch norms are folded into it."""
        name = f"conv{len(self._weights) // 2}"
        shape = (outputs, self.channels // groups, kernel, kernel)
        count = int(np.prod(shape))
        values = np.resize(_DRAWN, count).reshape(shape) * (2 / (count / outputs)) ** 0.5
        for suffix, array in (("w", values), ("b", np.zeros(outputs, np.float32))):
            self._weights.append(numpy_helper.from_array(array, f"{name}.{suffix}"))
        self._add(
            "Conv",
            [self.at, f"{name}.w", f"{name}.b"],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )
        self.size = (-(-self.size[0] // stride), -(-self.size[1] // stride))
        self.channels = outputs
        self._parameters += count + outputs
        self._macs += count * self.size[0] * self.size[1]
        if relu:
            self._add("Relu", [self.at])

    def bottleneck(self, block: Block, *, first: bool) -> None:
        """As in :class:`dyninfer.exporters.zendet.backbone.Bottleneck`, folded."""
        entered, channels, size = self.at, self.channels, self.size
        stride = block.stride if first else 1
        self.convolve(block.width, relu=True)
        self.convolve(block.width, block.kernel, stride, block.groups, relu=True)
        self.convolve(block.outputs)
        main, after = self.at, self.size
        if first:
            self.at, self.channels, self.size = entered, channels, size
            if stride == 2:
                self._add("AveragePool", [self.at], kernel_shape=[2, 2], strides=[2, 2])
                self.size = after
            self.convolve(block.outputs)
            entered = self.at
        self._add("Add", [main, entered])
        self._add("Relu", [self.at])

    def give(self) -> None:
        """The last tensor is an output."""
        self._outputs.append((self.at, (self.channels, *self.size)))

    def average(self) -> None:
        """The mean of each channel is an output, which takes next to nothing to give on."""
        self._add("GlobalAveragePool", [self.at])
        self._outputs.append((self.at, (self.channels, 1, 1)))

    def write(self, path: Path) -> Stage:
        """Write the file; returns how an engine is to see it."""
        tensors = [(INPUT, self._input), *self._outputs]
        values = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (BATCH_AXIS, *shape))
            for name, shape in tensors
        ]
        graph = helper.make_graph(self._nodes, "block", values[:1], values[1:], self._weights)
        imports = [helper.make_opsetid("", _OPSET)]
        raw = helper.make_model(
            graph, opset_imports=imports, ir_version=_IR_VERSION
        ).SerializeToString()
        path.write_bytes(raw)
        specs = tuple(
            TensorSpec(name=name, dtype="float32", shape=(BATCH_AXIS, *shape))
            for name, shape in tensors
        )
        return Stage(
            file=path.name,
            sha256=hashlib.sha256(raw).hexdigest(),
            inputs=specs[:1],
            outputs=specs[1:],
            parameters=self._parameters,
            macs=self._macs,
        )

    def _add(self, operator: str, inputs: list[str], **attributes: Any) -> None:
        self.at = f"t{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [self.at], **attributes))


ENTRY_CHANNELS = 8


def frame(channels: int, size: tuple[int, int]) -> Graph:
    """A convolution that makes a map of a piece's input, of ``size``, out of a few channels.

    Libraries change the layout of what comes in and goes out; within a network they do not.
    """
    graph = Graph(ENTRY_CHANNELS, size)
    graph.convolve(channels, relu=True)
    return graph


def piece_graph(piece: Piece, image_size: tuple[int, int]) -> Graph:
    """A piece in its frame, the average of its result at the end; a map that is given on is one."""
    height, width = image_size
    if piece.kind is Kind.STEM:
        graph = Graph(piece.inputs, image_size)
        graph.convolve(piece.outputs, piece.kernel, 2, relu=True)
        graph.average()
        return graph
    before = piece.stride // 2 if piece.kind is Kind.DOWN else piece.stride
    graph = frame(piece.inputs, (height // before, width // before))
    if piece.kind is Kind.GIVEN:
        graph.give()
        return graph
    graph.bottleneck(piece.block, first=piece.kind is not Kind.NEXT)
    graph.average()
    return graph


def frame_graph(channels: int, stride: int, image_size: tuple[int, int]) -> Graph:
    """A frame with nothing in it, whose time is no piece's."""
    graph = frame(channels, (image_size[0] // stride, image_size[1] // stride))
    graph.average()
    return graph


def network_graph(structure: Structure, image_size: tuple[int, int]) -> Graph:
    """A backbone, which gives on C2 to C5."""
    stem, *others = structure.blocks
    graph = Graph(stem.inputs, image_size)
    graph.convolve(stem.outputs, stem.kernel, stem.stride, stem.groups, relu=True)
    for index, block in enumerate(others, start=1):
        for number in range(block.depth):
            graph.bottleneck(block, first=not number)
        if index in structure.stage_ends[1:]:
            graph.give()
    return graph
