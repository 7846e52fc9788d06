"""One budget for many streams: never overspent, spent well, and nobody starved."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.routing.sharing import (
    Ledger,
    Offer,
    longest_wait_s,
    losses_near,
    share_out,
)

prices = st.floats(0.5, 50)
gains = st.floats(0, 10)
offers = st.lists(st.tuples(prices, gains), min_size=1, max_size=3).map(
    lambda ways: Offer([ms for ms, _ in ways], [gain for _, gain in ways])
)
cameras = st.lists(offers, min_size=1, max_size=4).map(
    lambda each: {f"cam{number}": offer for number, offer in enumerate(each)}
)


def total(chosen: dict[str, int], offered: dict[str, Offer], what: str) -> float:
    return sum(getattr(offered[name], what)[way] for name, way in chosen.items())


@given(cameras, st.floats(-20, 100), st.floats(0, 60))
def test_what_is_spent_was_there_and_is_gone(offered, pot, saved) -> None:
    before = Ledger(dict.fromkeys(offered, saved), pot)
    chosen, after = share_out(before, offered)
    spent = sum(before.own.values()) + pot - sum(after.own.values()) - after.pot
    assert spent == pytest.approx(total(chosen, offered, "ms"), abs=1e-6)
    assert after.pot >= min(pot, 0)
    assert min(after.own.values()) >= 0
    assert {n for n, o in offered.items() if saved >= max(o.ms)} <= chosen.keys()


@given(cameras, st.floats(0, 100))
def test_no_choice_gains_more_than_one_step_beyond(offered, pot) -> None:
    """The greedy choice is within the last step that it could not pay of the best of all."""
    chosen, _ = share_out(Ledger(dict.fromkeys(offered, 0.0), pot), offered)
    best = 0.0
    for ways in itertools.product(*([None, *range(len(o.ms))] for o in offered.values())):
        tried = {name: way for name, way in zip(offered, ways, strict=True) if way is not None}
        if total(tried, offered, "ms") <= pot:
            best = max(best, total(tried, offered, "gain"))
    step = max(max(offer.gain) for offer in offered.values())
    assert best - step - 1e-6 <= total(chosen, offered, "gain") <= best + 1e-6


@given(cameras, st.floats(0, 100), st.randoms())
def test_the_order_of_the_streams_is_nothing(offered, pot, random) -> None:
    names = list(offered)
    random.shuffle(names)
    shuffled = {name: offered[name] for name in names}
    own = dict.fromkeys(offered, 3.0)
    assert share_out(Ledger(own, pot), offered) == share_out(Ledger(own, pot), shuffled)


def test_the_greatest_gain_per_millisecond_is_paid_first() -> None:
    offered = {"dull": Offer([10, 30], [1, 1.5]), "busy": Offer([10, 30], [4, 9])}
    nothing = dict.fromkeys(offered, 0.0)
    for pot, expected in (
        (9, {}),
        (10, {"busy": 0}),
        (30, {"busy": 1}),
        (40, {"busy": 1, "dull": 0}),
        (60, {"busy": 1, "dull": 1}),
    ):
        assert share_out(Ledger(nothing, pot), offered)[0] == expected
    dear_and_worse = {"one": Offer([10, 30], [4, 4])}
    assert share_out(Ledger({"one": 0.0}, 100), dear_and_worse)[0] == {"one": 0}


@given(
    st.integers(1, 6),
    st.floats(0.1, 1),
    st.floats(20, 500),
    st.floats(1, 20),
    st.lists(st.floats(0, 100), min_size=6, max_size=6),
    st.floats(0.02, 0.2),
)
@settings(max_examples=40, deadline=None)
def test_no_stream_waits_longer_than_was_said(count, fairness, budget, ms, worth, period) -> None:
    """However much more the others gain, and with the hard way at four times the price."""
    names = [f"cam{number}" for number in range(count)]
    bound = longest_wait_s(count, budget, fairness, 4 * ms) + period + 1e-6
    ledger, answered, spent, now = (
        Ledger(dict.fromkeys(names, 0.0)),
        dict.fromkeys(names, 0.0),
        0,
        0,
    )
    dearest = dict.fromkeys(names, 4 * ms)
    for round_number in range(1, 200):
        now = round_number * period
        ledger = ledger.earn(period, budget, fairness, dearest)
        offered = {n: Offer([ms, 4 * ms], [w, 2 * w]) for n, w in zip(names, worth, strict=False)}
        chosen, ledger = share_out(ledger, offered)
        spent += total(chosen, offered, "ms")
        for name in names:
            assert now - answered[name] <= bound
            if name in chosen:
                answered[name] = now
    assert spent <= budget * now * (1 + 1e-9) + 1e-6


@given(st.floats(0.05, 1), st.floats(10, 100))
@settings(max_examples=30, deadline=None)
def test_a_stream_without_frames_leaves_its_share_to_others(fairness, budget) -> None:
    """The one that has frames gets all but what the other keeps for its first."""
    ledger, spent = Ledger({"stalled": 0.0, "going": 0.0}), 0.0
    for _ in range(100):
        ledger = ledger.earn(0.1, budget, fairness, {"stalled": 5.0, "going": 5.0})
        while True:
            chosen, ledger = share_out(ledger, {"going": Offer([5.0], [1.0])})
            if not chosen:
                break
            spent += 5
    assert 10 * budget - spent <= 5 + 2 * 5 + 1e-6
    assert ledger.without("stalled").own.keys() == {"going"}


def test_time_beyond_what_was_expected_is_the_pots_debt() -> None:
    ledger = Ledger({"one": 4.0}, 10.0).settle(8.0, 25.0)
    assert (ledger.pot, ledger.own) == (-7.0, {"one": 4.0})
    assert share_out(ledger, {"one": Offer([5.0], [1.0])})[0] == {}
    assert ledger.earn(1000, 200, 0.5, {"one": 5.0}).pot == 200  # quiet times pay for one second
    assert Ledger({"one": 0.0}, -1e9).earn(0, 200, 0.5, {"one": 5.0}).pot == -205


def test_the_loss_is_that_of_images_as_easy() -> None:
    easiness = np.linspace(0, 1, 101)
    losses = np.array([1 - easiness, (1 - easiness) / 2])
    found = losses_near(easiness, losses, 0.2)
    np.testing.assert_allclose(found, [0.8, 0.4, 0], atol=0.01)
    np.testing.assert_allclose(losses_near(easiness[:3], losses[:, :3], 0.5)[0], 0.99)
