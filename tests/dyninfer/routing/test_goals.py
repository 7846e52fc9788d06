from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import PolicyError
from dyninfer.routing.control import Controller
from dyninfer.routing.goals import (
    Accuracy,
    CertifiedRisk,
    Goal,
    HardFraction,
    describe_setting,
)
from dyninfer.routing.latency import FramesPerSecond, LatencyBudget
from dyninfer.routing.macs import MacsBudget
from dyninfer.routing.policy import AlwaysEasy, Policy, Threshold
from dyninfer.routing.thresholds import (
    SEND_ALL,
    SEND_NONE,
    distinct_thresholds,
    exit_shares_at,
    hard_fraction_at,
    mean_ms,
    percentile_ms,
)
from tests import support
from tests.dyninfer.calibrations import EXIT_MS, calibration_of, spread

TOLERANCE = 0.022
relaxed = settings(deadline=None)
EASINESS = spread()
SPREAD = calibration_of(EASINESS)
THREE_MS = ((10.0,), (20.0,), (40.0,))
ALL = (
    HardFraction(0.3),
    LatencyBudget(12.0),
    LatencyBudget(12.0, 95),
    FramesPerSecond(80.0),
    Accuracy(0.5),
    CertifiedRisk(),
    MacsBudget(2.5),
)


def resolved(goal: Goal, calibration=SPREAD) -> float:
    policy = goal.resolve(calibration)
    assert isinstance(policy, Threshold)
    assert isinstance(policy.value, float)
    return policy.value


def test_a_goal_is_no_policy_and_a_policy_no_goal() -> None:
    for goal in ALL:
        assert isinstance(goal, Goal)
        assert not isinstance(goal, Policy)
    assert not isinstance(AlwaysEasy(), Goal)


def test_only_milliseconds_need_times() -> None:
    assert [goal.needs_times for goal in ALL] == [False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (HardFraction(0.3), "30% hard"),
        (HardFraction(0.07, adaptive=True), "7% hard, adaptive"),
        (LatencyBudget(12), "12 ms on average"),
        (LatencyBudget(12.5, 95), "95% of images within 12.5 ms"),
        (LatencyBudget(12, 99.9, adaptive=True), "99.9% of images within 12 ms, adaptive"),
        (FramesPerSecond(30), "30 frames per second"),
        (Accuracy(0.5), "at most 0.5 AP below the last exit"),
        (CertifiedRisk(), "the certified threshold"),
        (MacsBudget(2.5), "2.5 GMACs on average"),
    ],
)
def test_goals_say_what_they_ask_for(goal, text) -> None:
    assert str(goal) == text


@pytest.mark.parametrize(
    ("make", "value"),
    [
        *[(HardFraction, value) for value in (-0.1, 1.1, 30, math.nan, "0.3", None, True)],
        *[(LatencyBudget, value) for value in (0, -1, math.inf, math.nan, "12")],
        *[(lambda q: LatencyBudget(12, q), value) for value in (0, 100, 101, -5, "95")],
        *[(FramesPerSecond, value) for value in (0, -1, math.inf, "30")],
        *[(Accuracy, value) for value in (-0.1, 101, math.nan, None)],
        *[(lambda flag: HardFraction(0.3, flag), value) for value in (1, "yes", None)],
    ],
)
def test_arguments_that_mean_nothing_are_refused(make, value) -> None:
    with support.refuses(PolicyError, f"is {value!r}", "expected"):
        make(value)


# Share of hard images


@relaxed
@given(st.floats(0.001, 0.999))
def test_a_share_is_that_percentile_of_the_easiness(fraction) -> None:
    value = resolved(HardFraction(fraction))
    assert value == np.percentile(EASINESS[0], 100 * fraction)
    assert abs(hard_fraction_at(EASINESS, value) - fraction) <= 1 / EASINESS.shape[1]


