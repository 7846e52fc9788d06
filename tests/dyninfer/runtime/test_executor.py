"""The walker, over a runner of plain NumPy functions: no engines, every step seen."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Chosen, Forced, LeaveAt, PolicyError, Threshold
from dyninfer.engines.base import OnHost
from dyninfer.errors import EngineRunError
from dyninfer.routing.policy import DecisionPoint, Policy
from dyninfer.runtime import executor
from dyninfer.runtime.executor import execute, trace
from dyninfer.runtime.plan import END, Decision, Ending, Plan, Segment, Step
from tests import support

IMAGES = frozenset({"images"})
Tensors = Mapping[str, np.ndarray]


def step(stage: str, *reads: str) -> Step:
    return Step(stage, frozenset(reads), tuple(n for n in reads if n == "images"))


def cascade(exits: int) -> Plan:
    """Every body passes on ``x``; the easiness at exit k is column k of it."""
    segments = []
    for k in range(exits):
        body = step(f"body_{k}", "images") if k == 0 else step(f"body_{k}", "x")
        end = Ending(k, step(f"head_{k}", "x"), "images", ("out",))
        decision = None
        if k < exits - 1:
            ways = (frozenset({k}), frozenset(range(k + 1, exits)))
            decision = Decision(
                step(f"router_{k}", "x"),
                "easiness",
                (END, k + 1),
                (frozenset({"x"}), frozenset({"x"})),
                DecisionPoint(k, "easiness", ways),
            )
        segments.append(Segment((body,), decision, end))
    return tuple(segments)


def select(branches: int) -> Plan:
    ways = tuple(frozenset({k}) for k in range(branches))
    decision = Decision(
        step("chooser", "images"),
        "choice_scores",
        tuple(range(1, branches + 1)),
        (IMAGES,) * branches,
        DecisionPoint(0, "choice_scores", ways),
    )
    bodies = (
        Segment((step(f"body_{k}", "images"),), None, Ending(k, None, "images", ("out",)))
        for k in range(branches)
    )
    return (Segment((), decision, None), *bodies)


class Functions:
    """Runs stages as functions of arrays, and notes every step in order."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.steps: list[tuple[str, int]] = []
        self.waits: list[str] = []

    def feed(self, image_input: str, rows: np.ndarray) -> np.ndarray:
        self.steps.append((f"feed {image_input}", len(rows)))
        return self.images[rows]

    def run(self, stage: str, tensors: Tensors) -> dict[str, np.ndarray]:
        kind, _, index = stage.partition("_")
        x = tensors["x"] if "x" in tensors else tensors["images"]
        self.steps.append((stage, len(x)))
        if kind == "router":
            return {"easiness": x[:, int(index)]}
        if kind == "chooser":
            return {"choice_scores": x}
        return {"x": x, "out": x[:, -1] + 1000 * int(index)}

    def gather(self, place: str, tensors: Tensors, rows: np.ndarray) -> Tensors:
        self.steps += [(f"gather {name} {place}", len(rows)) for name in tensors]
        return {name: tensor[rows] for name, tensor in tensors.items()}

    def read(self, tensors: Tensors, rows: np.ndarray | None) -> dict[str, OnHost]:
        return {n: OnHost(t if rows is None else t[rows]) for n, t in tensors.items()}

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count(self, stage: str) -> int:
        return sum(rows for name, rows in self.steps if name == stage)


def found(plan: Plan, runner: Functions, policy: Policy, **options) -> list[tuple[int, float]]:
    """Way and output of every image, in input order."""
    result = execute(plan, runner, len(runner.images), policy, **options)
    answers = {
        row: (group.way, float(value))
        for group in result.groups
        for row, value in zip(group.rows, group.outputs["out"], strict=True)
    }
    return [answers[row] for row in range(len(runner.images))]


def numbered(columns: list[list[float]]) -> np.ndarray:
    """Signals of every image, and its number in the last column."""
    return np.array([[*row, n] for n, row in enumerate(columns)], np.float32)


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), min_size=1, max_size=12))
def test_images_take_their_ways_and_come_back_in_order(signals) -> None:
    runner = Functions(numbered([list(row) for row in signals]))
    expected = []
    for number, row in enumerate(signals):
        way = next((k for k, easiness in enumerate(row) if easiness >= 0.5), 3)
        expected.append((way, 1000.0 * way + number))
    assert found(cascade(4), runner, Threshold(0.5)) == expected
    for k in range(4):
        assert runner.count(f"body_{k}") == sum(way >= k for way, _ in expected)
        assert runner.count(f"head_{k}") == sum(way == k for way, _ in expected)


