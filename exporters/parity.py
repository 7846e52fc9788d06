"""What a verification measures, and when it passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer import __version__
from dyninfer.bundle.manifest import EASINESS, Manifest, Stage
from dyninfer.exporters.candidate_rows import in_order_of
from dyninfer.routing.policy import DEFAULT_THRESHOLD, Chosen, DecisionPoint, route
from dyninfer.runtime.arrays import RunArrays
from dyninfer.runtime.plan import Decision, Plan
from dyninfer.runtime.stage_runner import Arrays
from dyninfer.types import AnyArray, Float32Array, Float64Array

AVERAGES = "pooled"
"""The tensor (N, channels) of global averages that a router reads, by its name in bundles."""
_SAME_BOX = 1.0  # pixels


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may be from its source.

    Boxes, easiness, class scores and logits have absolute bounds; a chooser's scores, whose unit is
    the model's own, and features have one relative to their largest value, and the averages that a
    router reads one relative to each channel's own, since each counts in it. (A softmax moves by at
    most half of what its logits move.) Where a bound is missed, an error is still no fault of the
    export if the source's own rounding is as large: up to ``rounding_factor`` times the
    difference between the source in float32 and in float64 (of a file in float16, between float16
    and float32) is accepted then. (A logit's rounding
    error becomes pixels through anchors of hundreds of pixels.) Of the proposals of a two-stage
    detector, and of the boxes that it ends in, a share of ``proposals_apart`` in an image may be
    the source's alone: two that overlap by all but the bound suppress each other or do not.
    """

    boxes_px: float = 1e-3
    easiness: float = 1e-5
    class_scores: float = 1e-4
    logits: float = 2e-4
    choice_scores_relative: float = 1e-5
    features_relative: float = 1e-4
    rounding_factor: float = 5.0
    proposals_apart: float = 0.02

    def bound(self, tensor: str, largest: Float64Array) -> Float64Array:
        """Largest errors that pass for a tensor of this name and largest values, of any shape."""
        bounds = {
            "boxes_xyxy": self.boxes_px,
            "easiness": self.easiness,
            "class_scores": self.class_scores,
            "logits": self.logits,
            "choice_scores": self.choice_scores_relative * largest,
        }
        return np.asarray(bounds.get(tensor, self.features_relative * largest), np.float64)


@dataclass(frozen=True)
class Check:
    """One tensor of a stage, or at the end of a way or at a decision, over all samples.

    ``max_rel`` is the largest error divided by the largest value of the source's tensor, of
    averages by that of the same channel. ``rounding`` is the source's own rounding error,
    where it had to be measured.
    """

    where: str
    tensor: str
    max_abs: float
    max_rel: float
    rounding: float | None
    passed: bool


@dataclass(frozen=True)
class Flips:
    """Decisions of a route: how many fall on the other side.

    At a router they are (threshold, image) pairs, at a chooser images.
    """

    decisions: int
    flips: int

    @property
    def share(self) -> float:
        """Share of decisions that differ from the source's."""
        return self.flips / self.decisions if self.decisions else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"decisions": self.decisions, "flips": self.flips, "flip_share": self.share}


@dataclass(frozen=True)
class Parity:
    """The outcome of a verification.

    ``decisions`` are those of each router or chooser by its stage; ``not_compared`` are the stages
    that the source model does not have.
    """

    checks: tuple[Check, ...]
    decisions: Mapping[str, Flips]
    photos: int
    random_tensors: int
    backend: str
    device: str
    tolerance: Tolerance
    not_compared: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every tensor is within its tolerance."""
        return all(check.passed for check in self.checks)

    @property
    def flips(self) -> Flips:
        """All decisions together."""
        every = self.decisions.values()
        return Flips(sum(each.decisions for each in every), sum(each.flips for each in every))

    def to_dict(self, manifest: Manifest) -> dict[str, Any]:
        """What ``parity.json`` holds."""
        return {
            "written_by": f"dyninfer {__version__}",
            "passed": self.passed,
            "source_sha256": manifest.source.sha256,
            "stages_sha256": {name: stage.sha256 for name, stage in manifest.stages.items()},
            "backend": self.backend,
            "device": self.device,
            "photos": self.photos,
            "random_tensors": self.random_tensors,
            "tolerance": asdict(self.tolerance),
            "not_compared": list(self.not_compared),
            "checks": [asdict(check) for check in self.checks],
            **self.flips.to_dict(),
            "by_decider": {name: flips.to_dict() for name, flips in self.decisions.items()},
        }


def as_read(manifest: Manifest, tensors: Arrays) -> dict[str, AnyArray]:
    """What a source reads, in float32, in the types in which a build's stages read it."""
    stages = manifest.stages.values()
    specs = {spec.name: spec for stage in stages for spec in stage.inputs}
    images = {name for name, spec in manifest.image_tensors.items() if spec.dtype == "uint8"}
    return {
        name: manifest.image_inputs[name].pixels(array)
        if name in images
        else specs[name].taken(array)
        for name, array in tensors.items()
    }


