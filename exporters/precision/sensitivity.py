"""Which layers stay in float32 because their quantisation costs the stage's outputs too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from dyninfer.exporters.precision.clipping import Observed
from dyninfer.exporters.precision.deviation import deviations
from dyninfer.exporters.precision.graph import (
    decode_nodes,
    initializers_of,
    is_weighted,
    layers_of,
    macs_by_layer,
)
from dyninfer.exporters.precision.int8 import to_int8
from dyninfer.exporters.precision.ranges import Array, Arrays, open_session
from dyninfer.exporters.precision.settings import Int8Settings

# what may follow a layer in one fused operator
_FOLLOWERS = frozenset({"Sigmoid", "Mul", "Relu", "LeakyRelu", "Clip", "HardSwish", "Tanh"})


@dataclass(frozen=True)
class Choice:
    """What quantisation came to.

    Attributes:
        model: the quantised stage.
        kept: layers that stay in float32.
        deviation: largest over the stage's outputs and samples, of ``model``.
    """

    model: ModelProto
    kept: tuple[str, ...]
    deviation: float


class Trial:
    """A stage in float32 with samples of its inputs, to try quantisations on."""

    def __init__(self, model: ModelProto, samples: Sequence[Arrays]) -> None:
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

    def _run(self, session: object, inputs: Arrays) -> dict[str, Array]:
        outputs = session.run(self._names, dict(inputs))  # type: ignore[attr-defined]  # untyped onnxruntime
        return dict(zip(self._names, outputs, strict=True))


def quantise_within(
    model: ModelProto,
    observed: Mapping[str, Observed],
    samples: Sequence[Arrays],
    settings: Int8Settings,
    tick: Callable[[int, int], None] = lambda _done, _total: None,
) -> Choice:
    """Quantise a stage; keep its most sensitive layers if its outputs deviate too much.

    Where everything quantised stays within ``settings.max_deviation``, that is the answer.
    Otherwise every layer is quantised alone, and those that deviate most alone are kept, the worst
    one, two, four, ..., until the bound holds or ``settings.max_float_share`` of the
    multiply-accumulates would be exceeded; of what was tried, the least deviation then counts.

    Args:
        model: from ``prepare_int8``.
        observed: from ``observe_stage``.
        samples: of the stage's inputs.
        settings: target, method and bounds.
        tick: told how many layers of how many were tried.
    """
    trial = Trial(model, samples)
    full = to_int8(model, observed, settings)
    best = Choice(full, (), trial.deviation(full))
    if best.deviation <= settings.max_deviation or not settings.max_float_share:
        return best
    # one sample: the order is enough, and a large stage has a hundred layers
    ranked = _ranked(model, observed, Trial(model, samples[:1]), settings, tick)
    groups = layer_groups(model)
    for count in affordable_counts(ranked, macs_by_layer(model), settings.max_float_share):
        kept = ranked[:count]
        tried = to_int8(model, observed, settings, _nodes_of(kept, groups))
        deviation = trial.deviation(tried)
        if deviation < best.deviation:
            best = Choice(tried, tuple(kept), deviation)
        if best.deviation <= settings.max_deviation:
            break
    return best


def _ranked(
    model: ModelProto,
    observed: Mapping[str, Observed],
    trial: Trial,
    settings: Int8Settings,
    tick: Callable[[int, int], None],
) -> list[str]:
    """Layers by how much the outputs deviate when they alone are quantised, the worst first."""
    decode = decode_nodes(model)
    groups = {name: group for name, group in layer_groups(model).items() if name not in decode}
    alone: dict[str, float] = {}
    for done, (name, group) in enumerate(groups.items(), 1):
        alone[name] = trial.deviation(to_int8(model, observed, settings, only=group))
        tick(done, len(groups))
    return sorted(alone, key=lambda name: -alone[name])


def affordable_counts(
    ranked: Sequence[str], macs: Mapping[str, int], max_share: float
) -> list[int]:
    """1, 2, 4, ... and last the largest number of leading layers within the share of all work."""
    budget = max_share * sum(macs.values())
    spent = np.cumsum([macs[name] for name in ranked])
    most = int((spent <= budget).sum())
    doubling = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*doubling, most] if most else []


def layer_groups(model: ModelProto) -> dict[str, frozenset[str]]:
    """Layer -> its node and the activation behind it, which quantisation treats as one."""
    initializers = initializers_of(model.graph)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    groups = {}
    for layer in layers_of(model):
        inside = {*layer.output, *initializers}
        group, reached = {layer.name}, [*layer.output]
        while reached:
            for node in readers.get(reached.pop(), []):
                whole = node.op_type in _FOLLOWERS and inside.issuperset(filter(None, node.input))
                if whole and node.name not in group and not is_weighted(node, initializers):
                    group.add(node.name)
                    inside.update(node.output)
                    reached.extend([*node.output, *layer.output])
        groups[layer.name] = frozenset(group)
    return groups


def _nodes_of(layers: Iterable[str], groups: Mapping[str, frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*(groups[name] for name in layers))
