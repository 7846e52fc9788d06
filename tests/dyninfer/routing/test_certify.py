from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dyninfer.errors import InputError
from dyninfer.routing.certify import _p_values, certify, describe_certificate, images_needed
from dyninfer.routing.policy import route
from dyninfer.routing.thresholds import SEND_ALL, SEND_NONE, exits_at
from tests import support

relaxed = settings(deadline=None)
RISK, CONFIDENCE = 0.1, 0.9
CALIBRATIONS = 1000
LEVELS = [(0.05, 0.9), (0.05, 0.95), (0.1, 0.9), (0.01, 0.95), (0.3, 0.6)]


@dataclass(frozen=True)
class Law:
    """A distribution of (easiness, loss) whose risk at every threshold is known."""

    draw: Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
    risk_at: Callable[[float], float]


def _bernoulli(generator, count):
    return generator.random(count), (generator.random(count) < 0.4).astype(float)


def _sparse(generator, count):
    easiness = generator.random(count)
    lost = generator.random(count) < 0.9 * (1 - easiness)
    return easiness, np.where(lost, generator.beta(4, 4, count), 0.0)


def _dense(generator, count):
    easiness = generator.random(count)
    return easiness, generator.random(count) * 0.6 * (1 - easiness)


def _edge(generator, count):
    # all or nothing: one easiness, whose risk is just above what is accepted
    return np.full(count, 0.5), (generator.random(count) < 1.001 * RISK).astype(float)


def _rare(generator, count):
    # whole losses, and only among the easiest images
    easiness = generator.random(count)
    return easiness, ((easiness > 0.85) & (generator.random(count) < 0.7)).astype(float)


def _unit(threshold: float) -> float:
    return 1 - min(max(threshold, 0.0), 1.0)


LAWS = {
    "bernoulli": Law(_bernoulli, lambda t: 0.4 * _unit(t)),
    "sparse": Law(_sparse, lambda t: 0.9 * 0.5 * _unit(t) ** 2 / 2),
    "dense": Law(_dense, lambda t: 0.3 * _unit(t) ** 2 / 2),
    "edge": Law(_edge, lambda t: 1.001 * RISK if t <= 0.5 else 0.0),
    "rare": Law(_rare, lambda t: 0.7 * min(_unit(t), 0.15)),
}


@pytest.mark.parametrize("count", [50, 200])
@pytest.mark.parametrize("name", LAWS)
def test_a_certificate_is_wrong_no_more_often_than_it_says(name, count) -> None:
    law, generator = LAWS[name], np.random.default_rng(count)
    wrong = 0
    for _ in range(CALIBRATIONS):
        threshold = certify(*law.draw(generator, count), RISK, CONFIDENCE).threshold
        wrong += law.risk_at(threshold) > RISK
    chance = 1 - CONFIDENCE
    sigma = math.sqrt(chance * CONFIDENCE / CALIBRATIONS)
    assert wrong / CALIBRATIONS <= chance + 3 * sigma


@pytest.mark.parametrize(
    ("name", "count", "share"),
    [
        ("bernoulli", 1000, 0.7),
        ("sparse", 200, 0.65),
        ("sparse", 1000, 0.8),
        ("dense", 200, 0.75),
        ("dense", 1000, 0.88),
    ],
)
def test_a_certificate_uses_most_of_the_risk_that_is_accepted(name, count, share) -> None:
    law, generator = LAWS[name], np.random.default_rng(0)
    risks = [
        law.risk_at(certify(*law.draw(generator, count), RISK, CONFIDENCE).threshold)
        for _ in range(20)
    ]
    assert np.median(risks) >= share * RISK


def three_exits(generator, count):
    """Losses that are worse at the second exit: the loss is not monotone in the threshold."""
    easiness = generator.random((2, count))
    losses = generator.random((2, count)) * np.array([[0.1], [0.5]])
    return easiness, losses


def test_more_exits_keep_the_promise_at_and_above_the_threshold() -> None:
    generator = np.random.default_rng(5)
    many_easiness, many_losses = three_exits(generator, 20_000)
    full = np.vstack([many_losses, np.zeros(20_000)])
    grid = np.linspace(0, 1, 101)
    risks = np.array([full[exits_at(many_easiness, t), np.arange(20_000)].mean() for t in grid])
    assert (np.diff(risks) > 0.001).any()  # more accurate is not always safer here
    wrong = 0
    for _ in range(200):
        found = certify(*three_exits(generator, 100), RISK, CONFIDENCE)
        wrong += (risks[grid >= found.threshold] > RISK).any()
    assert wrong / 200 <= 1 - CONFIDENCE + 3 * math.sqrt(0.09 / 200)


