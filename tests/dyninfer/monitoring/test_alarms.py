from __future__ import annotations

import inspect
import logging
from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from scipy import stats

from dyninfer import Threshold
from dyninfer.monitoring import alarms
from dyninfer.monitoring.alarms import (
    AlarmBoard,
    DriftReading,
    EasinessWindow,
    LimitCheck,
    deliver,
    drift_checks,
    read_drift,
)
from dyninfer.monitoring.drift import share_noise, stability_noise
from dyninfer.monitoring.expected import Outlook, Reference
from dyninfer.monitoring.monitor import Monitor
from dyninfer.monitoring.report import Alarm, AlarmKind, MonitorSettings

LOOKS_PER_WINDOW = 10
THRESHOLD = 0.4


def look(value: float, kind: AlarmKind = "psi") -> LimitCheck:
    """Above 4 is an alarm, at most 3 a recovery."""
    return LimitCheck(kind, f"{kind} is {value}", value, 4.0, value > 4, value <= 3)


def test_no_checks_change_nothing() -> None:
    board = AlarmBoard()
    assert board.update([], 10) == []
    assert (board.active, board.raised) == ((), 0)


def test_an_alarm_is_raised_once_until_it_has_recovered_well() -> None:
    board = AlarmBoard()
    raised = [bool(board.update([look(v)], 10)) for v in (4, 5, 9, 3.5, 5, 3, 3.9, 4.1, 5)]
    assert raised == [False, True, False, False, False, False, False, True, False]
    assert board.raised == 2
    assert [alarm.value for alarm in board.active] == [4.1]


def test_kinds_stand_beside_each_other_the_oldest_first() -> None:
    board = AlarmBoard()
    board.update([look(5, "ks")], 10)
    assert [a.kind for a in board.update([look(6, "nan"), look(7, "ks")], 10)] == ["nan"]
    assert [a.kind for a in board.active] == ["ks", "nan"]
    board.update([look(1, "ks")], 10)
    assert [a.kind for a in board.active] == ["nan"]


def test_alarms_are_logged_and_a_callback_that_raises_does_not_stop_the_next(caplog) -> None:
    got = []

    def callback(alarm: Alarm) -> None:
        got.append(alarm.kind)
        raise RuntimeError("no pager")

    with caplog.at_level(logging.WARNING, logger="dyninfer.monitor"):
        board = AlarmBoard()
        deliver(board.update([look(5, "psi"), look(5, "nan")], 10), callback)
        deliver(board.update([look(5, "ks"), look(6, "hard_share")], 10), None)
    assert got == ["psi", "nan"]
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == ["psi is 5", "nan is 5", "ks is 5", "hard_share is 6"]
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [r.exc_info[1].args for r in errors] == [("no pager",)] * 2


def outlook_of(easiness) -> Outlook:
    return Reference("a test", np.atleast_2d(easiness)).under(Threshold(THRESHOLD))


def filled(size: int, easiness, expected: float = np.nan) -> EasinessWindow:
    window = EasinessWindow(size)
    for value in easiness:
        window.add(value, float(not value >= THRESHOLD), expected)
    return window


def kinds_of(window: EasinessWindow, outlook: Outlook, **settings) -> set[str]:
    checks = drift_checks(window, outlook, MonitorSettings(**settings))
    return {check.kind for check in checks if check.exceeded}


def test_an_empty_window_says_nothing() -> None:
    window = EasinessWindow(10)
    assert (len(window), window.full) == (0, False)
    assert window.hard_share is None
    assert window.expected_hard_share is None
    assert read_drift(window, outlook_of([0.5])) is None
    assert drift_checks(window, outlook_of([0.5]), MonitorSettings()) == []


def test_a_full_window_keeps_the_latest() -> None:
    window = filled(3, [0.1, 0.2, 0.5], 0.25)
    assert window.full
    window.add(0.7, 0.0, 0.75)
    assert sorted(window.easiness) == [0.2, 0.5, 0.7]
    assert window.hard_share == pytest.approx(1 / 3)
    assert window.expected_hard_share == pytest.approx((0.25 + 0.25 + 0.75) / 3)
    window.clear()
    assert (len(window), window.full) == (0, False)