@given(
    st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 3), min_size=1, max_size=12),
)
def test_a_chooser_sends_every_image_to_one_branch(scores) -> None:
    runner = Functions(numbered([list(row) for row in scores]))
    plan = select(4)  # the fourth score is the image's number
    chosen = runner.images.argmax(axis=1)
    expected = [(int(k), 1000.0 * k + n) for n, k in enumerate(chosen)]
    assert found(plan, runner, Chosen()) == expected
    assert runner.count("chooser") == len(scores)
    for k in range(4):
        assert runner.count(f"body_{k}") == (chosen == k).sum()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.booleans())
def test_forced_ways_are_taken_whatever_the_signals(ways, by_chooser) -> None:
    runner = Functions(numbered([[0.5, 0.5, 0.5]] * len(ways)))
    plan = select(4) if by_chooser else cascade(4)
    expected = [(way, 1000.0 * way + n) for n, way in enumerate(ways)]
    assert found(plan, runner, Forced(ways)) == expected
    assert runner.count("chooser") == 0  # nothing reads what it would say


def test_later_images_of_a_call_are_known_by_their_place_in_it() -> None:
    runner = Functions(numbered([[0.5], [0.5]]))
    policy = Forced([1, 1, 0, 1])
    assert [way for way, _ in found(cascade(2), runner, policy, first_image=2)] == [0, 1]


def test_an_easiness_that_nobody_reads_is_reported_and_not_waited_for() -> None:
    events: list[str] = []

    class Slow(Functions):
        def run(self, stage: str, tensors: Tensors) -> dict[str, np.ndarray]:
            events.append(stage)
            return super().run(stage, tensors)

        def read(self, tensors: Tensors, rows: np.ndarray | None):
            class Reading(OnHost):
                def numpy(self) -> np.ndarray:
                    events.append("wait")
                    return super().numpy()

            return {name: Reading(r.numpy()) for name, r in super().read(tensors, rows).items()}

    for policy in (AlwaysHard(), LeaveAt(1), Forced([1, 1])):
        events.clear()
        runner = Slow(numbered([[0.25], [0.75]]))
        result = execute(cascade(2), runner, 2, policy)
        assert result.easiness.tolist() == [0.25, 0.75]
        assert events.index("wait") > events.index("head_1")
    events.clear()
    execute(cascade(2), Slow(numbered([[0.25], [0.75]])), 2, Threshold(0.9))
    assert events.index("wait") < events.index("body_1")


def test_a_trace_gives_every_way_with_each_stage_once() -> None:
    runner = Functions(numbered([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]))
    traced = trace(cascade(3), runner, 3, keep={"body_1", "router_1"})
    assert [way["out"].tolist() for way in traced.ways] == [
        [0, 1, 2],
        [1000, 1001, 1002],
        [2000, 2001, 2002],
    ]
    np.testing.assert_array_equal(np.stack(traced.signals), runner.images[:, :2].T)
    assert set(traced.stages) == {"body_1", "router_1"}
    np.testing.assert_array_equal(traced.stages["router_1"]["easiness"], runner.images[:, 1])
    stages = [name for name, _ in runner.steps if "gather" not in name]
    assert len(stages) == len(set(stages)) == 9  # the feed, three bodies and heads, two routers
    assert not any("gather" in name for name, _ in runner.steps)


def test_a_trace_of_a_select_route_runs_every_branch_for_every_image() -> None:
    runner = Functions(numbered([[2], [0]]))
    traced = trace(select(2), runner, 2)
    assert [way["out"].tolist() for way in traced.ways] == [[0, 1], [1000, 1001]]
    assert traced.signals[0].tolist() == [[2, 0], [0, 1]]
    assert runner.count("feed images") == 2


