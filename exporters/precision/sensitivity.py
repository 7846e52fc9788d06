"""How far a stage's outputs are from float32, and which layers stay there if that is too far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.exporters.candidate_rows import in_order_of, is_ranked
from dyninfer.exporters.graphs import closed, node_macs
from dyninfer.exporters.precision.graph import computed_inputs, decode_nodes, is_weighted, layers_of
from dyninfer.exporters.precision.int8 import to_int8
from dyninfer.exporters.precision.ranges import Observed, StageInputs, open_session
from dyninfer.exporters.precision.settings import Int8Settings
from dyninfer.types import AnyArray, Float64Array, Int64Array

CANDIDATES = 100  # the surest of a picture: what lies below never becomes a detection
_SMALLEST_SIDE = 1e-3  # pixels; keeps an empty box from dividing by zero
# what may follow a layer in one fused operator
_FOLLOWERS = frozenset({"Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish", "Tanh"})


def deviations(
    reference: Mapping[str, AnyArray], found: Mapping[str, AnyArray]
) -> dict[str, float]:
    """Deviation of a converted stage's outputs, 0 where equal; infinite where one is not finite.

    - ``boxes_xyxy``: mean of 1 - IoU over the candidates.
    - ``class_scores``: root mean square of the error over the candidates, relative to the scores'.
    - ``easiness``: largest error.
    - anything else, features and logits: root mean square of the error relative to the values'.

    Candidates are the boxes of ``reference`` with the largest class scores of every picture; of a
    stage that puts them in the order of their scores, the nearest boxes are compared.
    """
    top = _candidates(reference["class_scores"]) if "class_scores" in reference else None
    found = matched(reference, found)
    return {
        name: _deviation(name, array.astype(np.float64), found[name].astype(np.float64), top)
        for name, array in reference.items()
    }


def matched(reference: Mapping[str, AnyArray], found: Mapping[str, AnyArray]) -> dict[str, Any]:
    """What was found, with candidates in the order of their scores put beside the nearest ones."""
    if "class_scores" in reference and is_ranked(reference["class_scores"]):
        return in_order_of(reference, found, farthest=np.inf, margin=-np.inf)
    return dict(found)


def _deviation(
    name: str, reference: Float64Array, found: Float64Array, top: Int64Array | None
) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    if name == "easiness":
        return float(np.abs(found - reference).max(initial=0.0))
    if top is not None and name in ("boxes_xyxy", "class_scores"):
        reference, found = (np.take_along_axis(a, top[..., None], 1) for a in (reference, found))
        if name == "boxes_xyxy":
            return float(1 - paired_iou(reference, found).mean())
    scale = float(np.sqrt((reference**2).mean()))
    error = float(np.sqrt(((found - reference) ** 2).mean()))
    return error / scale if scale else error


def _candidates(scores: AnyArray) -> Int64Array:
    """(N, K) rows with the largest class scores of every picture, of scores (N, A, C)."""
    best = scores.max(-1)
    count = min(CANDIDATES, best.shape[1])
    return np.argpartition(-best, count - 1, 1)[:, :count]


def paired_iou(boxes: Float64Array, others: Float64Array) -> Float64Array:
    """Intersection over union of boxes (..., 4) and others (..., 4), pair by pair."""
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clip(_SMALLEST_SIDE).prod(-1) for b in (boxes, others)]
    return np.asarray(shared / (areas[0] + areas[1] - shared).clip(_SMALLEST_SIDE**2)).clip(0, 1)


@dataclass(frozen=True)
class Choice:
    """A converted stage, and the layers that stay in float32.

    ``deviation`` is the largest over the stage's outputs; None where it was not looked at.
    """

    model: ModelProto
    kept: tuple[str, ...] = ()
    deviation: float | None = None


class Trial:
    """A stage in float32 with samples of its inputs, to try quantisations on."""

    def __init__(self, model: ModelProto, samples: Sequence[StageInputs]) -> None:
        self._names = [value.name for value in model.graph.output]
        self._samples = samples
        session = open_session(model)
        self._reference = [self._run(session, inputs) for inputs in samples]

    def deviation(self, model: ModelProto) -> float:
        """Mean over the samples, largest over the outputs."""
        session = open_session(model)
        found = [
            deviations(reference, self._run(session, inputs))
            for reference, inputs in zip(self._reference, self._samples, strict=True)
        ]
        return max(float(np.mean([sample[name] for sample in found])) for name in self._names)

    def _run(self, session: Any, inputs: StageInputs) -> dict[str, AnyArray]:
        return dict(zip(self._names, session.run(self._names, dict(inputs)), strict=True))


def quantise_within(
    model: ir.Model,
    observed: Mapping[str, Observed],
    samples: Sequence[StageInputs],
    settings: Int8Settings,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> Choice:
    """Quantise a stage; keep its most sensitive layers if its outputs deviate too much.

    Where everything quantised stays within ``settings.max_deviation``, that is the answer.
    Otherwise every layer is quantised alone, and those that deviate most alone are kept, the worst
    one, two, four, ..., until the bound holds or ``settings.max_float_share`` of the
    multiply-accumulates would be exceeded; of what was tried, the least deviation then counts.
    ``tick`` is told how many layers of how many were tried.
    """
    trial = Trial(closed(model), samples)
    full = to_int8(model, observed, settings)
    least = trial.deviation(full)
    best = Choice(full, (), least)
    if least <= settings.max_deviation or not settings.max_float_share:
        return best
    # one sample: the order is enough, and a large stage has a hundred layers
    ranked = _ranked(model, observed, Trial(closed(model), samples[:1]), settings, tick)
    groups = layer_groups(model.graph)
    macs = {layer: node_macs(layer) for layer in groups}
    budget = settings.max_float_share * sum(macs.values())
    for count in affordable_counts([macs[layer] for layer in ranked], budget):
        kept = ranked[:count]
        nodes = frozenset[ir.Node]().union(*(groups[layer] for layer in kept))
        tried = to_int8(model, observed, settings, nodes)
        deviation = trial.deviation(tried)
        if deviation < least:
            least = deviation
            best = Choice(tried, tuple(str(layer.name) for layer in kept), deviation)
        if least <= settings.max_deviation:
            break
    return best


def _ranked(
    model: ir.Model,
    observed: Mapping[str, Observed],
    trial: Trial,
    settings: Int8Settings,
    tick: Callable[[int, int], None],
) -> list[ir.Node]:
    """Layers by how much the outputs deviate when they alone are quantised, the worst first."""
    groups = layer_groups(model.graph)
    layers = [layer for layer in groups if layer not in decode_nodes(model.graph)]
    alone: dict[ir.Node, float] = {}
    for done, layer in enumerate(layers, 1):
        alone[layer] = trial.deviation(to_int8(model, observed, settings, only=groups[layer]))
        tick(done, len(layers))
    return sorted(alone, key=lambda layer: -alone[layer])


def affordable_counts(macs: Sequence[int], budget: float) -> list[int]:
    """1, 2, 4, ... and last the largest number of leading layers whose work is in the budget."""
    most = int((np.cumsum(macs) <= budget).sum())
    doubling = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*doubling, most] if most else []


def layer_groups(graph: ir.Graph) -> dict[ir.Node, frozenset[ir.Node]]:
    """Layer -> its node and the activation behind it, which quantisation treats as one."""
    groups = {}
    for layer in layers_of(graph):
        inside = {*layer.outputs}
        group, reached = {layer}, [*layer.outputs]
        while reached:
            for node in reached.pop().consumers():
                whole = node.op_type in _FOLLOWERS and inside.issuperset(computed_inputs(node))
                if whole and node not in group and not is_weighted(node):
                    group.add(node)
                    inside.update(node.outputs)
                    reached.extend([*node.outputs, *layer.outputs])
        groups[layer] = frozenset(group)
    return groups
