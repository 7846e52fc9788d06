"""A manifest's route as data: what runs, where it is decided, where it ends. No engines.

A plan is a tuple of segments. The first runs for all images; where a segment decides, an outcome
leads to another segment or to this segment's own end. Everything that walks a route goes by it
(:mod:`dyninfer.runtime.executor`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dyninfer.bundle.manifest import (
    CHOICE_SCORES,
    EASINESS,
    CascadeRoute,
    Manifest,
    SelectRoute,
    Way,
)
from dyninfer.routing.policy import DecisionPoint

END = -1
"""The outcome that leads to the segment's own end."""


@dataclass(frozen=True)
class Step:
    """A stage, the names of the tensors that it reads, and those of them that are images."""

    stage: str
    reads: frozenset[str]
    images: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """Which of the next segments an image takes.

    Attributes:
        step: makes the signal; None where a router is missing.
        signal: name of its output that decides.
        outcomes: for each outcome the index of the next segment, or :data:`END`.
        keeps: for each outcome the names of the tensors that are still read behind it.
        point: what a policy is told.
    """

    step: Step | None
    signal: str
    outcomes: tuple[int, ...]
    keeps: tuple[frozenset[str], ...]
    point: DecisionPoint


@dataclass(frozen=True)
class Ending:
    """Where a way ends.

    Attributes:
        way: which one.
        head: what still runs, if anything.
        image_input: in whose pixels its boxes are.
        outputs: names of the tensors that it ends in.
    """

    way: int
    head: Step | None
    image_input: str
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """Steps that run for all images that come here, then a decision, an end, or either."""

    run: tuple[Step, ...]
    decide: Decision | None
    end: Ending | None

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the segment, in order."""
        router = self.decide.step if self.decide else None
        head = self.end.head if self.end else None
        return (*self.run, *(step for step in (router, head) if step))


Plan = tuple[Segment, ...]


def plan(manifest: Manifest) -> Plan:
    """The route of a bundle."""
    if isinstance(manifest.route, CascadeRoute):
        return _cascade(manifest, manifest.route)
    if isinstance(manifest.route, SelectRoute):
        return _select(manifest, manifest.route)
    return (_straight(manifest, 0, manifest.route),)


def decision_points(segments: Plan) -> tuple[DecisionPoint, ...]:
    """Where the route decides, in order."""
    return tuple(segment.decide.point for segment in segments if segment.decide)


def _step(manifest: Manifest, stage: str) -> Step:
    names = [spec.name for spec in manifest.stages[stage].inputs]
    images = tuple(name for name in names if name in manifest.image_inputs)
    return Step(stage, frozenset(names), images)


def _ending(manifest: Manifest, index: int, way: Way) -> Ending:
    head = _step(manifest, way.head) if way.head else None
    return Ending(index, head, way.image_input, manifest.task.outputs)


def _straight(manifest: Manifest, index: int, way: Way) -> Segment:
    """A way without decisions."""
    return Segment((_step(manifest, way.body),), None, _ending(manifest, index, way))


def _cascade(manifest: Manifest, route: CascadeRoute) -> Plan:
    last = len(route.exits) - 1
    segments: list[Segment] = []
    needed: frozenset[str] = frozenset()  # behind this exit
    for index in range(last, -1, -1):
        exit_ = route.exits[index]
        segment = _straight(manifest, index, exit_)
        if index < last:
            router = _step(manifest, exit_.router) if exit_.router else None
            later = frozenset(range(index + 1, last + 1))
            signal = EASINESS if router else None
            point = DecisionPoint(index, signal, (frozenset({index}), later), macs=_macs(manifest))
            head = segment.end.head if segment.end else None
            keeps = (head.reads if head else frozenset(manifest.task.outputs), needed)
            decision = Decision(router, EASINESS, (END, index + 1), keeps, point)
            segment = Segment(segment.run, decision, segment.end)
        segments.insert(0, segment)
        needed |= frozenset(name for step in segment.steps for name in step.reads)
    return tuple(segments)


def _select(manifest: Manifest, route: SelectRoute) -> Plan:
    branches = tuple(_straight(manifest, k, branch) for k, branch in enumerate(route.branches))
    reached = tuple(frozenset({k}) for k in range(len(branches)))
    chooser = _step(manifest, route.chooser) if route.chooser else None
    signal = CHOICE_SCORES if chooser else None
    point = DecisionPoint(0, signal, reached, macs=_macs(manifest))
    keeps = tuple(
        frozenset(name for step in branch.steps for name in step.images) for branch in branches
    )
    outcomes = tuple(range(1, len(branches) + 1))
    return (Segment((), Decision(chooser, CHOICE_SCORES, outcomes, keeps, point), None), *branches)


def _macs(manifest: Manifest) -> tuple[int, ...]:
    return tuple(manifest.macs_to(way) for way in range(len(manifest.ways)))


def steps_for(
    manifest: Manifest, wanted: Iterable[str], way: int | None = None
) -> tuple[Step, ...]:
    """The steps without which these tensors are not there, in the order in which they run.

    Args:
        manifest: of the bundle.
        wanted: names of tensors; image inputs need no step.
        way: of which way; None for the last stage of the route that makes each.
    """
    order = tuple(manifest.roles) if way is None else manifest.stages_to(way)
    return _makers(manifest, order, wanted)


def steps_before(manifest: Manifest, stage: str) -> tuple[Step, ...]:
    """The steps that make what a stage reads, in the order in which they run."""
    orders = (manifest.stages_to(way) for way in range(len(manifest.ways)))
    order = next(names for names in orders if stage in names)
    return _makers(manifest, order[: order.index(stage)], _step(manifest, stage).reads)


def _makers(manifest: Manifest, order: Sequence[str], wanted: Iterable[str]) -> tuple[Step, ...]:
    """The steps among some stages that make tensors; of several makers of one, the last."""
    steps: list[Step] = []
    missing = set(wanted) - set(manifest.image_inputs)
    for stage in reversed(order):
        made = {spec.name for spec in manifest.stages[stage].outputs}
        if missing & made:
            step = _step(manifest, stage)
            steps.insert(0, step)
            missing = (missing - made) | (step.reads - set(manifest.image_inputs))
    return tuple(steps)


def alone(manifest: Manifest, way: int) -> Plan:
    """What would run if a way's results alone were wanted: no decisions, no other way's heads.

    A static plan of one segment; its way counts as 0.
    """
    chosen = manifest.ways[way]
    ending = _ending(manifest, 0, chosen)
    reads = ending.head.reads if ending.head else frozenset()
    body = _step(manifest, chosen.body)
    before = steps_for(manifest, body.reads | reads, way)
    others = tuple(step for step in before if step.stage not in (chosen.body, chosen.head))
    return (Segment((*others, body), None, ending),)


def stages_of(segments: Sequence[Segment]) -> tuple[str, ...]:
    """Names of all stages of a plan, in order."""
    return tuple(step.stage for segment in segments for step in segment.steps)


def inputs_of_all(segments: Sequence[Segment]) -> list[str]:
    """The image inputs that every image is prepared for, whatever is decided later."""
    first = segments[0]
    steps = [*first.run, first.decide.step if first.decide else None]
    return sorted({name for step in steps if step is not None for name in step.images})


def gather_place(segment: int, target: int) -> str:
    """Where some images of a segment part from the others, on their way to another or the end."""
    return f"from {segment} to {target}"


def gathered(whole: Plan) -> list[tuple[str, str]]:
    """Every place where a batch may be split, and a tensor that is gathered there."""
    found: list[tuple[str, str]] = []
    for index, segment in enumerate(whole):
        if segment.decide is None:
            continue
        head = segment.end.head if segment.end else None
        for outcome, target in enumerate(segment.decide.outcomes):
            end = head.reads if head else frozenset[str]()
            names = end if target == END else segment.decide.keeps[outcome]
            found += [(gather_place(index, target), name) for name in sorted(names)]
    return found