def test_none_and_all_are_exactly_that() -> None:
    assert resolved(HardFraction(0)) == SEND_NONE
    assert resolved(HardFraction(1)) == SEND_ALL
    constant = calibration_of(np.full((1, 10), 0.5))
    assert resolved(HardFraction(0), constant) == SEND_NONE
    assert resolved(HardFraction(1), constant) == SEND_ALL


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(("value", "said"), [(0.5, "0.5"), (math.nan, "NaN")])
def test_a_router_that_tells_no_image_from_another_is_refused(value, said, adaptive) -> None:
    constant = calibration_of(np.full((1, 10), value))
    with support.refuses(PolicyError, "30% hard", "same easiness", said, "AlwaysEasy"):
        HardFraction(0.3, adaptive).resolve(constant)


def test_ties_that_stand_in_the_way_are_refused_with_what_can_be_had() -> None:
    tied = np.array([[0.1] * 10 + [0.5] * 60 + [0.9] * 30])
    with support.refuses(PolicyError, "40% hard", "100 calibration images", "10.0% or 70.0%"):
        HardFraction(0.4).resolve(calibration_of(tied))
    assert hard_fraction_at(tied, resolved(HardFraction(0.1), calibration_of(tied))) == 0.1
    assert resolved(HardFraction(0.12), calibration_of(tied)) == 0.5  # near enough


def test_images_without_easiness_are_a_least_share() -> None:
    broken = np.array([[math.nan] * 40 + list(np.linspace(0.1, 0.9, 60))])
    with support.refuses(PolicyError, "10% hard", "NaN", "40.0%"):
        HardFraction(0.1).resolve(calibration_of(broken))
    value = resolved(HardFraction(0.7), calibration_of(broken))
    assert hard_fraction_at(broken, value) == pytest.approx(0.7, abs=0.01)


def test_with_more_routers_the_share_is_that_of_the_last_exit() -> None:
    both = np.vstack([spread(seed=1), spread(seed=2)])
    value = resolved(HardFraction(0.3), calibration_of(both, THREE_MS))
    assert hard_fraction_at(both, value) == pytest.approx(0.3, abs=0.01)


# Milliseconds


def test_the_mean_fits_and_one_more_hard_image_would_not() -> None:
    value = resolved(LatencyBudget(13.0))
    assert mean_ms(exit_shares_at(EASINESS, value), EXIT_MS) <= 13
    assert hard_fraction_at(EASINESS, value) == pytest.approx(0.3)
    above = float(np.nextafter(np.float32(value), np.float32(2)))
    assert mean_ms(exit_shares_at(EASINESS, above), EXIT_MS) > 13


@relaxed
@given(st.floats(10.0, 21.0), st.integers(1, 2), st.none() | st.floats(50, 99.9))
def test_a_budget_takes_the_most_hard_images_that_fit(ms, routers, percentile) -> None:
    easiness = np.vstack([spread(40, seed) for seed in range(routers)]).round(1)
    exit_ms = (EXIT_MS[0], (14.0, 18.0), EXIT_MS[1])[-routers - 1 :] if routers == 2 else EXIT_MS
    calibration = calibration_of(easiness, exit_ms)

    def fits(threshold: float) -> bool:
        shares = exit_shares_at(easiness, threshold)
        if percentile is None:
            return mean_ms(shares, exit_ms) <= ms + 1e-9
        return percentile_ms(shares, exit_ms, percentile) <= ms

    fitting = [value for value in distinct_thresholds(easiness) if fits(value)]
    if not fits(SEND_NONE):
        with support.refuses(PolicyError, "cannot be kept"):
            LatencyBudget(ms, percentile).resolve(calibration)
        return
    value = resolved(LatencyBudget(ms, percentile), calibration)
    assert fits(value)
    most = max(hard_fraction_at(easiness, other) for other in fitting)
    assert hard_fraction_at(easiness, value) == most


