"""A stage's ONNX graph, written node by node: a ResNet needs eight operators."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import ModelProto
from torch import nn

from dyninfer.bundle.manifest import BATCH_AXIS
from dyninfer.exporters.drnet.model import Norm
from dyninfer.exporters.drnet.options import Convention
from dyninfer.exporters.drnet.stages import IMAGES, ResolutionStage, scale_and_shift
from dyninfer.exporters.graphs import GraphBuilder, closed
from dyninfer.exporters.onnx_export import IR_VERSION, OPSET

_MODES = {Convention.HALF_PIXEL: "half_pixel", Convention.ASYMMETRIC: "asymmetric"}


def stage_model(stage: ResolutionStage, output: str, *, apart: bool) -> ModelProto:
    """Images -> ``output`` (N, C), with the stage's set of batch norm folded in.

    Folded into the convolutions, or (``apart``) to a product and a sum behind each: convolutions
    are then those of every other resolution, and engines fold the rest when they open the stage.
    """
    height, width = stage.resize.image_size
    images = ir.val(IMAGES, ir.DataType.FLOAT, (BATCH_AXIS, 3, height, width))
    graph = ir.Graph([images], [], nodes=[], opset_imports={"": OPSET}, name="stage")
    logits = _Layers(stage, graph, apart=apart).apply(images)
    logits.name, logits.shape = output, ir.Shape((BATCH_AXIS, stage.model.classes))
    logits.type = ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(logits)
    model = closed(ir.Model(graph, ir_version=IR_VERSION, producer_name="dyninfer"))
    onnx.checker.check_model(model)
    return model


class _Layers:
    """Adds the layers of a stage to a graph."""

    def __init__(self, stage: ResolutionStage, graph: ir.Graph, *, apart: bool) -> None:
        self._stage, self._model, self._apart = stage, stage.model, apart
        self._builder = GraphBuilder(graph, "resnet")

    def apply(self, images: ir.Value) -> ir.Value:
        """Images -> logits."""
        build, model = self._builder.apply, self._model
        x = build("Relu", self._convolve(self._resized(images), model, "conv1", "bn1"))
        x = build("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        for block in model.blocks:
            y, last = x, block.convolutions
            for number in range(1, last + 1):
                y = self._convolve(y, block, f"conv{number}", f"bn{number}")
                y = build("Relu", y) if number < last else y
            if block.downsample is not None:
                x = self._convolve(x, block.downsample, "0", "1")
            x = build("Relu", build("Add", y, x))
        pooled = build("Flatten", build("GlobalAveragePool", x))
        weight, bias = (self._builder.constant(p.numpy()) for p in model.fc.parameters())
        return build("Gemm", pooled, weight, bias, transB=1)

    def _resized(self, images: ir.Value) -> ir.Value:
        resize = self._stage.resize
        if not resize.needed:
            return images
        scales = self._builder.constant(resize.scales)
        return self._builder.apply(
            "Resize",
            images,
            None,
            scales,
            mode="linear",
            coordinate_transformation_mode=_MODES[resize.convention],
        )

    def _convolve(self, x: ir.Value, parent: nn.Module, conv: str, norms: str) -> ir.Value:
        layer: nn.Conv2d = getattr(parent, conv)
        norm: Norm = self._stage.norm(parent, norms)
        scale, shift = scale_and_shift(norm)
        weight = layer.weight
        if not self._apart:
            weight = (weight.double() * scale.reshape(-1, 1, 1, 1)).float()
        inputs = [x, self._builder.constant(weight.numpy())]
        if not self._apart:
            inputs.append(self._builder.constant(shift.float().numpy()))
        strides, pads = list(layer.stride), [layer.kernel_size[0] // 2] * 4
        y = self._builder.apply("Conv", *inputs, strides=strides, pads=pads, group=layer.groups)
        if not self._apart:
            return y
        factor, term = (values.float().reshape(-1, 1, 1).numpy() for values in (scale, shift))
        return self._builder.apply(
            "Add", self._builder.scale(y, factor), self._builder.constant(term)
        )
