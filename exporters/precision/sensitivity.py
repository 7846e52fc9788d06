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
from dyninfer.exporters.precision.graph import layer_groups
from dyninfer.exporters.precision.int8 import to_int8
from dyninfer.exporters.precision.layer_errors import each_alone, own_errors
from dyninfer.exporters.precision.ranges import Observed, StageInputs, open_session
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from dyninfer.types import AnyArray, Float64Array, Int64Array

CANDIDATES = 100  # the surest of a picture: what lies below never becomes a detection
SHORTLIST = 24
"""So many layers are tried alone."""
WORTH_KEEPING = 1 / 16
"""Layers stay in float32 only where the outputs then deviate less by this share at least, or no
more than they may. Dy-YOLOv7's first stage would deviate 5 % less and take a fifth more time, for
what flows in and out of such layers is converted; a small detector's deviates 8 % less, and loses
a point of average precision less.
"""
_SMALLEST_SIDE = 1e-3  # pixels; keeps an empty box from dividing by zero


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

    ``deviation`` is the largest over the stage's outputs; 0 where it was not looked at.
    """

    model: ModelProto
    kept: tuple[str, ...] = ()
    deviation: float = 0.0

    def within(self, settings: Int8Settings) -> bool:
        """Whether it deviates no more than it may."""
        return self.deviation <= settings.max_deviation


class Trial:
    """A stage in float32 with samples of its inputs, to try quantisations on."""

    def __init__(self, model: ModelProto, samples: Sequence[StageInputs]) -> None:
        self._names = [value.name for value in model.graph.output]
        self.samples = samples
        session = open_session(model)
        self.reference = [self._run(session, inputs) for inputs in samples]

    def deviation(self, model: ModelProto) -> float:
        """Mean over the samples, largest over the outputs."""
        session = open_session(model)
        found = [
            deviations(reference, self._run(session, inputs))
            for reference, inputs in zip(self.reference, self.samples, strict=True)
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
    Otherwise the layers with which they deviate most are kept: as many as
    ``settings.max_float_share`` of the multiply-accumulates has room for, or only the worst ...,
    four, two or one where these suffice. Where no such number does, the largest is kept with which
    the outputs deviate less at all, if that is worth it (:data:`WORTH_KEEPING`). ``tick`` is told
    how many layers of how many were tried.
    """
    trial = Trial(closed(model), samples)
    full = to_int8(model, observed, settings)
    best = Choice(full, (), trial.deviation(full))
    if best.within(settings) or not settings.max_float_share:
        return best
    groups = layer_groups(model.graph)
    budget = settings.max_float_share * sum(map(node_macs, groups))
    ranked = _ranked(model, full, settings.target, trial, budget, tick)
    places = affordable([node_macs(layer) for layer in ranked], budget)
    for count in fewer_and_fewer(len(places)):
        kept = [ranked[place] for place in places[:count]]
        nodes = frozenset[ir.Node]().union(*(groups[layer] for layer in kept))
        tried = to_int8(model, observed, settings, nodes)
        names = tuple(str(layer.name) for layer in kept)
        choice = Choice(tried, names, trial.deviation(tried))
        if choice.within(settings):
            best = choice  # perhaps fewer are enough
        elif best.within(settings):
            break
        elif choice.deviation < best.deviation:
            worth_it = choice.deviation <= (1 - WORTH_KEEPING) * best.deviation
            return choice if worth_it else best
    return best


def _ranked(
    model: ir.Model,
    full: ModelProto,
    target: Int8Target,
    trial: Trial,
    budget: float,
    tick: Callable[[int, int], None],
) -> list[ir.Node]:
    """Layers by how much the outputs deviate when they alone are quantised, the worst first.

    One sample is looked at: the order is enough. Of the layers that the budget has room for, those
    of the largest errors of their own are tried. The worst are among these, though in another
    order: of the embedded model's second stage, with 97 layers, the ten worst were in the first 19.
    """
    errors = own_errors(model, full, target, trial.samples[0])
    able = [layer for layer in errors if node_macs(layer) <= budget]
    tried = sorted(able, key=lambda layer: -errors[layer])[:SHORTLIST]
    alone: dict[ir.Node, float] = {}
    outputs = each_alone(model, full, target, tried, trial.samples[0])
    for layer, found in zip(tried, outputs, strict=True):
        alone[layer] = max(deviations(trial.reference[0], found).values())
        tick(len(alone), len(tried))
    return sorted(alone, key=lambda layer: -alone[layer])


def affordable(macs: Sequence[int], budget: float) -> list[int]:
    """Places of the layers that the budget has room for, each taken in turn if it still has."""
    places, left = [], budget
    for place, work in enumerate(macs):
        if work <= left:
            places.append(place)
            left -= work
    return places


def fewer_and_fewer(most: int) -> list[int]:
    """``most``, and below it the powers of two: ..., 4, 2, 1."""
    return (
        [most, *(1 << power for power in reversed(range((most - 1).bit_length())))] if most else []
    )
