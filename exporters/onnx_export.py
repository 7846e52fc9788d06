"""One PyTorch module -> one ONNX file with a dynamic batch axis, and what it costs."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from dyninfer.bundle.manifest import BATCH_AXIS, Stage, TensorSpec
from dyninfer.bundle.writing import write_stage_file
from dyninfer.errors import ExportError
from dyninfer.exporters.extras import quiet
from dyninfer.exporters.graphs import count_macs
from dyninfer.foreign_errors import reason_of

OPSET = 17  # the newest that TensorRT 8.6 reads
IR_VERSION = 8  # of the same time as opset 17, for older readers
EXAMPLE_BATCH = 2  # 1 would be taken for a constant


def write_stage(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    parameters: int,
    folder: Path,
    file: str,
    notes: Mapping[str, str] | None = None,
    operators: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
) -> tuple[Stage, dict[str, Tensor]]:
    """Export a module to ``folder / file``; ``inputs`` are examples by name.

    ``parameters`` counts the source model's parameters, before anything was folded; ``notes`` are
    kept in the file's metadata; ``operators`` say how PyTorch operators of our own are written.

    Returns:
        The stage's entry in the manifest, and its outputs for the example inputs by name.

    Raises:
        ExportError: PyTorch cannot run or export the module.
        OSError: the file cannot be written.
    """
    outputs = dict(zip(output_names, _run(module, inputs), strict=True))
    model = _to_onnx(module, inputs, output_names, operators)
    onnx.helper.set_model_props(model, dict(notes or {}))
    entry = Stage(
        file=file,
        sha256=write_stage_file(folder, file, model.SerializeToString()),
        inputs=tuple(_spec(name, tensor) for name, tensor in inputs.items()),
        outputs=tuple(_spec(name, tensor) for name, tensor in outputs.items()),
        parameters=parameters,
        macs=count_macs(model),
    )
    return entry, outputs


def _run(module: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    try:
        with torch.inference_mode():
            made = module(*inputs.values())
        return (made,) if isinstance(made, Tensor) else made
    except (RuntimeError, ValueError) as error:  # shapes of a user's topology that do not meet
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in inputs.items())
        reason = reason_of(error)
        raise ExportError(f"a stage cannot run on {shapes}: {reason}") from error


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(name=name, dtype=dtype, shape=(BATCH_AXIS, *tensor.shape[1:]))


def _to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    operators: Mapping[Callable[..., Any], Callable[..., Any]] | None,
) -> ModelProto:
    shapes = ({0: torch.export.Dim(BATCH_AXIS, min=1, max=1024)},) * len(inputs)
    parameters = inspect.signature(module.forward).parameters.values()
    variadic = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    try:
        with quiet("torch.onnx", "onnxscript", "onnx_ir"), _uncollected():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(shapes,) if variadic else shapes,
                input_names=list(inputs),
                output_names=list(output_names),
                custom_translation_table=dict(operators or {}),
                verbose=False,
            )
            assert program is not None
            model = _to_opset(program.model_proto)
    except Exception as error:  # torch.onnx wraps many causes without one public base class
        reason = reason_of(error)
        raise ExportError(f"PyTorch {torch.__version__} cannot export a stage: {reason}") from error
    return _clean(model)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector.

    A trace only builds up, and looking through it for garbage took a sixth of the time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _to_opset(model: ModelProto) -> ModelProto:
    """The model at :data:`OPSET`; PyTorch leaves it at 18 where its own conversion fails.

    The conversion trips over ``noop_with_empty_axes``, which opset 17 does not have and which is
    0, its default, wherever axes are given.
    """
    for node in model.graph.node:
        if node.op_type.startswith("Reduce"):
            kept = [a for a in node.attribute if a.name != "noop_with_empty_axes" or a.i]
            del node.attribute[:]
            node.attribute.extend(kept)
    if all(entry.version == OPSET for entry in model.opset_import if not entry.domain):
        return model
    return onnx.version_converter.convert_version(model, OPSET)


def _clean(model: ModelProto) -> ModelProto:
    """Drop stack traces and other notes, which name paths of the exporting machine."""
    graph = model.graph
    tensors = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for item in (model, graph, *graph.node, *tensors):
        item.doc_string = ""
        del item.metadata_props[:]
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    if versions != {"": OPSET}:
        raise ExportError(
            f"PyTorch {torch.__version__} wrote opsets {versions}, expected {OPSET}, "
            "which TensorRT 8.6 reads; an operator of the stage does not exist in it"
        )
    return model