def test_images_whose_route_was_not_the_policys_do_not_count_as_hard_or_easy() -> None:
    window = EasinessWindow(4)
    window.add(0.1, np.nan, 0.9)
    window.add(0.2, 1.0, 0.5)
    window.add(0.9, 0.0, 0.5)
    assert (window.hard_share, window.expected_hard_share) == (0.5, 0.5)
    window.add(0.9, 0.0, np.nan)
    assert window.expected_hard_share is None
    window.clear()
    window.add(0.1, np.nan, 0.5)
    assert window.hard_share is None


def test_the_reading_is_that_of_the_two_samples_without_nan() -> None:
    generator = np.random.default_rng(0)
    reference, seen = generator.random(300), generator.beta(2, 1, 120)
    reading = read_drift(filled(200, [*seen, np.nan]), outlook_of([*reference, np.nan]))
    expected = stats.ks_2samp(seen, reference)
    assert reading.ks_statistic == pytest.approx(expected.statistic, abs=0.005)
    assert reading.ks_p_value == pytest.approx(expected.pvalue, rel=0.5)
    assert sum(reading.histogram) == pytest.approx(1)
    assert read_drift(filled(5, [np.nan] * 5), outlook_of(reference)) is None
    assert read_drift(filled(5, seen), outlook_of([np.nan])) is None


def test_no_alarm_before_there_are_images_enough_but_for_nan() -> None:
    outlook = outlook_of(np.linspace(0.5, 1, 500))
    drifted = [0.1] * 99
    assert kinds_of(filled(500, drifted, 0.0), outlook) == set()
    assert kinds_of(filled(500, [*drifted, 0.1], 0.0), outlook) == {"psi", "ks", "hard_share"}
    assert kinds_of(filled(500, [0.7, np.nan]), outlook) == {"nan"}


def test_every_alarm_can_be_left_out() -> None:
    outlook = outlook_of(np.linspace(0.5, 1, 500))
    drifted = filled(500, [0.1] * 100, 0.0)
    every = {"psi", "ks", "hard_share"}
    for kind in every:
        assert kinds_of(drifted, outlook, **{f"{kind}_alarm": None}) == every - {kind}


def test_nan_is_an_alarm_only_beyond_what_the_calibration_had() -> None:
    outlook = outlook_of([np.nan] * 20 + [0.5] * 480)
    assert kinds_of(filled(500, [np.nan] * 20 + [0.5] * 480), outlook) == set()
    assert kinds_of(filled(500, [np.nan] * 50 + [0.5] * 450), outlook) == {"nan"}


def test_the_stability_index_must_be_beyond_what_chance_gives() -> None:
    generator = np.random.default_rng(0)
    few = outlook_of(generator.random(25))
    assert kinds_of(filled(100, generator.random(100)), few, psi_alarm=0.0) == set()


def test_between_its_limit_and_three_quarters_of_it_an_alarm_neither_begins_nor_ends() -> None:
    outlook = outlook_of(np.linspace(0, 1, 5000))
    window = filled(500, np.linspace(0, 1, 500) ** 1.4, 0.0)
    psi = read_drift(window, outlook).psi
    for limit, state in ((0.9 * psi, "begins"), (1.2 * psi, "stays"), (1.4 * psi, "ends")):
        checks = drift_checks(window, outlook, MonitorSettings(psi_alarm=limit))
        check = next(check for check in checks if check.kind == "psi")
        assert (check.exceeded, check.recovered) == (state == "begins", state == "ends")


def test_a_constant_router_is_compared_in_fixed_bins() -> None:
    outlook = outlook_of([0.5] * 200)
    assert kinds_of(filled(200, [0.5] * 200, 0.0), outlook) == set()
    assert "psi" in kinds_of(filled(200, [0.35] * 200, 0.0), outlook)
    # as another engine may round it
    for rounding in (-1e-7, 1e-7, -1e-5, 1e-5):
        assert kinds_of(filled(200, [0.5 + rounding] * 200, 0.0), outlook) == set()
    # within its bin, only the other test sees it
    assert kinds_of(filled(200, [0.55] * 200, 0.0), outlook) == {"ks"}