def test_a_head_started_early_serves_the_images_that_leave() -> None:
    images = numbered([[0.9], [0.1], [0.8]])
    plain, early = Functions(images), Functions(images)
    expected = found(cascade(2), plain, Threshold(0.5))
    assert found(cascade(2), early, Threshold(0.5), speculative_head=True) == expected
    assert (plain.count("head_0"), early.count("head_0")) == (2, 3)
    blind = Functions(images)
    assert [w for w, _ in found(cascade(2), blind, AlwaysEasy(), speculative_head=True)] == [0] * 3
    assert blind.count("head_0") == 3


def test_only_the_first_head_is_started_early_and_only_where_somebody_waits() -> None:
    runner = Functions(numbered([[0.1, 0.9], [0.1, 0.1], [0.9, 0.1]]))
    ways = [way for way, _ in found(cascade(3), runner, Threshold(0.5), speculative_head=True)]
    assert ways == [1, 2, 0]
    assert (runner.count("head_0"), runner.count("head_1")) == (3, 1)

    class Own:
        def decide(self, _signal, point):
            return point.images % 2

    unrouted = Functions(numbered([[0.5]] * 4))
    (first, last) = cascade(2)
    decision = Decision(**{**vars(first.decide), "step": None})
    plan = (Segment(first.run, decision, first.end), last)
    assert [w for w, _ in found(plan, unrouted, Own(), speculative_head=True)] == [0, 1, 0, 1]
    assert unrouted.count("head_0") == 2
    headless = tuple(
        Segment(s.run, s.decide, Ending(k, None, "images", ("out",)))
        for k, s in enumerate(cascade(2))
    )
    plain = Functions(numbered([[0.1], [0.9]]))
    expected = [(1, 1000.0), (0, 1.0)]
    assert found(headless, plain, Threshold(0.5), speculative_head=True) == expected


def test_a_head_of_some_images_alone_runs_beside_the_stages_that_follow() -> None:
    class Noting(Functions):
        inside = False
        beside: tuple[str, ...] = ()

        @contextmanager
        def aside(self):
            self.inside = True
            yield
            self.inside = False

        def run(self, stage: str, tensors: Tensors) -> dict[str, np.ndarray]:
            if self.inside:
                self.beside += (stage,)
            return super().run(stage, tensors)

    mixed, easy = numbered([[0.9], [0.1]]), numbered([[0.9], [0.8]])
    first, last = cascade(2)
    reads_images = Segment(
        first.run, first.decide, Ending(0, step("head_0", "images"), "", ("out",))
    )
    for plan, images, options, beside in (
        (cascade(2), mixed, {}, ("head_0",)),
        (cascade(2), easy, {}, ()),  # nothing follows
        (cascade(2), mixed, {"speculative_head": True}, ()),  # it has run
        ((reads_images, last), mixed, {}, ()),  # which the next stage may read, too
    ):
        runner = Noting(images)
        found(plan, runner, Threshold(0.5), **options)
        assert runner.beside == beside


def test_steps_take_the_milliseconds_that_the_clock_says(monkeypatch) -> None:
    """By a clock that goes on by half a millisecond whenever somebody looks at it."""
    clock = itertools.count(7_000_000, 500_000)
    monkeypatch.setattr(executor, "time", SimpleNamespace(perf_counter_ns=lambda: next(clock)))
    result = execute(cascade(2), Functions(numbered([[0.9], [0.1]])), 2, Threshold(0.5))
    assert {(name, ms) for name, ms, _ in result.spans} == {
        (name, 0.5) for name in ("body_0", "router_0", "head_0", "body_1", "head_1")
    } | {("read-back", 0.5), ("gather", 0.5)}


def test_no_policy_changes_what_is_unknown_to_others() -> None:
    class Vandal:
        def decide(self, signal, _point):
            with suppress(ValueError):
                signal[:] = 7
            return np.zeros(len(signal), np.int64)

    first, last = cascade(2)
    plan = (Segment(first.run, Decision(**{**vars(first.decide), "step": None}), first.end), last)
    for _ in range(2):
        result = execute(plan, Functions(numbered([[0.25], [0.5]])), 2, Vandal())
        assert np.isnan(result.easiness).all()


def test_images_may_come_whole_and_are_then_gathered_where_they_are() -> None:
    class Whole(Functions):
        def feed(self, image_input: str, rows: np.ndarray) -> np.ndarray:
            super().feed(image_input, rows)
            return self.images

    runner = Whole(numbered([[2], [0], [0]]))
    plan = select(2)
    late = tuple(
        segment
        if segment.decide is None
        else Segment((), Decision(**{**vars(segment.decide), "keeps": (frozenset(),) * 2}), None)
        for segment in plan
    )
    assert [way for way, _ in found(late, runner, Chosen())] == [0, 1, 1]
    assert runner.count("gather images fed") == 3