def test_a_budget_of_the_hard_path_or_more_sends_all_on() -> None:
    assert resolved(LatencyBudget(20.0)) == SEND_ALL
    assert resolved(LatencyBudget(500)) == SEND_ALL
    assert resolved(LatencyBudget(21.0, 95)) == SEND_ALL


def test_a_budget_of_exactly_the_easy_path_sends_none_on() -> None:
    assert hard_fraction_at(EASINESS, resolved(LatencyBudget(10.0))) == 0


def test_a_budget_below_the_easy_path_is_refused_with_the_figures() -> None:
    with support.refuses(PolicyError, "9 ms on average", "easy it is 10.00 ms", "hard 20.00 ms"):
        LatencyBudget(9.0).resolve(SPREAD)
    with support.refuses(PolicyError, "95% of images within 9 ms", "11.00 ms", "21.00 ms"):
        LatencyBudget(9.0, 95).resolve(SPREAD)


def test_a_tail_budget_below_the_hard_path_keeps_the_tail_easy() -> None:
    value = resolved(LatencyBudget(12.0, 90))
    assert hard_fraction_at(EASINESS, value) == pytest.approx(0.1)
    assert percentile_ms(exit_shares_at(EASINESS, value), EXIT_MS, 90) <= 12


def test_easy_images_that_are_late_use_up_the_tail() -> None:
    slow = ((10.0,) * 96 + (50.0,) * 4, (60.0,))
    value = resolved(LatencyBudget(12.0, 95), calibration_of(EASINESS, slow))
    # 4 % of the easy ones and all hard ones are late: 0.04 (1 - f) + f <= 0.05
    assert hard_fraction_at(EASINESS, value) == pytest.approx(0.01 / 0.96, abs=1 / 200)
    with support.refuses(PolicyError, "97% of images within 12 ms", "50.00 ms"):
        LatencyBudget(12.0, 97).resolve(calibration_of(EASINESS, slow))


def test_a_tail_that_nan_images_alone_exceed_is_refused_with_the_reason() -> None:
    broken = np.array([[math.nan] * 10 + list(np.linspace(0.1, 0.9, 90))])
    with support.refuses(PolicyError, "95% of images within 12 ms", "10.0%", "NaN"):
        LatencyBudget(12.0, 95).resolve(calibration_of(broken))


def test_a_rate_is_a_mean_budget() -> None:
    assert resolved(FramesPerSecond(80)) == resolved(LatencyBudget(12.5))
    with support.refuses(PolicyError, "200 frames per second (5 ms)", "10.00 ms"):
        FramesPerSecond(200).resolve(SPREAD)


# Accuracy


def test_accuracy_takes_the_lowest_threshold_from_which_on_all_rows_are_good() -> None:
    # the second row is good by chance: the next one is not
    calibration = calibration_of(
        EASINESS, precision=(0.30, 0.399, 0.38, 0.395, 0.401), last_exit_ap=0.40
    )
    assert resolved(Accuracy(0.5), calibration) == calibration.rows[3].threshold
    assert resolved(Accuracy(2.0), calibration) == calibration.rows[1].threshold
    assert resolved(Accuracy(10.0), calibration) == calibration.rows[0].threshold


def test_accuracy_that_only_the_last_exit_has_sends_all_on() -> None:
    calibration = calibration_of(EASINESS, precision=(0.1, 0.2, 0.3), last_exit_ap=0.4)
    assert resolved(Accuracy(0.5), calibration) == SEND_ALL


def test_a_drop_of_exactly_the_limit_is_allowed() -> None:
    calibration = calibration_of(EASINESS, precision=(0.395, 0.395), last_exit_ap=0.4)
    assert resolved(Accuracy(0.5), calibration) == calibration.rows[0].threshold


def test_accuracy_without_labels_names_the_command() -> None:
    with support.refuses(PolicyError, "0.5 AP", "dyninfer calibrate", "--annotations"):
        Accuracy(0.5).resolve(SPREAD)


# Certificates


