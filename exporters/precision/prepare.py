"""Opening a stage's graph for a change of precision, and giving it back as a whole model."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx import ModelProto
from onnx_ir.passes import common
from onnxscript import optimizer

from dyninfer.errors import ExportError
from dyninfer.exporters.graphs import closed, editable

MIN_OPSET = 13  # the first with one scale for every channel


def opened(model: ModelProto) -> ir.Model:
    """A copy whose nodes have unique names, constants are initializers, and types are inferred.

    Weights that the file stores in half precision and casts become plain ones.

    Raises:
        ExportError: the operators are of an opset that is too old, or types cannot be inferred.
    """
    stage = editable(model)
    opset = stage.opset_imports.get("", 0)
    if opset < MIN_OPSET:
        raise ExportError(
            f"a stage has opset {opset}, other precisions need {MIN_OPSET} or later; "
            "export the bundle again"
        )
    for node in stage.graph:
        node.name = node.name or node.op_type
    common.NameFixPass()(stage)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(stage)
    try:
        optimizer.fold_constants(stage, should_fold=lambda node: node.op_type == "Cast")
        common.RemoveUnusedNodesPass()(stage)
        typed = onnx.shape_inference.infer_shapes(closed(stage), strict_mode=True, data_prop=True)
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the types in a stage's graph cannot be inferred: {reason}") from None
    return ir.from_proto(typed)


def finished(converted: ir.Model, source: ModelProto, what: str) -> ModelProto:
    """The converted stage with the source's versions, checked; traces of the tools are dropped.

    Raises:
        ExportError: inputs or outputs changed, or ONNX's checker finds a fault.
    """
    common.RemoveUnusedNodesPass()(converted)
    common.RemoveUnusedOpsetsPass()(converted)
    model = closed(converted)
    model.ir_version = source.ir_version
    model.producer_name, model.producer_version = source.producer_name, source.producer_version
    del model.metadata_props[:]
    found, expected = _border(model), _border(source)
    if found != expected:
        raise ExportError(
            f"a stage in {what} would have other inputs or outputs ({found}) than in float32 "
            f"({expected}); keep it in fp32"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"a stage cannot be written in {what}: {reason}") from None
    return model


def _border(model: ModelProto) -> list[tuple[str, int]]:
    values = (*model.graph.input, *model.graph.output)
    return [(value.name, value.type.tensor_type.elem_type) for value in values]
