"""A single image takes the way that it would take in a batch, by the same steps."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dyninfer import AlwaysEasy, AlwaysHard, Chosen, Forced, LeaveAt, Threshold
from dyninfer.benchmarks.latency.scenarios import ForcedWay
from dyninfer.engines.base import OnHost
from dyninfer.errors import EngineRunError
from dyninfer.routing.policy import Later, Policy
from dyninfer.runtime import single
from dyninfer.runtime.executor import execute
from dyninfer.runtime.plan import Decision, Plan, Segment
from dyninfer.runtime.stage_runner import BatchResult
from dyninfer.spans import READ_BACK
from tests import support
from tests.dyninfer.runtime.test_executor import (
    Failing,
    Functions,
    Tensors,
    cascade,
    numbered,
    select,
)


class Learning(LeaveAt, Later):
    """Told of all signals, a chooser's too, when it is over."""


class Contrary(Threshold):
    """What a class adds to a policy counts, for a single image, too."""

    def decide(self, easiness, point):
        return 1 - super().decide(easiness, point)


class Watched(OnHost):
    """Tells when somebody waits for it."""

    def __init__(self, values: np.ndarray, waited: Callable[[], None]) -> None:
        super().__init__(values)
        self.waited = waited

    def numpy(self) -> np.ndarray:
        self.waited()
        return super().numpy()


class Noting(Functions):
    """Notes what is asked for and waited for, too."""

    def read(self, tensors: Tensors, rows: np.ndarray | None) -> dict[str, OnHost]:
        def wait(name: str) -> None:
            self.steps.append((f"wait {name}", len(tensors[name])))

        self.steps += [(f"read {name}", len(tensor)) for name, tensor in tensors.items()]
        found = super().read(tensors, rows)
        return {name: Watched(read.values, partial(wait, name)) for name, read in found.items()}


def without_routers(plan: Plan) -> Plan:
    return tuple(
        Segment(s.run, s.decide and Decision(**{**vars(s.decide), "step": None}), s.end)
        for s in plan
    )


def looked_at(result: BatchResult) -> dict[str, Any]:
    (group,) = result.groups
    return {
        "way": group.way,
        "rows": list(group.rows),
        "outputs": {name: array.tolist() for name, array in group.outputs.items()},
        "easiness": str(result.easiness),  # NaN is like none
        "signals": [(s.point.index, list(s.rows), str(s.values)) for s in result.signals],
        "spans": [(n, list(rows)) for n, _, rows in result.spans if n != READ_BACK],
        "failures": result.failures,
    }


PLANS = {
    "cascade": cascade(3),
    "static": cascade(1),
    "select": select(4),
}  # the last of its scores is the number
POLICIES = {
    "cascade": [
        *(Threshold(0.5), Threshold([0.3, 0.7]), Contrary(0.5), Learning(1)),
        *(policy(way) for policy in (LeaveAt, ForcedWay) for way in range(3)),
    ],
    "static": [AlwaysHard()],
    "select": [
        *(Chosen(), Learning(2)),
        *(policy(way) for policy in (LeaveAt, ForcedWay) for way in range(4)),
    ],
}
BLIND = [AlwaysEasy(), AlwaysHard()]


@st.composite
def calls(draw: st.DrawFn) -> tuple[Plan, Policy, list[float], int]:
    kind = draw(st.sampled_from(sorted(PLANS)))
    policy = draw(st.sampled_from([*POLICIES[kind], *BLIND]))
    plan = PLANS[kind]
    if policy in BLIND and draw(st.booleans()):
        plan = without_routers(plan)
    return (
        plan,
        policy,
        draw(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)),
        draw(st.integers(0, 5)),
    )


@given(calls())
@example((PLANS["cascade"], Threshold(0.5), [0.5, 0.5, 0.5], 0))
@example((PLANS["cascade"], Threshold(0.5), [0.2, 0.2, 0.2], 3))
@example((PLANS["cascade"], Forced([0, 2, 1]), [0.2, 0.8, 0.2], 1))
@example((PLANS["cascade"], Threshold(0.7), [float(np.float32(0.7)), 0.0, 0.0], 0))
@example((PLANS["cascade"], Threshold(0.5), [float("nan"), 0.8, 0.0], 0))
def test_it_is_as_in_a_batch(call) -> None:
    plan, policy, signals, first = call
    runners = [Noting(numbered([signals])) for _ in range(2)]
    alone = execute(plan, runners[0], 1, policy, first_image=first)
    in_batch = execute(plan, runners[1], 1, policy, first_image=first, degrade=True)
    assert looked_at(alone) == looked_at(in_batch)
    assert runners[0].steps == runners[1].steps


