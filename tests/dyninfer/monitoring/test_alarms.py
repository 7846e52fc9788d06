from __future__ import annotations

import logging

from dyninfer.monitoring.alarms import Alarm, AlarmBoard, AlarmKind, LimitCheck, deliver


def look(value: float, kind: AlarmKind = "psi") -> LimitCheck:
    """Above 4 is an alarm, at most 3 a recovery."""
    return LimitCheck(Alarm(kind, f"{kind} is {value}", value, 4.0, 10), value > 4, value <= 3)


def test_no_checks_change_nothing() -> None:
    board = AlarmBoard()
    assert board.update([]) == []
    assert (board.active, board.raised) == ((), 0)


def test_an_alarm_is_raised_once_until_it_has_recovered_well() -> None:
    board = AlarmBoard()
    raised = [bool(board.update([look(v)])) for v in (4, 5, 9, 3.5, 5, 3, 3.9, 4.1, 5)]
    assert raised == [False, True, False, False, False, False, False, True, False]
    assert board.raised == 2
    assert [alarm.value for alarm in board.active] == [4.1]


def test_kinds_stand_beside_each_other_the_oldest_first() -> None:
    board = AlarmBoard()
    board.update([look(5, "ks")])
    assert [a.kind for a in board.update([look(6, "nan"), look(7, "ks")])] == ["nan"]
    assert [a.kind for a in board.active] == ["ks", "nan"]
    board.update([look(1, "ks")])
    assert [a.kind for a in board.active] == ["nan"]


def test_alarms_are_logged_and_a_callback_that_raises_does_not_stop_the_next(caplog) -> None:
    got = []

    def callback(alarm: Alarm) -> None:
        got.append(alarm.kind)
        raise RuntimeError("no pager")

    with caplog.at_level(logging.WARNING, logger="dyninfer.monitor"):
        deliver([look(5, "psi").alarm, look(5, "nan").alarm], callback)
        deliver([look(5, "ks").alarm], None)
    assert got == ["psi", "nan"]
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["psi is 5", "nan is 5", "ks is 5"]
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info[1].args for r in errors] == [("no pager",)] * 2
