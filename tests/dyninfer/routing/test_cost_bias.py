from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dyninfer.errors import PolicyError
from dyninfer.routing.cost_bias import CostBias, bias_steps, relative_costs
from dyninfer.routing.policy import Chosen, DecisionPoint, Threshold
from tests import support

relaxed = settings(deadline=None)
DRNET = (4_379_379_200, 2_793_222_656, 1_368_094_208)
"""A predictor and ResNet-50 at 224, 168 and 112 pixels."""
MACS = st.lists(st.integers(0, 10**12), min_size=2, max_size=5).map(tuple)
BIAS = st.floats(-1e6, 1e6)


@st.composite
def choices(draw, special: tuple[float, ...] = (np.nan, np.inf, -np.inf, 0.0, 1.0)):
    """Scores of some images, and the multiply-accumulates of the branches."""
    macs = draw(MACS)
    values = st.floats(-50, 50, width=32)
    if special:
        values |= st.sampled_from(special)
    scores = draw(hnp.arrays(np.float32, (draw(st.integers(1, 8)), len(macs)), elements=values))
    return scores, macs


def at_chooser(macs: tuple[int, ...], count: int) -> DecisionPoint:
    ways = tuple(frozenset({branch}) for branch in range(len(macs)))
    return DecisionPoint(0, "choice_scores", ways, np.arange(count), macs)


def taken(scores: np.ndarray, macs: tuple[int, ...], bias: float) -> np.ndarray:
    return CostBias(bias).decide(scores, at_chooser(macs, len(scores)))


def test_costs_are_normalised_between_the_cheapest_and_the_dearest() -> None:
    expected = [1.0, (DRNET[1] - DRNET[2]) / (DRNET[0] - DRNET[2]), 0.0]
    np.testing.assert_allclose(relative_costs(DRNET), expected, rtol=1e-15)
    np.testing.assert_array_equal(relative_costs((7, 7)), [0.0, 0.0])


def test_the_branch_of_the_largest_biased_log_probability_is_taken() -> None:
    scores = np.array([[2.0, 1.5, 0.0]], np.float32)
    # the second lacks 0.5 and saves 0.527 of the cost; the third lacks 1.5 and saves 0.473 more
    ways = [int(taken(scores, DRNET, bias)[0]) for bias in (0, 0.9, 1.0, 3.1, 3.2)]
    assert ways == [0, 0, 1, 1, 2]
    assert taken(scores, DRNET, -5)[0] == 0


@relaxed
@given(choices(special=()), BIAS)
def test_it_is_the_argmax_of_the_log_softmax_less_the_biased_cost(given_, bias) -> None:
    scores, macs = given_
    wide = scores.astype(np.float64)
    log_softmax = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    values = log_softmax - bias * relative_costs(macs)
    found = values[np.arange(len(scores)), taken(scores, macs, bias)]
    np.testing.assert_allclose(found, values.max(axis=1), atol=1e-8)


@relaxed
@given(choices())
def test_no_bias_is_the_choosers_own_choice(given_) -> None:
    scores, macs = given_
    chosen = Chosen().decide(scores, at_chooser(macs, len(scores)))
    np.testing.assert_array_equal(taken(scores, macs, 0), chosen)


@relaxed
@given(choices(), BIAS, BIAS)
def test_a_larger_bias_never_raises_the_cost_of_an_image(given_, one, other) -> None:
    scores, macs = given_
    low, high = sorted((one, other))
    costs = np.array(macs)
    assert (costs[taken(scores, macs, high)] <= costs[taken(scores, macs, low)]).all()


@relaxed
@given(choices(), BIAS)
def test_an_image_with_nan_takes_the_dearest_branch_whatever_the_bias(given_, bias) -> None:
    scores, macs = given_
    broken = np.isnan(scores).any(axis=1)
    assert (np.array(macs)[taken(scores, macs, bias)[broken]] == max(macs)).all()


@pytest.mark.parametrize("bias", [math.nan, math.inf, "1", None, True, 10**400])
def test_what_is_no_bias_is_refused(bias) -> None:
    with support.refuses(PolicyError, "a cost bias is", "expected a finite number"):
        CostBias(bias)


def test_it_reads_a_choosers_scores() -> None:
    easy = DecisionPoint(0, "easiness", (frozenset({0}), frozenset({1})))
    with support.refuses(PolicyError, "CostBias reads a chooser's scores", "decides by easiness"):
        CostBias(1).check([easy], None)
    with support.refuses(PolicyError, "one way for all images"):
        CostBias(1).check([], None)
    CostBias(1).check([at_chooser((1, 2), 0)], None)
    with support.refuses(PolicyError, "decides by choice_scores; use Chosen, CostBias, MacsBudget"):
        Threshold(0.5).check([at_chooser((1, 2), 0)], None)


def test_the_steps_of_images_that_are_known() -> None:
    scores = np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 0.0], [np.nan, 0.0]], np.float32)
    steps = bias_steps(scores, (100, 300))
    # three images move to the cheap branch, at 3, 1 and -2; the broken one stays
    np.testing.assert_array_equal(steps.edges, [np.inf, 3, 1, -2, -np.inf])
    np.testing.assert_array_equal(steps.shares[:, 1], [0.25, 0.5, 0.75, 1.0])
    assert [steps.bias(step) for step in range(4)] == [3.3, 2.0, 0.0, -2.2]
    assert steps.chosen == 2


def test_branches_in_any_order_have_the_same_steps() -> None:
    scores = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    steps, turned = bias_steps(scores, DRNET), bias_steps(scores[:, ::-1], DRNET[::-1])
    np.testing.assert_array_equal(steps.edges, turned.edges)
    np.testing.assert_array_equal(steps.shares, turned.shares[:, ::-1])


@relaxed
@given(choices(special=(np.nan,)))
def test_every_step_is_what_the_policy_does_at_its_bias(given_) -> None:
    scores, macs = given_
    steps = bias_steps(scores, macs)
    spent = steps.shares @ np.array(macs, np.float64)
    assert (np.diff(spent) > -1e-3).all()
    for step in range(len(steps.shares)):
        bias, wide = steps.bias(step), steps.edges[step] - steps.edges[step + 1]
        if wide > 1e-6 * (1 + abs(bias)):  # or a float's rounding decides
            counts = np.bincount(taken(scores, macs, bias), minlength=len(macs))
            np.testing.assert_allclose(spent[step], counts @ np.array(macs) / len(scores))
            assert step == steps.chosen or bias
    assert steps.bias(steps.chosen) == 0
