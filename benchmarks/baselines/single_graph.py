"""The rival of separate engines: the same cascade as one ONNX graph with an ``If``.

The stages of a bundle are put into one model: first body and router inline, the first exit's head
as the branch for easy images, the second exit as the branch for hard ones, which reads images and
features from the scope around it. An ONNX ``If`` takes one condition for the whole batch, so this
graph is for batches of 1; its shapes say so, which also lets a runtime fold them.

``python -m dyninfer.benchmarks.baselines.single_graph`` builds it on command, in a process of its
own: a whole model passes through memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, helper, version_converter

from dyninfer.benchmarks.baselines.child import Message, serve
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import BATCH_AXIS, CascadeRoute, Exit, Manifest, Task
from dyninfer.errors import InputError

THRESHOLD = "threshold"
EASINESS = "easiness"
_EASY = "leaves_at_first_exit"


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
    final = second.head or second.body
    own = {name: bundle.stage_path(name) for name in (*first.stages, *second.stages)}
    stages = _load_stages(files or own, manifest)
    inline = _merge([stages[first.body], stages[first.router]])
    easy = _branch(first.head, [stages[first.head]], manifest.task)
    hard = _branch(final, [stages[name] for name in second.stages], manifest.task)
    nodes = [
        *inline.node,
        helper.make_node("GreaterOrEqual", [EASINESS, THRESHOLD], [_EASY]),
        helper.make_node(
            "If", [_EASY], list(manifest.task.outputs), then_branch=easy, else_branch=hard
        ),
    ]
    graph = helper.make_graph(
        nodes,
        f"{manifest.name} in one graph",
        [*_image_inputs(stages.values(), manifest), _float_tensor(THRESHOLD, [])],
        [*_final_outputs(stages[final], final, manifest.task), _float_tensor(EASINESS, [1])],
        initializer=inline.initializer,
    )
    template = next(iter(stages.values()))
    model = helper.make_model(
        graph, opset_imports=list(template.opset_import), ir_version=template.ir_version
    )
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


def _load_stages(files: Mapping[str, Path], manifest: Manifest) -> dict[str, ModelProto]:
    """The stages by name: one opset for all, batch 1, and a prefix before names of their own.

    What travels between stages keeps its name; the task's outputs, which several stages have, do
    not.
    """
    models = {name: onnx.load(str(file)) for name, file in files.items()}
    opset = max(_opset(model) for model in models.values())
    unified = {}
    for name, model in models.items():
        if _opset(model) != opset:
            model = version_converter.convert_version(model, opset)
        _fix_batch(model)
        ports = {value.name for value in (*model.graph.input, *model.graph.output)}
        _prefix(model.graph, name, keep=ports - set(manifest.task.outputs))
        unified[name] = model
    return unified


def _opset(model: ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if not entry.domain)


def _fix_batch(model: ModelProto) -> None:
    """Write 1 for the batch axis wherever a shape is declared."""
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == BATCH_AXIS:
                axis.dim_value = 1


def _prefix(graph: Any, prefix: str, keep: Iterable[str]) -> None:
    """Put ``prefix/`` before every name of a graph without subgraphs, but for those in ``keep``."""
    kept = {"", *keep}  # "" stands for an optional input that is not given

    def renamed(name: str) -> str:
        return name if name in kept else f"{prefix}/{name}"

    for index, node in enumerate(graph.node):
        node.name = f"{prefix}/{node.name or index}"
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for item in (*graph.initializer, *graph.value_info, *graph.output):
        item.name = renamed(item.name)


def _merge(models: Iterable[ModelProto]) -> Any:
    """Nodes and initialisers of several stages in one graph; equal names connect them."""
    merged = onnx.GraphProto()
    for model in models:
        merged.node.extend(model.graph.node)
        merged.initializer.extend(model.graph.initializer)
    return merged


def _branch(final: str, models: Iterable[ModelProto], task: Task) -> Any:
    """A branch of the ``If``: no inputs, and as outputs the task's of the stage ``final``."""
    merged = _merge(models)
    outputs = [_float_tensor(f"{final}/{name}", None) for name in task.outputs]
    return helper.make_graph(merged.node, final, [], outputs, initializer=merged.initializer)


def _image_inputs(models: Iterable[ModelProto], manifest: Manifest) -> list[Any]:
    found: Mapping[str, Any] = {
        value.name: value
        for model in models
        for value in model.graph.input
        if value.name in manifest.image_inputs
    }
    return list(found.values())


def _final_outputs(final: ModelProto, stage: str, task: Task) -> list[Any]:
    """The outputs of a prefixed stage under the task's own names, with their shapes."""
    values = {value.name: value for value in final.graph.output}
    outputs = []
    for name in task.outputs:
        output = onnx.ValueInfoProto()
        output.CopyFrom(values[f"{stage}/{name}"])
        output.name = name
        outputs.append(output)
    return outputs


def _float_tensor(name: str, shape: list[int] | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


if __name__ == "__main__":
    serve(write_on_command)