def as_meant(manifest: Manifest, stage: str, made: Arrays) -> dict[str, AnyArray]:
    """What a build's stage makes, as the numbers that it stands for."""
    return {spec.name: spec.meant(made[spec.name]) for spec in manifest.stages[stage].outputs}


class Errors:
    """Largest error and largest value of every tensor of a stage, way or decision.

    Of averages they are those of every channel, over images: the largest channel of a backbone may
    be thousands of times the smallest.
    """

    def __init__(self) -> None:
        self._largest: dict[tuple[str, str], tuple[Float64Array, Float64Array]] = {}

    def add(
        self, where: str, tensor: str, found: npt.NDArray[Any], source: npt.NDArray[Any]
    ) -> None:
        """Compare two arrays; a NaN, and another shape, is an infinite error."""
        axes = 0 if tensor == AVERAGES and source.ndim == 2 else None
        error = np.full(source.shape, np.inf)
        if found.shape == source.shape:
            error = np.abs(found.astype(np.float64) - source.astype(np.float64))
        old_error, old_value = self._largest.get((where, tensor), (0.0, 0.0))
        value = np.where(np.isnan(source), 0, np.abs(source))
        self._largest[where, tensor] = (
            np.maximum(old_error, np.where(np.isnan(error), np.inf, error).max(axes)),
            np.maximum(old_value, value.max(axes)),
        )

    def add_all(self, where: str, found: Arrays, source: Arrays, spare: float = 0.0) -> None:
        """Compare all tensors that were made at one place, candidates in whatever order.

        ``spare`` is the share of candidates that may be chosen otherwise.
        """
        found = in_order_of(source, found, _SAME_BOX, Tolerance.class_scores, spare)
        for tensor, array in source.items():
            self.add(where, tensor, found[tensor], array)

    def checks(self, tolerance: Tolerance, rounding: Errors | None = None) -> tuple[Check, ...]:
        """Every place with its verdict; ``rounding`` holds the source's own rounding errors."""
        found = []
        for (where, tensor), (error, value) in self._largest.items():
            own = None if rounding is None else rounding._largest[where, tensor][0]
            bound = tolerance.bound(tensor, value)
            if own is not None:
                bound = np.maximum(bound, tolerance.rounding_factor * own)
            relative = float((error / np.where(value, value, 1)).max())
            noise = None if own is None else float(own.max())
            passed = bool((error <= bound).all())
            found.append(Check(where, tensor, float(error.max()), relative, noise, passed))
        return tuple(found)


def count_flips(expected: Float32Array, found: Float32Array) -> Flips:
    """Decisions on easiness (N,) that differ, at the default threshold and between all values."""
    if not len(expected):
        return Flips(0, 0)
    ordered = np.unique(expected)
    thresholds = [DEFAULT_THRESHOLD, *((ordered[1:] + ordered[:-1]) / 2)]
    flips = sum(int((route(expected, t) != route(found, t)).sum()) for t in thresholds)
    return Flips(len(thresholds) * len(expected), flips)


class Recording:
    """Runs stages and keeps their inputs and outputs, of the last run of each."""

    def __init__(self, stages: Mapping[str, Stage], run_stage: RunArrays) -> None:
        self._stages = stages
        self._run_stage = run_stage
        self.reads: dict[str, Arrays] = {}
        self.makes: dict[str, Arrays] = {}

    def run(self, stage: str, tensors: Arrays) -> Arrays:
        """The stage's outputs; ``tensors`` hold its inputs among others."""
        self.reads[stage] = {spec.name: tensors[spec.name] for spec in self._stages[stage].inputs}
        self.makes[stage] = self._run_stage(stage, self.reads[stage])
        return self.makes[stage]


class SignalPairs:
    """What the deciders of a route said of images, in two forms of the model."""

    def __init__(self, segments: Plan) -> None:
        self._pairs: list[tuple[Decision, list[Float32Array], list[Float32Array]]]
        self._pairs = [(s.decide, [], []) for s in segments if s.decide]

    def add(
        self,
        expected: Sequence[Float32Array | None],
        found: Sequence[Float32Array | None],
    ) -> None:
        """Note the signals of a batch, one for each decision; None where nothing makes it."""
        for (_, ones, others), one, other in zip(self._pairs, expected, found, strict=True):
            if one is not None and other is not None:
                ones.append(one)
                others.append(other)

    def flips(self) -> dict[str, Flips]:
        """Decisions that differ, by the stage that decides."""
        return {
            decision.step.stage: _compare(decision.point, np.concatenate(e), np.concatenate(f))
            for decision, e, f in self._pairs
            if decision.step and e
        }


def _compare(point: DecisionPoint, expected: Float32Array, found: Float32Array) -> Flips:
    if point.signal == EASINESS:
        return count_flips(expected, found)
    chosen = Chosen()
    differ = chosen.decide(expected, point) != chosen.decide(found, point)
    return Flips(len(differ), int(differ.sum()))
