"""What a signal's handler raises is told apart from what everybody else does."""

from __future__ import annotations

import functools
import signal

import pytest

from dyninfer.foreign_errors import let_through, reason_of


class OutOfTimeError(OSError):
    """An application's own."""


def handle(*_: object) -> None:
    raise OutOfTimeError("now")


class Handler:
    def __call__(self, *_: object) -> None:
        self.deeper()

    def deeper(self) -> None:
        raise OutOfTimeError("now")


@pytest.fixture(
    params=[
        handle,
        lambda number, frame: handle(number, frame),
        functools.partial(handle, "more"),
        Handler(),
        Handler().__call__,
    ]
)
def handler(request: pytest.FixtureRequest):
    former = signal.signal(signal.SIGALRM, request.param)
    yield request.param
    signal.signal(signal.SIGALRM, former)


def library(depth: int) -> None:
    try:
        library(depth - 1) if depth else signal.raise_signal(signal.SIGALRM)
    except Exception as error:
        raise RuntimeError("something went wrong in here") from (error if depth % 2 else None)


def careful_code(depth: int) -> None:
    try:
        library(depth)
    except RuntimeError as error:
        let_through(error)


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_a_handler_raised_is_found_however_deep(depth) -> None:
    with pytest.raises(OutOfTimeError, match="now"):
        careful_code(depth)


def test_other_errors_are_left_to_who_caught_them(handler) -> None:
    for error in (OSError(2, "no such file"), RuntimeError("bug"), OutOfTimeError("not raised")):
        try:
            raise error
        except Exception as caught:
            let_through(caught)
    try:
        handle()
    except OutOfTimeError as caught:
        if handler is not handle:
            return
        with pytest.raises(OutOfTimeError):  # it cannot be told apart, and is nobody's else
            let_through(caught)


def test_a_number_of_no_enum_is_an_error_like_others() -> None:
    with pytest.raises(ValueError, match="99") as raised:
        signal.Signals(99)
    assert reason_of(raised.value) == "99 is not a valid Signals"
