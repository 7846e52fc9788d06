from __future__ import annotations

import threading

import pytest

from dyninfer.engines.trt import cancellable
from dyninfer.engines.trt.cancellable import run_cancellable


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
    class Attempt(cancellable.Attempt[None]):
        def __init__(self) -> None:
            super().__init__(go=_InterruptedEvent())

    monkeypatch.setattr(cancellable, "Attempt", Attempt)
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

    class Attempt(cancellable.Attempt[None]):
        def __init__(self) -> None:
            super().__init__(ended=Ended())

    monkeypatch.setattr(cancellable, "Attempt", Attempt)
    seen: list[bool] = []

    def work(cancelled: threading.Event) -> None:
        began.set()
        seen.append(cancelled.wait(30))

    with pytest.raises(KeyboardInterrupt):
        run_cancellable(work, "asked to end")
    assert seen == [True]
