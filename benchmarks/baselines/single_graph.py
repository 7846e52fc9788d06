"""The rival of separate engines: the same cascade as one ONNX graph with an ``If``.

The stages of a bundle are put into one model: first body and router inline, the first exit's head
as the branch for easy images, the second exit as the branch for hard ones, which reads images and
features from the scope around it. An ONNX ``If`` takes one condition for the whole batch, so this
graph is for batches of 1; its shapes say so, which also lets a runtime fold them.

``python -m dyninfer.benchmarks.baselines.single_graph`` builds it on command, in a process of its
own: a whole model passes through memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx import ModelProto, version_converter

from dyninfer.benchmarks.baselines.child import Message, serve
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import BATCH_AXIS, CascadeRoute, Exit, Manifest
from dyninfer.errors import InputError
from dyninfer.exporters.graphs import add_prefix

THRESHOLD = "threshold"
EASINESS = "easiness"


def build_single_graph(bundle: Bundle, files: Mapping[str, Path] | None = None) -> ModelProto:
    """One graph that answers as the bundle does under ``Threshold(threshold)``, batch 1 only.

    ``files`` are ONNX files of the stages, by name, to take in place of the bundle's own.

    Its inputs are the bundle's image inputs and ``threshold``, a float32 scalar; its outputs are
    those of the task's heads and ``easiness`` (1,). A threshold of 0 makes every image easy, 2
    every image hard: the easiness lies between.

    Raises:
        InputError: the bundle is not a cascade of two exits, the first with a router and a head.
    """
    manifest = bundle.manifest
    first, second = _two_exits(manifest)
    assert first.router is not None
    assert first.head is not None
    own = {name: bundle.stage_path(name) for name in (*first.stages, *second.stages)}
    stages = _load_stages(files or own)
    template = next(iter(stages.values()))
    tensors = {
        name: ir.val(name, ir.DataType.FLOAT, (1, 3, spec.height, spec.width))
        for name, spec in manifest.image_inputs.items()
    }
    threshold = ir.val(THRESHOLD, ir.DataType.FLOAT, ())
    inputs, name = [*tensors.values(), threshold], f"{manifest.name} in one graph"
    graph = ir.Graph(inputs, [], nodes=[], opset_imports=template.opset_imports, name=name)
    for name in (first.body, first.router):
        _move(name, stages[name].graph, graph, tensors)
    branches = {}
    for branch, names in (("then_branch", [first.head]), ("else_branch", second.stages)):
        branches[branch], inside = ir.Graph([], [], nodes=[], name=branch), dict(tensors)
        for name in names:
            _move(name, stages[name].graph, branches[branch], inside)
        branches[branch].outputs.extend(inside[output] for output in manifest.task.outputs)
    answers = [
        ir.val(name, ir.DataType.FLOAT, inside[name].shape) for name in manifest.task.outputs
    ]
    tape = ir.tape.Tape(graph)
    easy = tape.op("GreaterOrEqual", [tensors[EASINESS], threshold])
    tape.op_multi_out("If", [easy], branches, outputs=answers)
    tensors[EASINESS].name = EASINESS
    graph.outputs.extend([*answers, tensors[EASINESS]])
    model = ir.to_proto(ir.Model(graph, ir_version=template.ir_version))
    onnx.checker.check_model(model)
    return model


def write_single_graph(bundle: Bundle, path: Path, files: Mapping[str, Path] | None = None) -> Path:
    """Build the graph and save it to ``path``, which is returned."""
    path.write_bytes(build_single_graph(bundle, files).SerializeToString())
    return path


def write_on_command(command: Message) -> Message:
    """``{"bundle": FOLDER, "output": FILE, "files": {STAGE: FILE}}`` -> an empty answer."""
    bundle = Bundle.open(command["bundle"], check_files=False)
    files = {name: Path(file) for name, file in command["files"].items()}
    write_single_graph(bundle, Path(command["output"]), files)
    return {}


def _two_exits(manifest: Manifest) -> tuple[Exit, Exit]:
    if not isinstance(manifest.route, CascadeRoute) or len(manifest.exits) != 2:
        raise InputError(
            f"{manifest.name} has {len(manifest.exits)} exits; "
            "a single graph is built from a cascade of 2"
        )
    first, second = manifest.exits
    if first.router is None or first.head is None:
        raise InputError(
            f"the first exit of {manifest.name} lacks a router or a head; "
            "a single graph is built from a body, its router and its head"
        )
    return first, second


def _load_stages(files: Mapping[str, Path]) -> dict[str, ir.Model]:
    """The stages by name: one opset for all, batch 1."""
    models = {name: onnx.load(str(file)) for name, file in files.items()}
    opset = max(_opset(model) for model in models.values())
    unified = {}
    for name, model in models.items():
        if _opset(model) != opset:
            model = version_converter.convert_version(model, opset)
        graph = model.graph
        for value in (*graph.input, *graph.value_info, *graph.output):
            for axis in value.type.tensor_type.shape.dim:
                if axis.dim_param == BATCH_AXIS:
                    axis.dim_value = 1
        unified[name] = ir.from_proto(model)
    return unified


def _opset(model: ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if not entry.domain)


def _move(name: str, stage: ir.Graph, target: ir.Graph, tensors: dict[str, ir.Value]) -> None:
    """Move a stage into another graph, where it reads and leaves ``tensors`` by name."""
    reads = {value: tensors[str(value.name)] for value in stage.inputs}
    leaves = {str(value.name): value for value in stage.outputs}
    add_prefix(stage, f"{name}/")
    for value, given in reads.items():
        value.replace_all_uses_with(given)
    nodes, weights = [*stage], [*stage.initializers.values()]
    stage.outputs.clear()
    stage.remove(nodes)
    stage.initializers.clear()
    for weight in weights:
        target.register_initializer(weight)
    target.extend(nodes)
    tensors |= leaves


if __name__ == "__main__":
    serve(write_on_command)