@pytest.mark.parametrize(
    "answer",
    [
        lambda count: np.full(count, 2),
        lambda count: np.full(count, 3),
        lambda count: np.full(count, -1),
        lambda count: np.zeros(count + 1, np.int64),
        lambda count: 0 * count,
        lambda count: np.full(count, 0.5),
        lambda count: np.zeros(count),
    ],
)
def test_an_answer_that_is_no_outcome_for_each_image_is_refused(answer) -> None:
    class Odd:
        def decide(self, signal, point):
            return answer(len(signal)) if point.index == 0 else None

        def __str__(self) -> str:
            return "an odd policy"

    for count in (1, 3):
        runner = Functions(numbered([[0.5]] * count))
        told = {1: "for 1 image, expected", 3: "for 3 images, expected"}[count]
        with support.refuses(PolicyError, "odd policy", told, "0 to 1"):
            execute(cascade(2), runner, count, Odd())


def test_a_policy_of_the_user_s_own_needs_only_to_decide(tmp_path: Path) -> None:
    class Alternate:
        def decide(self, _signal, point):
            return point.images % 2

    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=2) as detector:
        inputs = {"images": support.coded_images([(0.9, 0, n) for n in range(5)])}
        ways = [found.exit_index for found in detector.infer(inputs, policy=Alternate())]
        assert ways == [0, 1, 0, 1, 0]
        detector.policy = Alternate()
        assert [found.exit_index for found in detector.infer(inputs)] == ways


def test_what_a_policy_does_to_its_signal_changes_nothing_that_is_reported() -> None:
    class Vandal:
        def decide(self, signal, _point):
            signal[:] = 7
            return np.zeros(len(signal), np.int64)

    result = execute(cascade(2), Functions(numbered([[0.25], [0.5]])), 2, Vandal())
    assert result.easiness.tolist() == [0.25, 0.5]


class Failing(Functions):
    """Some stages fail: when they run, or, as on a device, when their outputs are waited for.

    Outputs live in one buffer for each stage, which its next run writes over.
    """

    def __init__(self, images: np.ndarray, broken: frozenset[str], late: bool) -> None:
        super().__init__(images)
        self.broken = broken
        self.late = late
        self.buffers: dict[tuple[str, str], np.ndarray] = {}
        self.cursed: set[int] = set()

    def run(self, stage: str, tensors: Tensors) -> dict[str, np.ndarray]:
        fails = stage in self.broken
        if fails and (not self.late or stage.startswith("body")):
            raise EngineRunError(f"{stage} is out of memory")
        made = {}
        for name, values in super().run(stage, tensors).items():
            buffer = self.buffers.setdefault((stage, name), np.empty_like(self.images))
            made[name] = buffer.reshape(-1)[: values.size].reshape(values.shape)
            made[name][...] = values
            if fails:
                self.cursed.add(id(made[name]))
        self.kept = [*getattr(self, "kept", []), made]  # so that no id is used again
        return made

    def read(self, tensors: Tensors, rows: np.ndarray | None):
        class Lost(OnHost):
            def numpy(self) -> np.ndarray:
                raise EngineRunError("lost on the way to the host")

        return {
            name: Lost(read.values) if id(tensors[name]) in self.cursed else read
            for name, read in super().read(tensors, rows).items()
        }


def way_of(easiness: np.ndarray, broken: frozenset[str]) -> tuple[int | None, bool]:
    """The last exit that works for an image, if any does, and whether something has failed."""
    reached = next((k for k, value in enumerate(easiness) if value >= 0.5), len(easiness))
    failed = False
    for k in range(reached + 1):
        if f"body_{k}" in broken:
            reached, failed = k - 1, True
            break
        if k < len(easiness) and f"router_{k}" in broken:
            reached, failed = k, True
            break
    way = next((k for k in range(reached, -1, -1) if f"head_{k}" not in broken), None)
    return way, failed or way != reached


STAGES = [f"{kind}_{k}" for k in range(3) for kind in ("body", "head", "router")]