def test_the_threshold_is_just_above_the_first_image_that_fails() -> None:
    easiness, losses = _dense(np.random.default_rng(0), 300)
    found = certify(easiness, losses, RISK, CONFIDENCE)
    values = np.sort(easiness.astype(np.float32))
    below = np.nextafter(np.float32(found.threshold), np.float32(0))
    assert below in values  # the one that failed: it is hard, the next is easy
    assert route(np.array([below]), found.threshold)[0]
    assert found.hard_fraction == np.mean(easiness.astype(np.float32) <= below)
    assert found.measured_risk == pytest.approx(
        losses[easiness.astype(np.float32) > below].sum() / 300
    )
    assert (found.risk, found.confidence) == (RISK, CONFIDENCE)


def test_without_losses_every_image_may_be_easy() -> None:
    found = certify(np.linspace(0, 1, 200), np.zeros(200), RISK, CONFIDENCE)
    assert (found.threshold, found.hard_fraction, found.measured_risk) == (SEND_NONE, 0, 0)


def test_if_the_easiest_image_fails_every_known_image_is_hard() -> None:
    found = certify(np.full(50, 1.0), np.ones(50), RISK, CONFIDENCE)
    assert found.threshold == np.nextafter(np.float32(1), np.float32(2))
    assert (found.hard_fraction, found.measured_risk) == (1, 0)


def test_images_without_easiness_are_hard_and_lose_nothing() -> None:
    easiness = np.where(np.arange(200) % 2, np.nan, 0.5)
    found = certify(easiness, np.where(np.arange(200) % 2, 1.0, 0.0), RISK, CONFIDENCE)
    assert (found.threshold, found.hard_fraction, found.measured_risk) == (SEND_NONE, 0.5, 0)


def test_a_nan_at_the_first_router_is_decided_at_the_second() -> None:
    easiness = np.array([[math.nan] * 200, [0.5] * 200])
    losses = np.array([[0.0] * 200, [1.0] * 200])
    found = certify(easiness, losses, RISK, CONFIDENCE)
    assert found.threshold == np.nextafter(np.float32(0.5), np.float32(1))
    assert found.hard_fraction == 1


def test_an_exit_that_is_never_taken_does_not_count() -> None:
    easiness = np.array([[0.8] * 200, [0.7] * 200])  # below the first one's: never the first to do
    losses = np.array([[0.0] * 200, [1.0] * 200])
    assert certify(easiness, losses, RISK, CONFIDENCE).threshold == SEND_NONE
    easiness[1] = 0.8  # nor above it: who is as easy there has left before
    assert certify(easiness, losses, RISK, CONFIDENCE).threshold == SEND_NONE


@pytest.mark.parametrize(("risk", "confidence"), LEVELS)
def test_too_few_images_certify_only_the_last_exit(risk, confidence) -> None:
    needed = images_needed(risk, confidence)
    assert needed >= math.log(1 - confidence) / math.log(1 - risk)
    assert needed <= 1.2 * math.log(1 - confidence) / math.log(1 - risk) + 3
    enough = certify(np.linspace(0, 1, needed), np.zeros(needed), risk, confidence)
    assert enough.threshold == SEND_NONE
    few = int(needed * 0.99) - 1
    lacking = certify(np.linspace(0, 1, few), np.zeros(few), risk, confidence)
    assert (lacking.threshold, lacking.hard_fraction) == (SEND_ALL, 1)


@relaxed
@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1)), min_size=1, max_size=60),
    st.sampled_from(LEVELS),
)
@example([(0.0, float(loss)) for loss in (0, 1, 0, 0, 0, 1, 0, 1)], (0.3, 0.6))  # a lucky start
def test_nothing_is_promised_below_what_was_measured(images, levels) -> None:
    easiness, losses = np.array(images).T
    found = certify(easiness, losses, *levels)
    assert found.measured_risk <= levels[0]
    assert 0 <= found.threshold <= SEND_ALL


def test_the_order_of_the_folder_is_no_part_of_the_promise_but_of_nothing_random() -> None:
    easiness, losses = _sparse(np.random.default_rng(0), 200)
    assert certify(easiness, losses, RISK, CONFIDENCE) == certify(
        easiness, losses, RISK, CONFIDENCE
    )