def test_the_certified_threshold_is_the_certificates() -> None:
    assert resolved(CertifiedRisk(), calibration_of(EASINESS, certified=0.62)) == 0.62
    with support.refuses(PolicyError, "dyninfer calibrate", "--risk"):
        CertifiedRisk().resolve(SPREAD)


def test_a_certificate_does_not_change_fixed_goals() -> None:
    certified = calibration_of(EASINESS, certified=0.9)
    for goal in (HardFraction(0.1), LatencyBudget(11.0), LatencyBudget(12.0, 95)):
        assert goal.resolve(certified) == goal.resolve(SPREAD)


# Adaptive


@pytest.mark.parametrize(
    "goal",
    [
        HardFraction(0.3, adaptive=True),
        LatencyBudget(13.0, adaptive=True),
        LatencyBudget(12.0, 95, adaptive=True),
        FramesPerSecond(80, adaptive=True),
    ],
)
def test_adaptive_goals_are_controllers_of_two_exits(goal) -> None:
    controller = goal.resolve(SPREAD)
    assert isinstance(controller, Controller)
    assert isinstance(controller, Policy)
    assert str(goal) in str(controller)
    three = calibration_of(np.vstack([EASINESS, EASINESS]), THREE_MS)
    with support.refuses(PolicyError, "3 exits", "expected 2"):
        goal.resolve(three)


def test_a_controller_starts_at_the_calibrations_threshold() -> None:
    for fixed, adaptive in (
        (HardFraction(0.3), HardFraction(0.3, adaptive=True)),
        (LatencyBudget(13.0), LatencyBudget(13.0, adaptive=True)),
        (LatencyBudget(12.0, 90), LatencyBudget(12.0, 90, adaptive=True)),
    ):
        controller = adaptive.resolve(SPREAD)
        assert isinstance(controller, Controller)
        assert controller.threshold == pytest.approx(resolved(fixed), abs=0.02)


def test_an_adaptive_tail_keeps_some_of_its_late_images_in_reserve() -> None:
    controller = LatencyBudget(12.0, 90, adaptive=True).resolve(SPREAD)
    assert isinstance(controller, Controller)
    assert controller.settings.mean_cost == pytest.approx(0.095)
    # so that even its widest swing stays within the 10 % that may be late
    assert controller.settings.mean_cost * (1 + 2 * TOLERANCE) <= 0.1
    assert controller.settings.limit_ms == 12


def test_a_share_below_the_certified_one_is_held_there() -> None:
    controller = HardFraction(0.1, adaptive=True).resolve(calibration_of(EASINESS, certified=0.62))
    assert isinstance(controller, Controller)
    assert controller.threshold == 0.62


def test_a_share_that_the_certificate_keeps_from_being_held_is_told(caplog) -> None:
    HardFraction(0.1, adaptive=True).resolve(calibration_of(EASINESS, certified=0.62))
    assert "10% hard, adaptive: the certified threshold sends 62.5% of the images on" in caplog.text
    caplog.clear()
    for fraction in (0.7, 0.625):
        goal = HardFraction(fraction, adaptive=True)
        goal.resolve(calibration_of(EASINESS, certified=0.62))
    assert not caplog.text


@pytest.mark.parametrize("threshold", [SEND_ALL, float(np.nextafter(np.float32(0.98), 2))])
def test_a_certificate_that_covers_nothing_is_told_before_every_image_is_hard(threshold) -> None:
    nothing = calibration_of(EASINESS, certified=threshold)
    said = (
        "only covers sending every image to the last",
        "with 200 pictures",
        "AlwaysHard",
        "more pictures",
        "larger risk",
    )
    with support.refuses(PolicyError, "30% hard, adaptive cannot be held", *said):
        HardFraction(0.3, adaptive=True).resolve(nothing)
    with support.refuses(PolicyError, "the certified threshold is not possible", *said):
        CertifiedRisk().resolve(nothing)
    for count, needed in ((20, ", where at least 48 are needed"), (48, "")):
        few = calibration_of(spread(count), certified=threshold)
        with support.refuses(PolicyError, f"with {count} pictures{needed}; use"):
            CertifiedRisk().resolve(few)
    # who asks for all images, or for a budget that has room for all, gets them
    assert isinstance(HardFraction(1.0, adaptive=True).resolve(nothing), Controller)
    assert isinstance(LatencyBudget(21.0, adaptive=True).resolve(nothing), Controller)