def test_what_nobody_reads_is_waited_for_once_the_outputs_are_asked_for() -> None:
    runner = Noting(numbered([[0.25]]))
    result = execute(cascade(2), runner, 1, AlwaysHard())
    assert result.easiness.tolist() == [0.25]
    steps = [name for name, _ in runner.steps]
    assert steps[-4:] == ["read out", "read easiness", "wait easiness", "wait out"]


def test_the_milliseconds_of_a_step_are_its_own(monkeypatch) -> None:
    """By a clock that goes on by half a millisecond whenever somebody looks at it."""
    clock = itertools.count(7_000_000, 500_000)
    monkeypatch.setattr(single, "time", SimpleNamespace(perf_counter_ns=lambda: next(clock)))
    result = execute(cascade(2), Functions(numbered([[0.1]])), 1, Threshold(0.5))
    names = ["body_0", "router_0", READ_BACK, "body_1", "head_1", READ_BACK]
    assert [(name, ms, list(rows)) for name, ms, rows in result.spans] == [
        (name, 0.5, [0]) for name in names
    ]


def test_a_deadline_is_looked_at_before_every_segment_but_the_first() -> None:
    looks: list[int] = []
    deadline = SimpleNamespace(check=lambda: looks.append(len(runner.steps)))
    runner = Functions(numbered([[0.1, 0.1]]))
    execute(cascade(3), runner, 1, Threshold(0.5), deadline=deadline)
    assert [runner.steps[look][0] for look in looks] == ["body_1", "body_2"]


ON_THE_WAY = ("body_0", "router_0", "body_1", "router_1", "body_2", "head_2")


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stage", [*ON_THE_WAY, "head_0", "head_1"])
@pytest.mark.parametrize("policy", [Threshold(0.5), AlwaysHard()])
def test_a_failure_is_raised_where_it_is_met(policy, stage, late) -> None:
    runner = Failing(numbered([[0.2, 0.2]]), frozenset({stage}), late)
    if stage in ON_THE_WAY:
        with pytest.raises(EngineRunError):
            execute(cascade(3), runner, 1, policy)
        return
    (group,) = execute(cascade(3), runner, 1, policy).groups
    assert (group.way, group.outputs["out"].tolist()) == (2, [2000])


def test_images_are_the_policy_s_own() -> None:
    class Vandal:
        def decide(self, _signal, point):
            seen.append(point.images.tolist())
            point.images[:] = 7
            return np.zeros(1, np.int64)

    seen: list[list[int]] = []
    for first in (0, 0, 5):
        execute(cascade(2), Functions(numbered([[0.5]])), 1, Vandal(), first_image=first)
    assert seen == [[0], [0], [5]]


def test_there_is_no_exit_to_go_back_to() -> None:
    result = execute(cascade(2), Functions(numbered([[0.9]])), 1, Threshold(0.5))
    with support.refuses(EngineRunError, "broken"):
        result.retreat(result.groups[0], [0], EngineRunError("broken"))


@pytest.mark.parametrize("policy", [Threshold(0.5), AlwaysEasy()])
def test_what_it_held_goes_with_its_result(policy) -> None:
    """Without a garbage collector, which would free a device's objects late and in any thread."""

    class Held(np.ndarray):
        """An array of which a weak reference can be had."""

    class Holding(Functions):
        def run(self, stage: str, tensors: Tensors) -> dict[str, np.ndarray]:
            made = {name: a.view(Held) for name, a in super().run(stage, tensors).items()}
            held.extend(map(weakref.ref, made.values()))
            return made

    held: list[weakref.ref[np.ndarray]] = []
    gc.disable()
    try:
        result = execute(cascade(2), Holding(numbered([[0.25]])), 1, policy)
        assert held
        del result
        assert [reference() for reference in held] == [None] * len(held)
    finally:
        gc.enable()


def test_what_a_policy_does_to_its_signal_changes_nothing_that_is_reported() -> None:
    class Vandal:
        def decide(self, signal, _point):
            signal[:] = 7
            return np.zeros(1, np.int64)

    result = execute(cascade(2), Functions(numbered([[0.25]])), 1, Vandal())
    assert result.easiness.tolist() == [0.25]
    assert [signal.values.tolist() for signal in result.signals] == [[0.25]]


def test_what_is_learned_from_signals_changes_nothing_that_is_reported() -> None:
    result = execute(cascade(2), Functions(numbered([[0.25]])), 1, Learning(1))
    result.signals[0].values[:] = 7
    assert result.easiness.tolist() == [0.25]
