from __future__ import annotations

import numpy as np
import pytest

from dyninfer.bundle.calibration import Calibration
from dyninfer.errors import PolicyError
from dyninfer.routing.cost_bias import CostBias
from dyninfer.routing.goals import Accuracy, Goal, IncompleteCalibrationError
from dyninfer.routing.latency import FramesPerSecond, LatencyBudget
from dyninfer.routing.macs import MacsBudget
from dyninfer.routing.policy import AlwaysHard, Chosen, DecisionPoint, Policy, Threshold
from tests import support
from tests.dyninfer.calibrations import calibration_of, choosing, spread

MACS = (2_000_000_000, 1_000_000_000)  # the dearer branch first
MS = ((20.0, 30.0), (10.0, 14.0))
SCORES = np.stack([np.linspace(-0.95, 1.0, 40), np.zeros(40)], 1).astype(np.float32)
"""Half of the images want the dearer branch, each by another margin."""
CHOICE = choosing(SCORES, MACS, MS, precision=(0.5, 0.4))


def shares(policy: Policy, scores: np.ndarray = SCORES) -> list[float]:
    point = DecisionPoint(
        0, "choice_scores", (frozenset({0}), frozenset({1})), np.arange(len(scores)), MACS
    )
    ways = policy.decide(scores, point)
    return (np.bincount(ways, minlength=2) / len(ways)).tolist()


def test_the_least_bias_that_keeps_the_budget() -> None:
    policy = MacsBudget(gmacs=1.25).resolve(CHOICE)
    assert isinstance(policy, CostBias)
    assert shares(policy) == [0.25, 0.75]  # 0.25 * 2 G + 0.75 * 1 G
    more = CostBias(policy.bias - 0.05)
    assert shares(more) == [0.275, 0.725]
    # an image costs 1.275 G then, so a hair below that there is no other answer
    assert MacsBudget(1.2749).resolve(CHOICE) == policy
    assert shares(MacsBudget(1.275).resolve(CHOICE)) == [0.275, 0.725]


def test_a_chooser_spends_no_more_than_it_would_by_itself() -> None:
    assert MacsBudget(1.5).resolve(CHOICE) == Chosen()
    assert MacsBudget(100).resolve(CHOICE) == Chosen()
    assert LatencyBudget(100).resolve(CHOICE) == Chosen()


def test_the_predictors_own_work_counts() -> None:
    dear = choosing(SCORES, tuple(macs + 500_000_000 for macs in MACS), MS)
    assert shares(MacsBudget(1.75).resolve(dear)) == [0.25, 0.75]
    with support.refuses(PolicyError, "1.25 GMACs on average cannot be kept", "1.5 GMACs"):
        MacsBudget(1.25).resolve(dear)


def test_milliseconds_and_rates() -> None:
    assert shares(LatencyBudget(13.3).resolve(CHOICE)) == [0.1, 0.9]  # 25 ms and 12 ms
    assert shares(FramesPerSecond(1000 / 13.3).resolve(CHOICE)) == [0.1, 0.9]
    assert shares(LatencyBudget(20, percentile=90).resolve(CHOICE)) == [0.2, 0.8]  # half are late


def test_what_is_impossible_is_told_and_the_nearest_taken_where_asked(caplog) -> None:
    for goal, least in ((MacsBudget(0.9), "1 GMACs"), (LatencyBudget(11), "12.00 ms")):
        with support.refuses(
            PolicyError, "cannot be kept", f"every image at the cheapest branch it is {least}"
        ):
            goal.resolve(CHOICE)
    nearest = MacsBudget(0.9, on_impossible="nearest").resolve(CHOICE)
    assert shares(nearest) == [0.0, 1.0]
    assert "the nearest setting is used: cost bias" in caplog.text


@pytest.mark.parametrize("goal", [LatencyBudget(15, adaptive=True), FramesPerSecond(60, True)])
def test_a_chooser_is_not_adaptive(goal: Goal) -> None:
    with support.refuses(PolicyError, "adaptive control is for cascades of two exits", "chooser"):
        goal.resolve(CHOICE)


def test_accuracy_is_the_largest_bias_that_keeps_it() -> None:
    # AP is 0.4 + 0.1 of the share at the dearer branch, whose own is 0.5
    policy = Accuracy(max_ap_drop=7).resolve(CHOICE)
    assert shares(policy)[0] == pytest.approx(0.3)
    assert shares(Accuracy(max_ap_drop=2).resolve(CHOICE))[0] == pytest.approx(0.8)
    assert shares(Accuracy(max_ap_drop=0).resolve(CHOICE))[0] == 1


def test_accuracy_where_no_row_keeps_it(caplog) -> None:
    ways = list(CHOICE.ways)
    best = ways[0].model_copy(update={"scores": ways[0].scores.__class__(0.9)})
    raised = CHOICE.model_copy(update={"ways": (best, ways[1])})
    assert Accuracy(max_ap_drop=1).resolve(raised) == AlwaysHard()
    assert "all are hard" in caplog.text


def test_images_whose_scores_are_nan_stay_at_the_dearest() -> None:
    scores = SCORES.copy()
    scores[:4] = np.nan
    broken = choosing(scores, MACS, MS)
    policy = MacsBudget(1.1).resolve(broken)
    assert shares(policy, scores) == [0.1, 0.9]
    with support.refuses(PolicyError, "1.1 GMACs"):
        MacsBudget(1.05).resolve(broken)


def test_a_cascade_has_a_budget_of_multiply_accumulates_too() -> None:
    plain = calibration_of(spread())
    with pytest.raises(IncompleteCalibrationError, match="multiply-accumulates of each way"):
        MacsBudget(1.3).resolve(plain)
    ways = [
        w.model_copy(update={"mean_macs": m}) for w, m in zip(plain.ways, (1e9, 3e9), strict=True)
    ]
    priced = plain.model_copy(update={"ways": tuple(ways)})
    policy = MacsBudget(1.5).resolve(priced)
    assert isinstance(policy, Threshold)
    assert np.mean(spread() < policy.value) == 0.25


@pytest.mark.parametrize("gmacs", [0, -1, float("nan"), float("inf"), "2", True])
def test_what_is_no_budget_is_refused(gmacs) -> None:
    with support.refuses(PolicyError, "a budget of GMACs is", "2.5 for 2.5 GMACs"):
        MacsBudget(gmacs)


def test_a_calibration_from_before_choosers_were_planned_is_named() -> None:
    older = CHOICE.model_copy(update={"choice_scores": (), "biases": ()})
    for goal in (MacsBudget(1.5), LatencyBudget(15), FramesPerSecond(60)):
        with support.refuses(PolicyError, "without the chooser's scores; run: dyninfer calibrate"):
            goal.resolve(older)


def test_the_dearest_way() -> None:
    assert (CHOICE.dearest, calibration_of(spread()).dearest) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"biases": ()}, "biases"),
        ({"choice_scores": CHOICE.choice_scores[:1]}, "choice_scores"),
        ({"choice_scores": tuple(c[:3] for c in CHOICE.choice_scores)}, "one value for each image"),
        (
            {"ways": tuple(w.model_copy(update={"mean_macs": None}) for w in CHOICE.ways)},
            "mean_macs",
        ),
    ],
)
def test_what_does_not_fit_one_chooser_is_refused(changes, what) -> None:
    with pytest.raises(ValueError, match=what):
        Calibration.model_validate(dict(CHOICE) | changes)
