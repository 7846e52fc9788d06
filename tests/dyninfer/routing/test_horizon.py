"""Ways for many streams over time: never worse than the same way for all, cheap or dear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.routing.experience import AUDIT_SHARE, Experience
from dyninfer.routing.horizon import Outlook, best_ways, expected_loss

MS = (10.0, 40.0)
looks = st.lists(
    st.builds(
        lambda first, second, change: Outlook([first, second, 0.0], change),
        st.floats(0, 1),
        st.floats(0, 1),
        st.floats(0, 3),
    ),
    min_size=1,
    max_size=5,
).map(lambda each: {f"cam{number}": outlook for number, outlook in enumerate(each)})


@given(looks, st.floats(1, 1000))
def test_no_turns_are_better(outlooks, budget) -> None:
    ms = (5.0, 12.0, 40.0)
    ways = best_ways(ms, outlooks, budget)
    found = expected_loss(ms, outlooks, ways, budget)
    for way in range(3):
        turns = expected_loss(ms, outlooks, dict.fromkeys(outlooks, way), budget)
        assert found <= turns + 1e-6


def test_a_cheap_exit_does_not_win_by_its_price_alone() -> None:
    bad, good = {"cam": Outlook([0.6, 0.0], 0.2)}, {"cam": Outlook([0.02, 0.0], 0.2)}
    assert best_ways(MS, bad, 50) == {"cam": 1}
    assert best_ways(MS, good, 50) == {"cam": 0}
    assert best_ways(MS, good, 500) == {"cam": 1}  # it may come often enough
    assert best_ways(MS, {"cam": Outlook([0.6, 0.0], 20)}, 50) == {"cam": 0}  # else too seldom
    assert best_ways(MS, {"one": bad["cam"], "other": good["cam"]}, 100) == {"one": 1, "other": 0}


def test_the_loss_is_that_of_the_best_periods() -> None:
    """Two of 10 ms, one of which changes four times as quickly, are answered every 1 and 2 s."""
    outlooks = {"quick": Outlook([0.0], 0.4), "slow": Outlook([0.0], 0.1)}
    loss = expected_loss([10.0], outlooks, {"quick": 0, "slow": 0}, 15.0)
    assert loss == pytest.approx(0.4 * 1 / 2 + 0.1 * 2 / 2)


def test_a_few_audits_outweigh_what_was_believed() -> None:
    known = Experience(2)
    assert known.lost([0.1, 0.0]) == [0.1, 0.0]
    for _ in range(3):
        known.note_audit(0, 0.9)
    assert known.lost([0.1, 0.0]) == pytest.approx([0.685, 0.0], abs=0.02)
    for _ in range(30):  # and what it was before is forgotten
        known.note_audit(0, 0.0)
    assert known.lost([0.1, 0.0])[0] < 0.05


def test_audits_come_first_and_then_seldom() -> None:
    known, work, audits = Experience(3), 0.0, []
    for number in range(2000):
        ms = [5.0, 12.0, 40.0]
        audited = known.next_audit(ms, 2)
        if audited is not None:
            audits.append((number, ms[audited]))
            known.note_audit(audited, 0.5)
        known.note_work(40.0)
        work += 40.0
    assert audits[0] == (0, 5.0)
    assert {price for _, price in audits} == {5.0, 12.0}
    assert 0.9 * AUDIT_SHARE * work <= sum(price for _, price in audits) <= AUDIT_SHARE * work + 5
    assert Experience(1).next_audit([40.0], 0) is None