@pytest.mark.parametrize(("window", "reference"), [(100, 500), (500, 50), (500, 500), (500, 5000)])
def test_two_hundred_streams_that_do_not_drift_raise_few_false_alarms(window, reference) -> None:
    """Four windows long, so at 1 % a window at most 4 % of the streams; 16 of 200 is far off."""
    raised: Counter[str] = Counter()
    settings = MonitorSettings(window=window, min_images=min(100, window))
    for seed in range(200):
        generator = np.random.default_rng(seed)
        outlook = outlook_of(generator.beta(2, 2, reference))
        ring, board = EasinessWindow(window), AlarmBoard()
        for index, value in enumerate(generator.beta(2, 2, 4 * window), 1):
            ring.add(value, float(value < THRESHOLD), outlook.hard_share or 0.0)
            if index % (window // LOOKS_PER_WINDOW) == 0:
                board.update(drift_checks(ring, outlook, settings), index)
        raised.update({alarm.kind for alarm in board.active})
        raised["any"] += board.raised
    assert all(count < 16 for kind, count in raised.items() if kind != "any"), raised
    assert raised["any"] < 32


def checks_of(window: EasinessWindow, outlook: Outlook, **alarms) -> dict[str, LimitCheck]:
    settings = MonitorSettings(**{"psi_alarm": None, "ks_alarm": None} | alarms)
    return {check.kind: check for check in drift_checks(window, outlook, settings)}


@pytest.mark.parametrize(
    ("hard", "state"),
    [
        (75, "begins"),
        (76, "begins"),
        (74, "stays"),
        (69, "stays"),
        (68, "ends"),
        (50, "ends"),
        (25, "begins"),
        (26, "stays"),
        (31, "stays"),
        (32, "ends"),
    ],
)
def test_a_share_is_an_alarm_beyond_its_limit_and_over_at_three_quarters_of_it(hard, state) -> None:
    """Half are expected, and the limit is 0.245 either way: more than chance gives."""
    outlook = outlook_of(np.linspace(0, 1, 100_000))
    window = filled(100, [0.1] * hard + [0.9] * (100 - hard), 0.5)
    check = checks_of(window, outlook, hard_share_alarm=0.245)["hard_share"]
    assert (check.value, check.limit) == pytest.approx((abs(hard / 100 - 0.5), 0.245))
    assert (check.exceeded, check.recovered) == (state == "begins", state == "ends")
    told = f"{hard:.1f}% of the last 100 images reached the last exit, expected 50.0% within 24.5%"
    assert check.message.startswith(told)
    by_chance = checks_of(window, outlook, hard_share_alarm=0.0)["hard_share"]
    assert by_chance.limit == share_noise(0.5, 100, 100_000, 0.001)


@pytest.mark.parametrize(("hard", "state"), [(97, "begins"), (96, "stays"), (88, "ends")])
def test_at_its_limit_a_share_is_no_alarm_yet_and_at_three_quarters_none_any_more(
    hard, state
) -> None:
    outlook = outlook_of(np.linspace(0, 1, 100_000))
    window = filled(128, [0.1] * hard + [0.9] * (128 - hard), 0.5)
    check = checks_of(window, outlook, hard_share_alarm=0.25)["hard_share"]  # 32 and 24 of 128
    assert (check.exceeded, check.recovered) == (state == "begins", state == "ends")


def test_at_their_limits_distributions_are_no_alarm_yet() -> None:
    outlook = outlook_of(np.linspace(0, 1, 500))
    window = filled(500, np.linspace(0, 1, 500) ** 1.6, 0.0)
    reading = read_drift(window, outlook)
    psi = checks_of(window, outlook, psi_alarm=reading.psi)["psi"]
    assert (psi.value, psi.exceeded) == (psi.limit, False)
    ks = checks_of(window, outlook, ks_alarm=reading.ks_p_value)["ks"]
    assert (ks.exceeded, ks.recovered) == (False, True)


@pytest.mark.parametrize(
    ("psi", "p_value", "exceeded", "recovered"),
    [
        (1.0, 0.1, set(), set()),
        (1.001, 0.0999, {"psi", "ks"}, set()),
        (0.75, 1.0, set(), {"psi", "ks"}),
        (0.751, 0.999, set(), set()),
    ],
)
def test_exactly_at_its_limit_no_distribution_is_an_alarm_and_at_the_end_it_is_none(
    monkeypatch, psi, p_value, exceeded, recovered
) -> None:
    reading = DriftReading((1.0,), psi, 1.0, 0.5, p_value)
    monkeypatch.setattr(alarms, "read_drift", lambda *_: reading)
    settings = MonitorSettings(psi_alarm=1.0, ks_alarm=1.0)
    checks = drift_checks(filled(100, [0.5] * 100), outlook_of([0.5]), settings)
    kinds = {check.kind for check in checks if check.kind in ("psi", "ks")}
    assert kinds == {"psi", "ks"}
    assert {check.kind for check in checks if check.exceeded} == exceeded
    assert {check.kind for check in checks if check.recovered} & kinds == recovered


def test_where_nan_is_never_expected_none_is_no_alarm_and_over() -> None:
    for easiness, exceeded in (([0.5] * 100, False), ([0.5] * 99 + [np.nan], True)):
        check = checks_of(filled(100, easiness), outlook_of([0.5] * 10))["nan"]
        assert (check.limit, check.exceeded, check.recovered) == (0, exceeded, not exceeded)


def test_nan_is_over_as_soon_as_it_is_no_more_than_expected() -> None:
    outlook = outlook_of([np.nan] * 20 + [0.5] * 480)
    limit = 0.04 + share_noise(0.04, 500, 500, 0.001)
    last = int(limit * 500)
    for count in (last, last + 1):
        check = checks_of(filled(500, [np.nan] * count + [0.5] * (500 - count)), outlook)["nan"]
        assert (check.value, check.limit) == pytest.approx((count / 500, limit))
        assert (check.exceeded, check.recovered) == (count > last, count <= last)
        assert f"for {count} of the last 500 images, expected a share of 0.0400" in check.message


def test_distributions_differ_at_a_tenth_of_the_level_and_no_more_from_the_level_on() -> None:
    outlook = outlook_of(np.linspace(0, 1, 500))
    window = filled(200, np.linspace(0, 1, 200) ** 0.7, 0.0)
    p_value = read_drift(window, outlook).ks_p_value
    assert 1e-4 < p_value < 0.1
    for level, state in ((10.1, "begins"), (9.9, "stays"), (1.01, "stays"), (0.99, "ends")):
        check = checks_of(window, outlook, ks_alarm=level * p_value)["ks"]
        assert (check.value, check.limit) == pytest.approx((p_value, level * p_value / 10))
        assert (check.exceeded, check.recovered) == (state == "begins", state == "ends")


def test_the_figures_of_alarms_that_the_documentation_gives() -> None:
    usual = MonitorSettings()
    assert (usual.window, usual.min_images, usual.audit_window) == (500, 100, 200)
    assert (usual.psi_alarm, usual.ks_alarm, usual.hard_share_alarm) == (0.2, 0.01, 0.1)
    assert (usual.audit_share, usual.disagreement_alarm) == (0.02, None)
    given = inspect.signature(Monitor.start).parameters
    for field in fields(usual):
        assert given[field.name].default == getattr(usual, field.name), field.name


def test_where_no_limit_is_given_chance_alone_is_one() -> None:
    window, outlook = filled(200, np.linspace(0, 1, 200)), outlook_of(np.linspace(0, 1, 500))
    noise = stability_noise(10, 200, 500, 0.001)
    for given, limit in ((None, noise), (0.0, noise), (noise / 2, noise), (2 * noise, 2 * noise)):
        assert read_drift(window, outlook, given).psi_limit == limit