@given(
    st.lists(st.tuples(*[st.sampled_from([0.2, 0.8])] * 2), min_size=1, max_size=6),
    st.frozensets(st.sampled_from(STAGES), max_size=3),
    st.booleans(),
    st.booleans(),
)
@example([(0.2, 0.2), (0.2, 0.8)], frozenset({"head_2"}), True, False)  # the other has arrived
# outputs that never arrive are found out when they are to be kept
@example([(0.2, 0.2), (0.2, 0.8)], frozenset({"head_1", "body_2"}), True, False)
@example([(0.8, 0.2), (0.2, 0.8), (0.2, 0.2)], frozenset({"head_1", "body_2"}), True, True)
def test_images_leave_by_the_last_exit_that_works(signals, broken, late, speculative) -> None:
    runner = Failing(numbered([list(row) for row in signals]), broken, late)
    known = [way_of(row[:2], broken) for row in runner.images]
    options = {"speculative_head": speculative, "degrade": True}
    if any(way is None for way, _ in known):
        with pytest.raises(EngineRunError):
            execute(cascade(3), runner, len(signals), Threshold(0.5), **options)
        return
    expected = [(way, 1000.0 * way + n) for n, (way, _) in enumerate(known)]
    assert found(cascade(3), runner, Threshold(0.5), **options) == expected
    result = execute(cascade(3), runner, len(signals), Threshold(0.5), **options)
    rows = {row for failure in result.failures for row in failure.rows}
    assert rows == {n for n, (_, failed) in enumerate(known) if failed}


@given(st.sampled_from(STAGES), st.booleans())
def test_without_leave_to_degrade_a_failure_is_raised(stage, late) -> None:
    runner = Failing(numbered([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8]]), frozenset({stage}), late)
    if stage == "router_2":  # there is none
        assert found(cascade(3), runner, Threshold(0.5))
        return
    with pytest.raises(EngineRunError):
        execute(cascade(3), runner, 3, Threshold(0.5))


@pytest.mark.parametrize("stage", ["body_1", "head_1", "router_1", "body_2"])
@pytest.mark.parametrize("late", [False, True])
def test_a_trace_in_which_anything_fails_is_none(stage, late) -> None:
    runner = Failing(numbered([[0.2, 0.2], [0.8, 0.2]]), frozenset({stage}), late)
    with pytest.raises(EngineRunError):
        trace(cascade(3), runner, 2)


@pytest.mark.parametrize(("policy", "way"), [(AlwaysEasy(), 0), (AlwaysHard(), 1)])
def test_a_signal_that_nobody_reads_takes_no_answer_with_it(policy, way) -> None:
    runner = Failing(numbered([[0.2], [0.8]]), frozenset({"router_0"}), late=True)
    with pytest.raises(EngineRunError, match="on the way"):
        execute(cascade(2), runner, 2, policy)
    assert found(cascade(2), runner, policy, degrade=True) == [
        (way, 1000 * way + n) for n in (0, 1)
    ]
    result = execute(cascade(2), runner, 2, policy, degrade=True)
    assert [list(failure.rows) for failure in result.failures] == [[0, 1]]
    assert np.isnan(result.easiness).all()


def test_a_branch_that_fails_has_no_exit_to_go_back_to() -> None:
    runner = Failing(numbered([[5, 0, 0], [0, 5, 0]]), frozenset({"body_1"}), False)
    with pytest.raises(EngineRunError, match="body_1"):
        execute(select(4), runner, 2, Chosen(), degrade=True)
    runner = Failing(numbered([[5, 0, 0], [0, 5, 0]]), frozenset({"chooser"}), False)
    with pytest.raises(EngineRunError, match="chooser"):
        execute(select(4), runner, 2, Chosen(), degrade=True)


@pytest.mark.parametrize("degrade", [False, True])
def test_what_a_batch_held_goes_with_its_result(degrade) -> None:
    """Without a garbage collector, which would free a device's objects late and in any thread."""
    gc.disable()
    try:
        runner = Functions(numbered([[0.25], [0.75], [0.5]]))
        result = execute(cascade(2), runner, 3, Threshold(0.5), degrade=degrade)
        held = [weakref.ref(result), *(weakref.ref(g.origin.crowd.rows) for g in result.groups)]
        del result
        assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()
