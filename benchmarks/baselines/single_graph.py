"""The rival of separate engines: the same route as one ONNX graph with ``If`` nodes.

What runs for all images is inline; where the route decides, an ``If`` has the rest of each way as
its branches, nested where there are several decisions. Branches read images and features from the
scope around them. An ONNX ``If`` takes one condition for the whole batch, so this graph is for
batches of 1; its shapes say so, which also lets a runtime fold them.

``python -m dyninfer.benchmarks.baselines.single_graph`` builds it on command, in a process of its
own: a whole model passes through memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper, version_converter

from dyninfer.benchmarks.baselines.child import Message, serve
from dyninfer.benchmarks.baselines.setup import BIAS, THRESHOLD
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import BATCH_AXIS, EASINESS, Manifest
from dyninfer.errors import InputError
from dyninfer.runtime.plan import END, Decision, Plan, Segment, Step, plan, stages_of

Names = Mapping[str, str]
"""A tensor as stages call it -> its name in the graph."""


def build_single_graph(bundle: Bundle, files: Mapping[str, Path] | None = None) -> ModelProto:
    """One graph that answers as the bundle does under its own policy, batch 1 only.

    ``files`` are ONNX files of the stages, by name, to take in place of the bundle's own.

    Its inputs are the bundle's image inputs, and ``threshold_0``, a float32 scalar, and so on for
    every exit but the last, or ``bias``, float32 (branches,), which is added to a chooser's scores.
    A threshold of 0 makes every image leave there, 2 none: the easiness lies between. Its outputs
    are those of the task, and what the first decision goes by: ``easiness`` or ``choice_scores``.

    Raises:
        InputError: an exit of the bundle has no router.
    """
    manifest, route = bundle.manifest, plan(bundle.manifest)
    for segment in route:
        if segment.decide and segment.decide.step is None:
            raise InputError(
                f"exit {segment.decide.point.index} of {manifest.name} lacks a router; a single "
                "graph decides by what the stages say"
            )
    own = {name: bundle.stage_path(name) for name in stages_of(route)}
    stages = _load_stages(files or own)
    model = _Builder(manifest, route, stages).model()
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


class _Builder:
    """Puts stages together along a plan."""

    def __init__(self, manifest: Manifest, route: Plan, stages: Mapping[str, ModelProto]) -> None:
        self._manifest = manifest
        self._plan = route
        self._stages = stages
        self._forcing: list[Any] = []  # what decisions read beside their signals

    def model(self) -> ModelProto:
        """All of it."""
        task, first = self._manifest.task, self._plan[0].decide
        images = _image_inputs(self._stages.values(), self._manifest)
        graph = GraphProto(name=f"{self._manifest.name} in one graph")
        scope = {value.name: value.name for value in images}
        self._add_segment(graph, 0, scope, {name: name for name in task.outputs})
        finals = [self._stages[way.final] for way in self._manifest.ways]
        graph.input.extend([*images, *self._forcing])
        graph.output.extend(_declared(name, finals) for name in task.outputs)
        if first and first.step:
            graph.output.append(_declared(first.signal, [self._stages[first.step.stage]]))
        template = finals[0]
        return helper.make_model(
            graph, opset_imports=list(template.opset_import), ir_version=template.ir_version
        )

    def _add_segment(self, graph: Any, index: int, scope: Names, results: Names) -> None:
        """A segment and all that is behind it; ``results`` are the names of its results."""
        segment, scope = self._plan[index], dict(scope)
        for step in segment.run:
            last = segment.decide is None and segment.end and segment.end.head is None
            scope |= self._inline(graph, step, scope, results if last else {})
        if segment.decide is None:
            assert segment.end is not None  # a segment decides, ends, or both
            if segment.end.head:
                self._inline(graph, segment.end.head, scope, results)
            return
        assert segment.decide.step is not None  # build_single_graph has looked
        told = {} if index else {segment.decide.signal: segment.decide.signal}
        scope |= self._inline(graph, segment.decide.step, scope, told)
        conditions = self._conditions(graph, segment.decide, scope[segment.decide.signal])
        branches = [self._branch(segment, target, scope) for target in segment.decide.outcomes]
        rest = branches.pop()
        for place in reversed(range(len(branches))):
            outer = GraphProto(name=f"not the first {place}") if place else graph
            names = {n: f"{outer.name}/{n}" for n in results} if place else results
            _add_if(outer, conditions[place], names, branches[place], rest)
            if place:
                outer.output.extend(_float_tensor(name, None) for name in names.values())
            rest = outer

    def _branch(self, segment: Segment, target: int, scope: Names) -> Any:
        """What one outcome leads to, as a graph without inputs."""
        task = self._manifest.task
        if target != END:
            graph = GraphProto(name=f"segment {target}")
            results = {name: f"{graph.name}/{name}" for name in task.outputs}
            self._add_segment(graph, target, scope, results)
        else:
            assert segment.end is not None  # the plan says so
            graph = GraphProto(name=f"end of way {segment.end.way}")
            results = {name: f"{graph.name}/{name}" for name in task.outputs}
            if segment.end.head:
                self._inline(graph, segment.end.head, scope, results)
            else:  # the results are there already, but a branch must make its outputs itself
                graph.node.extend(
                    helper.make_node("Identity", [scope[n]], [results[n]]) for n in results
                )
        graph.output.extend(_float_tensor(name, None) for name in results.values())
        return graph

    def _inline(self, graph: Any, step: Step, scope: Names, outputs: Names) -> dict[str, str]:
        """Add a stage; what its outputs are called: as ``outputs`` has it, or after the stage."""
        model, stage = self._stages[step.stage].graph, step.stage
        names = {"": "", **{value.name: scope[value.name] for value in model.input}, **outputs}

        def renamed(name: str) -> str:
            return names.get(name, f"{stage}/{name}")

        for index, node in enumerate(model.node):
            copy = graph.node.add()
            copy.CopyFrom(node)
            copy.name = f"{stage}/{node.name or index}"
            copy.input[:] = [renamed(name) for name in node.input]
            copy.output[:] = [renamed(name) for name in node.output]
        for tensor in model.initializer:
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = renamed(tensor.name)
        return {value.name: renamed(value.name) for value in model.output}

    def _conditions(self, graph: Any, decision: Decision, signal: str) -> list[str]:
        """Names of the conditions of all outcomes but the last, which is taken for a NaN."""
        if decision.signal == EASINESS:
            threshold = f"{THRESHOLD}{decision.point.index}"
            self._forcing.append(_float_tensor(threshold, []))
            leaves = f"leaves at exit {decision.point.index}"
            graph.node.append(helper.make_node("GreaterOrEqual", [signal, threshold], [leaves]))
            return [leaves]
        others = range(len(decision.outcomes) - 1)
        self._forcing.append(_float_tensor(BIAS, [len(decision.outcomes)]))
        graph.initializer.extend(
            numpy_helper.from_array(np.array([k], np.int64), f"number {k}") for k in others
        )
        node = helper.make_node
        graph.node.extend(
            [
                node("Add", [signal, BIAS], ["biased scores"]),
                node("ArgMax", ["biased scores"], ["best"], axis=1),
                node("ReduceSum", [signal], ["sum of scores"]),
                node("IsNaN", ["sum of scores"], ["no number"]),
                node("Not", ["no number"], ["numbers"]),
                *(node("Equal", ["best", f"number {k}"], [f"best is {k}"]) for k in others),
                *(node("And", [f"best is {k}", "numbers"], [f"branch {k}"]) for k in others),
            ]
        )
        return [f"branch {k}" for k in others]


def _add_if(graph: Any, condition: str, results: Names, then: Any, otherwise: Any) -> None:
    graph.node.append(
        helper.make_node(
            "If", [condition], list(results.values()), then_branch=then, else_branch=otherwise
        )
    )


def _load_stages(files: Mapping[str, Path]) -> dict[str, ModelProto]:
    """The stages by name: one opset for all, and batch 1."""
    models = {name: onnx.load(str(file)) for name, file in files.items()}
    opset = max(_opset(model) for model in models.values())
    for name, model in models.items():
        if _opset(model) != opset:
            models[name] = version_converter.convert_version(model, opset)
        _fix_batch(models[name])
    return models


def _opset(model: ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if not entry.domain)


def _fix_batch(model: ModelProto) -> None:
    """Write 1 for the batch axis wherever a shape is declared."""
    graph = model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == BATCH_AXIS:
                axis.dim_value = 1


def _image_inputs(models: Iterable[ModelProto], manifest: Manifest) -> list[Any]:
    found: Mapping[str, Any] = {
        value.name: value
        for model in models
        for value in model.graph.input
        if value.name in manifest.image_inputs
    }
    return list(found.values())


def _declared(name: str, models: Sequence[ModelProto]) -> Any:
    """An output of several stages, with its shape; an axis that differs is left open."""
    values = [value for model in models for value in model.graph.output if value.name == name]
    output = onnx.ValueInfoProto()
    output.CopyFrom(values[0])
    shapes = [[a.dim_value or a.dim_param for a in _dims(value)] for value in values]
    for axis, sizes in zip(_dims(output), zip(*shapes, strict=True), strict=True):
        if len(set(sizes)) > 1:
            axis.dim_param = f"of each way, {name}"
    return output


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _float_tensor(name: str, shape: list[int] | None) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


if __name__ == "__main__":
    serve(write_on_command)
