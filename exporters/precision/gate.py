"""Whether engines stay within a gate, and which stage takes them beyond it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dyninfer.builds.gate import NEXT_HIGHER, FallBack, Limits, describe_gate, measured
from dyninfer.bundle.manifest import Manifest, Precision, Task
from dyninfer.errors import VerificationError
from dyninfer.exporters.precision.measure import PrecisionReport
from dyninfer.runtime.plan import steps_before

Measure = Callable[[Sequence[str]], PrecisionReport]
"""Measures with these stages changed and the others in float32."""


@dataclass(frozen=True)
class Figure:
    """One measured figure: which limit it is for, where, how large, and in words."""

    name: str
    where: str
    value: float
    words: str

    def over(self, limits: Limits) -> float:
        """How many times the limit it is; 0 without a limit, infinite for any loss above 0."""
        limit = limits.get(self.name, math.inf)
        if self.value <= limit:  # an exact one too, of a limit of 0
            return min(1.0, self.value / limit) if limit else 0.0
        return self.value / limit if limit else math.inf


_DIGITS = 9  # 7 of 100 are 7 %, and 100 * 0.07 is more
_DIFFERING = {
    Task.DETECT: "{} of the detections at {} differ",
    Task.CLASSIFY: "{} of the best classes at {} differ",
    Task.FEATURES: "the maps differ by {} at {}",
}
BROKEN = "broken"
"""The figure of outputs that are not finite, which are beyond every gate."""


def figures(report: PrecisionReport, manifest: Manifest) -> list[Figure]:
    """All that a gate may limit: points lost and results that differ, by way, and flips.

    With an infinite one for every output that is not finite.
    """
    found = []
    score, what = ("ap", "AP") if manifest.task is Task.DETECT else ("top-1", "top-1")
    for end, way in zip(report.exits, manifest.way_names, strict=True):
        if (lost := end.points_lost) is not None:
            words = f"{what} at {way} is {measured(score, lost)} points lower"
            found.append(Figure(score, way, round(lost, _DIGITS), words))
        if (differ := end.disagreement) is not None:
            words = _DIFFERING[manifest.task].format(measured("differ", 100 * differ), way)
            found.append(Figure("differ", way, round(100 * differ, _DIGITS), words))
    for decider, flips in report.flips.items():
        words = f"{measured('flips', 100 * flips.share)} of the decisions of {decider} flip"
        found.append(Figure("flips", decider, round(100 * flips.share, _DIGITS), words))
    for error in report.tensors:
        if not math.isfinite(error.deviation):
            words = f"{error.tensor} of {error.stage} is not finite"
            found.append(Figure(BROKEN, error.stage, math.inf, words))
    return found


def largest(report: PrecisionReport, manifest: Manifest, limits: Limits) -> dict[str, float]:
    """The largest of each figure that is limited; 0 of decisions where nothing decides."""
    found = figures(report, manifest)
    return {n: max((f.value for f in found if f.name == n), default=0.0) for n in limits}


def beyond(report: PrecisionReport, manifest: Manifest, limits: Limits) -> list[Figure]:
    """The figures that are beyond the gate, the worst first."""
    limits = {**limits, BROKEN: 0.0}
    found = [figure for figure in figures(report, manifest) if figure.over(limits) > 1]
    return sorted(found, key=lambda figure: -figure.over(limits))


def refusal(excess: list[Figure], limits: Limits) -> str:
    """The figures beyond a gate, and the gate, in words."""
    said = "; ".join(figure.words for figure in excess)
    return f"beyond the gate {describe_gate(limits)}: {said}" if limits else said


def fall_back(
    report: PrecisionReport,
    manifest: Manifest,
    precision: Mapping[str, Precision],
    limits: Limits,
    measure: Measure,
) -> FallBack:
    """The stage that takes a build beyond its gate, and the next higher precision for it.

    It is the one that alone is furthest beyond, among those of the ways and decisions concerned.

    Args:
        report: with figures beyond the gate.
        manifest: of the bundle.
        precision: of every stage.
        limits: of the gate.
        measure: with some stages alone.

    Raises:
        VerificationError: no stage of those concerned is in a lower precision than float32.
    """
    own = {name: stage.precision for name, stage in manifest.stages.items()}
    lowered = {
        name: f"in {now.value}"
        for name, now in precision.items()
        if now in NEXT_HIGHER and now is not own[name]
    }
    stage, why = blamed(report, manifest, lowered, limits, measure)
    before = precision[stage]
    return FallBack(stage=stage, before=before, after=NEXT_HIGHER[before], why=why)


def blamed(
    report: PrecisionReport,
    manifest: Manifest,
    changed: Mapping[str, str],
    limits: Limits,
    measure: Measure,
) -> tuple[str, str]:
    """The stage that takes a bundle beyond its gate, and what it does.

    ``changed`` are the stages that may be changed back, and how they run, such as "in int8"; the
    other arguments are those of :func:`fall_back`.

    Raises:
        VerificationError: none of them has to do with what is beyond the gate.
    """
    excess = beyond(report, manifest, limits)
    concerned = set().union(*(_stages_behind(figure, manifest) for figure in excess))
    lowered = [name for name in changed if name in concerned]
    if not lowered:
        raise VerificationError(
            f"nothing was built: {refusal(excess, limits)}; no stage is left to have a higher "
            "precision"
        )
    alone = {name: measure([name]) for name in lowered if len(lowered) > 1} or {lowered[0]: report}

    def blame(name: str) -> tuple[float, float]:
        ratios = [f.over({**limits, BROKEN: 0.0}) for f in figures(alone[name], manifest)]
        deviation = [e.deviation for e in alone[name].tensors if e.stage == name]
        return max(ratios, default=0.0), max(deviation, default=0.0)

    stage = max(lowered, key=blame)
    lost = beyond(alone[stage], manifest, limits)
    if len(lowered) == 1:
        return stage, f"{changed[stage]}, {refusal(lost, limits)}"
    if lost:
        return stage, f"alone {changed[stage]}, {refusal(lost, limits)}"
    return stage, f"of stages that only together are {refusal(excess, limits)}, it loses most"


def _stages_behind(figure: Figure, manifest: Manifest) -> set[str]:
    """The stages that a figure depends on."""
    if figure.where in manifest.way_names:
        return set(manifest.stages_to(manifest.way_names.index(figure.where)))
    if figure.name == BROKEN:
        return {figure.where}
    return {figure.where, *(step.stage for step in steps_before(manifest, figure.where))}