def test_an_accuracy_that_takes_every_image_is_told(caplog) -> None:
    calibration = calibration_of(EASINESS, precision=(0.3, 0.3), last_exit_ap=0.4)
    assert resolved(Accuracy(0.5), calibration) == SEND_ALL
    assert "0.5 AP below the last exit: no smaller share of hard images keeps that" in caplog.text


@pytest.mark.parametrize("percentile", [None, 95])
def test_a_budget_that_the_certificate_rules_out_is_refused_with_the_figures(percentile) -> None:
    certified = calibration_of(EASINESS, certified=0.62)
    share = hard_fraction_at(EASINESS, 0.62)
    with support.refuses(
        PolicyError, "12 ms", "certified threshold 0.62", f"{share:.1%}", "--risk"
    ):
        LatencyBudget(12.0, percentile, adaptive=True).resolve(certified)
    assert isinstance(LatencyBudget(17.0, adaptive=True).resolve(certified), Controller)
    assert isinstance(LatencyBudget(16.25, adaptive=True).resolve(certified), Controller)
    assert isinstance(LatencyBudget(21.0, 95, adaptive=True).resolve(certified), Controller)


# What cannot be had


@pytest.mark.parametrize(
    "goal",
    [
        LatencyBudget(5.0),
        LatencyBudget(5.0, 95),
        LatencyBudget(5.0, adaptive=True),
        FramesPerSecond(500),
    ],
)
def test_the_nearest_answers_an_impossible_budget_that_asks_for_it(goal, caplog) -> None:
    with support.refuses(PolicyError, "cannot be kept", "10.00 ms" if "on" in str(goal) else "ms"):
        goal.resolve(SPREAD)
    assert not caplog.text
    assert replace(goal, on_impossible="nearest").resolve(SPREAD) == Threshold(SEND_NONE)
    assert "cannot be kept" in caplog.text
    assert "the nearest setting is used: threshold 0" in caplog.text


def test_the_nearest_of_a_faster_last_exit_is_that_one() -> None:
    odd = calibration_of(EASINESS, ((20.0, 20.0), (10.0, 10.0)))
    assert LatencyBudget(5.0, on_impossible="nearest").resolve(odd) == Threshold(SEND_ALL)


def test_the_nearest_of_a_certified_budget_stays_certified() -> None:
    certified = calibration_of(EASINESS, certified=0.62)
    goal = LatencyBudget(12.0, adaptive=True, on_impossible="nearest")
    assert goal.resolve(certified) == Threshold(0.62)


@pytest.mark.parametrize("chosen", ["skip", None, True])
def test_other_answers_to_the_impossible_are_refused(chosen) -> None:
    for make in (LatencyBudget, FramesPerSecond):
        with support.refuses(PolicyError, f"on_impossible is {chosen!r}", "'raise' or 'nearest'"):
            make(12, on_impossible=chosen)


