from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.engines.trt import progress
from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.engines.trt.progress import PhaseTree, make_monitor, run_cancellable


def test_one_phase_goes_from_nothing_to_all() -> None:
    tree = PhaseTree()

    shares = [tree.start("build", None, 4), *(tree.step("build", step) for step in range(4))]

    assert shares == [0, 0.25, 0.5, 0.75, 1]
    assert tree.finish("build") == 1


def test_a_phase_within_another_fills_its_step() -> None:
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.step("build", 0)
    tree.start("graph", "build", 4)

    assert tree.step("graph", 1) == pytest.approx(0.5 + 0.5 * 0.5)
    assert tree.step("graph", 3) == 1
    tree.finish("graph")
    assert tree.step("build", 1) == 1


def test_a_phase_that_begins_anew_does_not_fall_back() -> None:
    tree = PhaseTree()
    tree.start("build", None, 2)
    tree.start("graph", "build", 2)
    reached = tree.step("graph", 0)

    assert tree.start("graph", "build", 2) == reached
    assert tree.finish("build") == 1


def test_phases_of_no_steps_and_unknown_ones_do_no_harm() -> None:
    tree = PhaseTree()

    assert tree.start("build", None, 0) == 0
    assert tree.step("never started", 3) == 0
    assert tree.finish("never started") == 0


events = st.lists(
    st.one_of(
        st.tuples(
            st.just("start"),
            st.sampled_from("abcd"),
            st.none() | st.sampled_from("abcd"),
            st.integers(0, 5),
        ),
        st.tuples(st.just("step"), st.sampled_from("abcd"), st.integers(0, 9)),
        st.tuples(st.just("finish"), st.sampled_from("abcd")),
    )
)


@given(events)
def test_the_share_only_rises_whatever_is_reported(reported: list[tuple[object, ...]]) -> None:
    tree = PhaseTree()
    shares = [getattr(tree, str(name))(*arguments) for name, *arguments in reported]

    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)


def test_a_cancelled_monitor_asks_the_builder_to_stop() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
    reported: list[tuple[float, str]] = []
    cancelled = threading.Event()
    monitor = make_monitor(
        load_library(Flavour.RTX), lambda *report: reported.append(report), cancelled
    )

    monitor.phase_start("build", None, 2)
    assert monitor.step_complete("build", 0) is True
    cancelled.set()
    assert monitor.step_complete("build", 1) is False
    monitor.phase_finish("build")

    assert reported == [(0, "build"), (0.5, "build"), (1, "build")]


def test_what_the_work_returns_is_returned() -> None:
    assert run_cancellable(lambda _: threading.current_thread().name, "at work") == "at work"


def test_what_the_work_raises_is_raised() -> None:
    def work(_: threading.Event) -> None:
        raise ValueError("cannot be built")

    with pytest.raises(ValueError, match="cannot be built"):
        run_cancellable(work, "fails")


class _InterruptedEvent(threading.Event):
    """Is set, and a Ctrl-C arrives before the caller learns of it."""

    def set(self) -> None:
        first = not self.is_set()
        super().set()
        if first:
            raise KeyboardInterrupt


def test_an_interrupt_just_as_the_work_may_begin_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Attempt(progress.Attempt[None]):
        def __init__(self) -> None:
            super().__init__(go=_InterruptedEvent())

    monkeypatch.setattr(progress, "Attempt", Attempt)
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            run_cancellable(lambda cancelled: cancelled.wait(), "interrupted")
        except BaseException as error:
            outcome.append(error)

    waiting = threading.Thread(target=run, daemon=True)
    waiting.start()
    waiting.join(30)
    assert [type(error) for error in outcome] == [KeyboardInterrupt]


def test_an_interrupt_during_the_work_asks_it_to_end_and_is_raised_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began = threading.Event()

    class Ended(threading.Event):
        interrupted = False

        def wait(self, timeout: float | None = None) -> bool:
            if not self.interrupted:
                self.interrupted = began.wait(30)
                raise KeyboardInterrupt
            return super().wait(timeout)

    class Attempt(progress.Attempt[None]):
        def __init__(self) -> None:
            super().__init__(ended=Ended())

    monkeypatch.setattr(progress, "Attempt", Attempt)
    seen: list[bool] = []

    def work(cancelled: threading.Event) -> None:
        began.set()
        seen.append(cancelled.wait(30))

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, "asked to end")
    assert seen == [True]
