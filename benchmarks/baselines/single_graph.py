"""The rival of separate engines: the same route as one ONNX graph with ``If`` nodes.

What runs for all images is inline; where the route decides, an ``If`` has the rest of each way as
its branches, nested where there are several decisions. Branches read images and features from the
scope around them. An ONNX ``If`` takes one condition for the whole batch, so this graph is for
batches of 1; its shapes say so, which also lets a runtime fold them.

``python -m dyninfer.benchmarks.baselines.single_graph`` builds it on command, in a process of its
own: a whole model passes through memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto, version_converter

from dyninfer.benchmarks.baselines.child import Message, serve
from dyninfer.benchmarks.baselines.setup import BIAS, THRESHOLD
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import BATCH_AXIS, EASINESS, Manifest
from dyninfer.errors import InputError
from dyninfer.exporters.graphs import add_prefix, editable
from dyninfer.runtime.plan import END, Decision, Plan, Segment, Step, plan, stages_of

Scope = dict[str, ir.Value]
"""What stages call a tensor -> the tensor."""


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
    model = _Builder(manifest, route, _load_stages(files or own)).model()
    onnx.checker.check_model(model)
    return model


def write_on_command(command: Message) -> Message:
    """``{"bundle": FOLDER, "output": FILE, "files": {STAGE: FILE}}`` -> an empty answer."""
    bundle = Bundle.read(command["bundle"])
    files = {name: Path(file) for name, file in command["files"].items()}
    Path(command["output"]).write_bytes(build_single_graph(bundle, files).SerializeToString())
    return {}


class _Builder:
    """Puts stages together along a plan."""

    def __init__(self, manifest: Manifest, route: Plan, stages: Mapping[str, ModelProto]) -> None:
        self._manifest = manifest
        self._plan = route
        self._stages = stages
        self._forcing: list[ir.Value] = []  # what decisions read beside their signals
        self._ends: list[Scope] = []  # the results of every way

    def model(self) -> ModelProto:
        """The whole graph."""
        images = {
            name: ir.val(name, ir.DataType.FLOAT, (1, 3, spec.height, spec.width))
            for name, spec in self._manifest.image_inputs.items()
        }
        template = next(iter(self._stages.values()))
        opsets = {entry.domain: entry.version for entry in template.opset_import}
        title = f"{self._manifest.name} in one graph"
        graph = ir.Graph([], [], nodes=[], opset_imports=opsets, name=title)
        scope: Scope = {**images}
        results = self._add_segment(graph, 0, scope)
        for name, value in results.items():
            value.type, value.shape = self._ends[0][name].type, self._shape_of(name)
        if first := self._plan[0].decide:
            results[first.signal] = scope[first.signal]
        for name, value in results.items():
            value.name = name
        graph.inputs.extend([*images.values(), *self._forcing])
        graph.outputs.extend(results.values())
        return ir.to_proto(ir.Model(graph, ir_version=template.ir_version))

    def _shape_of(self, name: str) -> ir.Shape | None:
        """Of a result, on all ways; an axis that differs is left open."""
        shapes = [end[name].shape for end in self._ends]
        if any(shape is None for shape in shapes):
            return None
        axes = [set(sizes) for sizes in zip(*filter(None, shapes), strict=True)]
        return ir.Shape([s.pop() if len(s) == 1 else f"of each way, {name}" for s in axes])

    def _add_segment(self, graph: ir.Graph, index: int, scope: Scope) -> Scope:
        """Add a segment and all that is behind it: its tensors to ``scope``; the results."""
        segment = self._plan[index]
        for step in segment.run:
            self._inline(graph, step, scope)
        if segment.decide is None:
            return self._add_end(graph, segment, scope)
        assert segment.decide.step is not None  # build_single_graph has looked
        self._inline(graph, segment.decide.step, scope)
        conditions = self._conditions(graph, segment.decide, scope[segment.decide.signal])
        *branches, rest = (self._branch(segment, to, scope) for to in segment.decide.outcomes)
        results: Scope = {}
        for place in reversed(range(len(branches))):
            outer = _empty(f"not the first {place}") if place else graph
            results = {n: ir.val(f"{outer.name}/{n}") for n in self._manifest.task.outputs}
            inner = {"then_branch": branches[place], "else_branch": rest}
            outer.append(ir.node("If", [conditions[place]], inner, outputs=[*results.values()]))
            if place:
                outer.outputs.extend(results.values())
            rest = outer
        return results

    def _branch(self, segment: Segment, target: int, scope: Scope) -> ir.Graph:
        """What one outcome leads to, as a graph without inputs."""
        if target != END:
            graph = _empty(f"segment {target}")
            graph.outputs.extend(self._add_segment(graph, target, {**scope}).values())
            return graph
        assert segment.end is not None  # the plan says so
        graph = _empty(f"end of way {segment.end.way}")
        for name, value in self._add_end(graph, segment, {**scope}).items():
            if segment.end.head is None:  # a branch must make its outputs itself
                made = ir.val(f"{graph.name}/{name}", type=value.type, shape=value.shape)
                graph.append(ir.node("Identity", [value], outputs=[made]))
                value = made
            graph.outputs.append(value)
        return graph

    def _add_end(self, graph: ir.Graph, segment: Segment, scope: Scope) -> Scope:
        assert segment.end is not None  # a segment decides, ends, or both
        if segment.end.head:
            self._inline(graph, segment.end.head, scope)
        results = {name: scope[name] for name in self._manifest.task.outputs}
        self._ends.append(results)
        return results

    def _inline(self, graph: ir.Graph, step: Step, scope: Scope) -> None:
        """Move a copy of a stage into a graph."""
        stage = editable(self._stages[step.stage]).graph
        reads = {value: scope[str(value.name)] for value in stage.inputs}
        leaves = {str(value.name): value for value in stage.outputs}
        add_prefix(stage, f"{step.stage}/")
        for value, given in reads.items():
            value.replace_all_uses_with(given)
        nodes, weights = [*stage], [*stage.initializers.values()]
        stage.outputs.clear()
        stage.remove(nodes)
        stage.initializers.clear()
        for weight in weights:
            graph.register_initializer(weight)
        graph.extend(nodes)
        scope |= leaves

    def _conditions(self, graph: ir.Graph, decision: Decision, signal: ir.Value) -> list[ir.Value]:
        """The conditions of all outcomes but the last, which is taken for a NaN."""

        def op(kind: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
            made = ir.val(name)
            graph.append(ir.node(kind, inputs, attributes, outputs=[made]))
            return made

        index, count = decision.point.index, len(decision.outcomes)
        if decision.signal == EASINESS:
            forcing = ir.val(f"{THRESHOLD}{index}", ir.DataType.FLOAT, ())
            self._forcing.append(forcing)
            return [op("GreaterOrEqual", [signal, forcing], f"leaves at exit {index}")]
        forcing = ir.val(BIAS, ir.DataType.FLOAT, (count,))
        self._forcing.append(forcing)
        best = op("ArgMax", [op("Add", [signal, forcing], "biased scores")], "best", axis=1)
        no_number = op("IsNaN", [op("ReduceSum", [signal], "sum of scores")], "no number")
        numbers = op("Not", [no_number], "numbers")
        conditions = []
        for k in range(count - 1):
            place = ir.val(f"number {k}", const_value=ir.tensor(np.array([k], np.int64)))
            graph.register_initializer(place)
            is_best = op("Equal", [best, place], f"best is {k}")
            conditions.append(op("And", [is_best, numbers], f"branch {k}"))
        return conditions


def _empty(name: str) -> ir.Graph:
    return ir.Graph([], [], nodes=[], name=name)


def _load_stages(files: Mapping[str, Path]) -> dict[str, ModelProto]:
    """The stages by name: one opset for all, and batch 1."""
    models = {name: onnx.load(str(file)) for name, file in files.items()}
    opset = max(_opset(model) for model in models.values())
    for name, model in models.items():
        if _opset(model) != opset:
            models[name] = version_converter.convert_version(model, opset)
        graph = models[name].graph
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            for axis in value.type.tensor_type.shape.dim:
                if axis.dim_param == BATCH_AXIS:
                    axis.dim_value = 1
    return models


def _opset(model: ModelProto) -> int:
    return next(int(entry.version) for entry in model.opset_import if not entry.domain)


if __name__ == "__main__":
    serve(write_on_command)
