"""One budget for many streams: never overspent, spent well, and nobody starved."""

from __future__ import annotations

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

offers = st.builds(Offer, st.floats(0.5, 50), st.floats(0, 10))
cameras = st.lists(offers, min_size=1, max_size=4).map(
    lambda each: {f"cam{number}": offer for number, offer in enumerate(each)}
)


def price(chosen: list[str], offered: dict[str, Offer]) -> float:
    return sum(offered[name].ms for name in chosen)


@given(cameras, st.floats(-20, 100), st.floats(0, 60))
def test_what_is_spent_was_there_and_is_gone(offered, pot, saved) -> None:
    before = Ledger(dict.fromkeys(offered, saved), pot)
    chosen, after = share_out(before, offered, 50)
    spent = sum(before.own.values()) + pot - sum(after.own.values()) - after.pot
    assert spent == pytest.approx(price(chosen, offered), abs=1e-6)
    assert after.pot >= min(pot, 0)
    assert min(after.own.values()) >= 0
    assert len(chosen) == len(set(chosen))
    if saved >= 50:
        assert set(chosen) == set(offered)


@given(cameras, st.floats(0, 100))
def test_nobody_is_paid_for_before_one_who_gains_more(offered, pot) -> None:
    chosen, after = share_out(Ledger(dict.fromkeys(offered, 0.0), pot), offered, 50)
    worth = {name: offer.gain / offer.ms for name, offer in offered.items()}
    for name in offered.keys() - set(chosen):
        assert all(worth[other] >= worth[name] for other in chosen)
        assert offered[name].gain == 0 or after.pot < max(offer.ms for offer in offered.values())


@given(cameras, st.floats(0, 100), st.randoms())
def test_the_order_of_the_streams_is_nothing(offered, pot, random) -> None:
    names = list(offered)
    random.shuffle(names)
    shuffled = {name: offered[name] for name in names}
    own = dict.fromkeys(offered, 3.0)
    assert share_out(Ledger(own, pot), offered, 50) == share_out(Ledger(own, pot), shuffled, 50)


def test_the_greatest_gain_per_millisecond_is_paid_first_or_saved_for() -> None:
    offered = {"cheap": Offer(10, 1), "dear": Offer(30, 9)}
    nothing = dict.fromkeys(offered, 0.0)
    for pot, expected in ((29, []), (30, ["dear"]), (40, ["dear", "cheap"])):
        assert share_out(Ledger(nothing, pot), offered, 30)[0] == expected
    saved = Ledger({"cheap": 10.0, "dear": 12.0}, 18.0)  # the pot pays what they lack
    assert share_out(saved, offered, 30) == (["dear", "cheap"], Ledger(dict.fromkeys(nothing, 0.0)))
    assert share_out(Ledger(nothing, 100), {"cheap": Offer(10, 0)}, 30)[0] == []
    in_debt = Ledger({"cheap": 10.0, "dear": 12.0}, -50.0)  # which is no matter of whoever saved
    assert share_out(in_debt, offered, 30)[0] == ["cheap"]


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
    for round_number in range(1, 200):
        now = round_number * period
        ledger = ledger.earn(period, budget, fairness, 4 * ms)
        offered = {  # some on the cheap way, some on the dear one
            name: Offer(ms if gain < 50 else 4 * ms, gain)
            for name, gain in zip(names, worth, strict=False)
        }
        chosen, ledger = share_out(ledger, offered, 4 * ms)
        spent += price(chosen, offered)
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
        ledger = ledger.earn(0.1, budget, fairness, 5.0)
        while True:
            chosen, ledger = share_out(ledger, {"going": Offer(5.0, 1.0)}, 5.0)
            if not chosen:
                break
            spent += 5
    assert 10 * budget - spent <= 5 + 2 * 5 + 1e-6
    assert ledger.without("stalled").own.keys() == {"going"}


def test_time_beyond_what_was_expected_is_the_pots_debt() -> None:
    ledger = Ledger({"one": 4.0}, 10.0).settle(8.0, 25.0)
    assert (ledger.pot, ledger.own) == (-7.0, {"one": 4.0})
    assert share_out(ledger, {"one": Offer(5.0, 1.0)}, 5.0)[0] == []
    assert ledger.earn(1000, 200, 0.5, 5.0).pot == 200  # quiet times pay for one second
    assert Ledger({"one": 0.0}, -1e9).earn(0, 200, 0.5, 5.0).pot == -205


def test_what_a_stream_costs_more_is_its_own_first() -> None:
    ledger = Ledger({"one": 30.0, "other": 5.0}, 10.0)
    assert ledger.charge("one", 10.0) == Ledger({"one": 20.0, "other": 5.0}, 10.0)
    assert ledger.charge("other", 20.0) == Ledger({"one": 30.0, "other": 0.0}, -5.0)


def test_the_loss_is_that_of_images_as_easy() -> None:
    easiness = np.linspace(0, 1, 101)
    losses = np.array([1 - easiness, (1 - easiness) / 2])
    found = losses_near(easiness, losses, 0.2)
    np.testing.assert_allclose(found, [0.8, 0.4, 0], atol=0.01)
    np.testing.assert_allclose(losses_near(easiness[:3], losses[:, :3], 0.5)[0], 0.99)