@pytest.mark.parametrize(
    ("count", "below", "near"),
    [
        (100, 25, True),
        (100, 24, False),
        (20, 4, True),
        (20, 3, False),
        (1000, 250, True),
        (1000, 249, False),
        (40, 10, True),
        (40, 9, False),
    ],
)
def test_ties_may_move_a_share_by_a_twentieth_or_two_images(count, below, near) -> None:
    """The threshold for 30 % lies among images of one easiness, of which none is sent on."""
    tied = np.sort(np.r_[np.linspace(0, 0.4, below), [0.5] * (count // 2), np.ones(count)])
    tied = tied[None, :count]
    if near:
        threshold = resolved(HardFraction(0.3), calibration_of(tied))
        assert hard_fraction_at(tied, threshold) == below / count
        return
    with support.refuses(
        PolicyError, f"too many of the {count} calibration", f"{below / count:.1%} or "
    ):
        HardFraction(0.3).resolve(calibration_of(tied))


def test_a_setting_is_told_with_what_a_goal_came_to() -> None:
    fixed = Threshold(0.25)
    assert describe_setting(fixed, fixed) == str(fixed)
    assert describe_setting(HardFraction(0.3), fixed) == f"30% hard: {fixed}"
    controller = HardFraction(0.3, adaptive=True).resolve(SPREAD)
    told = describe_setting(HardFraction(0.3, adaptive=True), controller)
    assert told == f"30% hard, adaptive: threshold {controller.threshold:.4g} by now"
    assert describe_setting(controller, controller) == str(controller)


@pytest.mark.parametrize(
    ("make", "value", "span"),
    [
        (HardFraction, 0, None),
        (HardFraction, 1, None),
        (HardFraction, 1.001, "from 0 to 1,"),
        (Accuracy, 0, None),
        (Accuracy, 100, None),
        (Accuracy, 100.1, "from 0 to 100,"),
        (LatencyBudget, 0, "above 0,"),
        (LatencyBudget, 1e-9, None),
        (FramesPerSecond, -1, "above 0,"),
        (lambda percentile: LatencyBudget(12, percentile), 99.99, None),
        (lambda percentile: LatencyBudget(12, percentile), 1e-9, None),
        (lambda percentile: LatencyBudget(12, percentile), 0, "from 0 to 100,"),
        (lambda percentile: LatencyBudget(12, percentile), 100, "expected less"),
        (lambda answer: LatencyBudget(12, on_impossible=answer), "nearest", None),
        (lambda answer: FramesPerSecond(12, on_impossible=answer), "raise", None),
        (lambda answer: FramesPerSecond(12, on_impossible=answer), "ignore", "'raise' or"),
    ],
)
def test_numbers_and_words_at_the_ends_of_what_is_allowed(make, value, span) -> None:
    if span is None:
        make(value)
    else:
        with support.refuses(PolicyError, f"is {value!r}", span):
            make(value)


@pytest.mark.parametrize(
    ("easiness", "fraction", "held"),
    [
        ([0.1] * 10 + [0.5] * 60 + [0.9] * 30, 0.149, True),  # a twentieth of the images off
        ([0.1] * 10 + [0.5] * 60 + [0.9] * 30, 0.151, False),
        ([0.1] * 4 + [0.5] * 16, 0.299, True),  # or two of them
        ([0.1] * 4 + [0.5] * 16, 0.301, False),
        ([0.1] * 2 + [0.5] * 8, 0.399, True),
        ([0.1] * 2 + [0.5] * 8, 0.401, False),
    ],
)
@pytest.mark.parametrize("routers", [1, 2])
def test_a_share_may_be_missed_by_a_twentieth_or_by_two_images(
    easiness, fraction, held, routers
) -> None:
    calibration = calibration_of(np.array([easiness] * routers), THREE_MS[: routers + 1])
    if held:
        assert resolved(HardFraction(fraction), calibration) == 0.5
        return
    least = easiness.count(0.1) / len(easiness)
    most = 1 - easiness.count(0.9) / len(easiness)
    with support.refuses(PolicyError) as caught:
        HardFraction(fraction).resolve(calibration)
    assert str(caught.value).endswith(f"expected {least:.1%} or {most:.1%}")


def test_an_easiness_of_nothing_is_a_number() -> None:
    with support.refuses(PolicyError, "the same easiness", "all of them (0)"):
        HardFraction(0.3).resolve(calibration_of(np.zeros((1, 10))))