def test_large_calibrations_are_tested_in_parts(monkeypatch) -> None:
    easiness, losses = _sparse(np.random.default_rng(1), 300)
    whole = certify(easiness, losses, RISK, CONFIDENCE)
    monkeypatch.setattr("dyninfer.routing.certify.CHUNK", 7 * 300)
    assert certify(easiness, losses, RISK, CONFIDENCE) == whole


@pytest.mark.parametrize("risk", [0, 1, -0.1, math.nan])
def test_a_risk_that_means_nothing_is_refused(risk) -> None:
    with support.refuses(InputError, "risk", repr(risk)):
        certify([0.5], [0.0], risk, 0.9)
    with support.refuses(InputError, "risk"):
        images_needed(risk, 0.9)


@pytest.mark.parametrize("confidence", [0.5, 1, 90, math.nan])
def test_a_confidence_that_means_nothing_is_refused(confidence) -> None:
    with support.refuses(InputError, "confidence", repr(confidence)):
        certify([0.5], [0.0], 0.1, confidence)


@pytest.mark.parametrize(
    ("easiness", "losses"),
    [([], []), ([0.5], [0.1, 0.2]), ([[0.5], [0.6]], [[0.1]]), ([[[0.5]]], [[[0.1]]])],
)
def test_arrays_that_do_not_fit_are_refused(easiness, losses) -> None:
    with support.refuses(InputError, "easiness", "losses"):
        certify(easiness, losses, 0.1, 0.9)


@pytest.mark.parametrize("loss", [-0.1, 1.1, math.nan])
def test_losses_beyond_0_and_1_are_refused(loss) -> None:
    with support.refuses(InputError, "loss"):
        certify([0.5], [loss], 0.1, 0.9)


def test_it_says_what_is_promised_and_what_is_assumed() -> None:
    easiness, losses = _dense(np.random.default_rng(0), 300)
    found = certify(easiness, losses, RISK, CONFIDENCE)
    text = describe_certificate(found)
    assert text.count("\n") == 1
    for part in (f"{found.threshold:.4g}", f"{found.hard_fraction:.1%}", "0.1", "0.9", "truth"):
        assert part in text
    nothing = describe_certificate(certify(easiness[:5], losses[:5], RISK, CONFIDENCE))
    assert "only sending every image to the last exit" in nothing


def betting(losses: np.ndarray, risk: float, confidence: float) -> float:
    """Waudby-Smith and Ramdas's p-value in a loop: 1 over the largest capital of the gambler."""
    order = np.random.default_rng(0).permutation(len(losses))
    capital, largest, total, squares, variance = 1.0, 1.0, 0.5, 0.25, 0.25
    for number, loss in enumerate(losses[order], 1):
        bet = min(1.0, np.sqrt(2 * np.log(1 / (1 - confidence)) / (len(losses) * variance)))
        capital *= 1 + bet * (risk - loss)
        largest = max(largest, capital)
        total += loss
        squares += (loss - total / (number + 1)) ** 2
        variance = squares / (number + 1)
    return 1 / largest if losses.mean() <= risk else 1.0


@pytest.mark.parametrize("count", [1, 2, 30, 400])
@pytest.mark.parametrize(("risk", "confidence"), [(0.05, 0.9), (0.1, 0.95), (0.3, 0.5)])
def test_p_values_are_those_of_a_gambler_who_knows_earlier_losses(count, risk, confidence) -> None:
    rng = np.random.default_rng(count)
    losses = rng.beta(0.2, 3, (6, count)) * np.linspace(0, 2, 6)[:, None]
    losses = np.minimum(losses, 1)
    found = _p_values(losses, risk, confidence)
    expected = [betting(row, risk, confidence) for row in losses]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_losses_that_average_just_what_is_accepted_are_bet_on() -> None:
    losses = np.array([0.0] * 9 + [1.0])
    assert losses.mean() == RISK
    assert _p_values(losses[None], RISK, CONFIDENCE)[0] == pytest.approx(
        betting(losses, RISK, CONFIDENCE)
    )
    assert betting(losses, RISK, CONFIDENCE) < 1


@pytest.mark.parametrize(
    ("risk", "confidence"), [(0.05, 0.9), (0.01, 0.95), (0.3, 0.51), (0.9, 0.6)]
)
def test_the_images_that_are_needed_are_the_fewest_to_half_a_percent(risk, confidence) -> None:
    needed = images_needed(risk, confidence)
    assert betting(np.zeros(needed), risk, confidence) <= 1 - confidence
    fewer = min(needed - 1, int(needed / 1.006))
    least = np.log(1 - confidence) / np.log(1 - risk)
    assert fewer < least or betting(np.zeros(fewer), risk, confidence) > 1 - confidence
