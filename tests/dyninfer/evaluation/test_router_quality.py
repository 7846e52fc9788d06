from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dyninfer.evaluation.router_quality import (
    EXISTING,
    FITTED,
    MAXIMUM_CONFIDENCE,
    RANDOM,
    Gain,
    MeanStd,
    Metric,
    QualityRow,
    RouterComparison,
    compare,
    lowest,
    random_choices,
)
from dyninfer.results.scores import Scores

SHARES = (0.25, 0.5)
COUNT = 40
GAINS = np.linspace(0, 0.02, COUNT)


def precision(hard: np.ndarray) -> Scores:
    """Each picture adds its own gain: what the best choice is, is known."""
    ap50 = 0.4 + float(GAINS[hard].sum())
    return Scores(primary=ap50 / 2, secondary=ap50)


def test_a_router_that_knows_the_gains_equals_the_oracle_and_beats_random():
    found = compare(precision, [-GAINS, -GAINS * 2], {"oracle": -GAINS})
    for share in SHARES:
        assert found.row(FITTED, share).ap50 == found.row("oracle", share).ap50
        assert found.row(FITTED, share).ap50.mean > found.row(RANDOM, share).ap50.mean
    assert found.beats_random
    assert not found.within_chance


def test_a_router_that_has_it_the_wrong_way_round_does_not_beat_random():
    found = compare(precision, [GAINS, GAINS], {})
    assert found.gain.mean < 0
    assert not found.beats_random


def test_random_choice_gives_what_is_expected_of_it():
    found = compare(precision, [GAINS, GAINS], {}, draws=2000)
    for share in SHARES:
        expected = 0.4 + share * GAINS.sum()
        assert found.row(RANDOM, share).ap50.mean == pytest.approx(expected, abs=0.003)


def test_the_gain_is_over_both_shares_and_the_error_over_seeds_and_draws():
    rng = np.random.default_rng(0)
    routers = [-GAINS + rng.normal(0, 0.01, COUNT) for _ in range(10)]
    found = compare(precision, routers, {})
    above = [
        found.row(FITTED, share).ap.mean - found.row(RANDOM, share).ap.mean for share in SHARES
    ]
    assert found.gain.mean == pytest.approx(np.mean(above))
    by_seed = np.mean([[precision(lowest(r, s)).primary for r in routers] for s in SHARES], axis=0)
    chance = [found.row(RANDOM, s).ap.std ** 2 / 400 for s in SHARES]
    error = np.sqrt(by_seed.var() / 10 + sum(chance) / 4)
    assert found.gain.standard_error == pytest.approx(error)


@pytest.mark.parametrize("metric", list(Metric))
def test_the_standard_error_is_that_of_the_mean_over_seeds_and_of_chance(metric):
    """Of hand-made masks: three seeds, and draws that are the same every time."""

    def judged(mask: np.ndarray) -> float:
        found = precision(mask)
        return found.primary if metric is Metric.AP else found.secondary

    routers = [-GAINS, -np.roll(GAINS, 7), GAINS]
    found = compare(precision, routers, {}, metric, draws=50).gain
    draws = {share: [judged(mask) for mask in random_choices(COUNT, share, 50)] for share in SHARES}
    chance = np.mean([np.mean(draws[share]) for share in SHARES])
    gains = [
        np.mean([judged(lowest(values, share)) for share in SHARES]) - chance for values in routers
    ]
    of_seeds = np.var(gains) / len(routers)
    of_draws = sum(np.var(draws[share]) / 50 for share in SHARES) / 2**2
    assert found.mean == pytest.approx(np.mean(gains))
    assert found.standard_error == pytest.approx(np.sqrt(of_seeds + of_draws))


@pytest.mark.parametrize(
    ("gain", "error", "verdict"),
    [(0.02, 0.01, True), (0.01, 0.02, False), (0.01, 0.01, False), (-0.02, 0.01, False)],
)
def test_a_router_beats_random_by_more_than_the_standard_error(gain, error, verdict):
    made = compare(precision, [GAINS], {}, draws=5)
    assert replace(made, gains={FITTED: Gain(gain, error)}).beats_random is verdict


def test_what_one_random_choice_in_six_reaches_is_within_chance():
    found = compare(precision, [GAINS], {}, draws=50)
    spread = np.mean([found.row(RANDOM, share).ap.std for share in SHARES])
    assert replace(found, gains={FITTED: Gain(0.99 * spread, 0)}).within_chance
    assert not replace(found, gains={FITTED: Gain(1.01 * spread, 0)}).within_chance


def test_a_gain_smaller_than_the_spread_of_chance_is_told_apart():
    rng = np.random.default_rng(1)
    routers = [-GAINS + rng.normal(0, 0.05, COUNT) for _ in range(30)]
    found = compare(precision, routers, {})
    assert found.within_chance


def test_where_every_choice_is_as_good_nothing_beats_random():
    found = compare(lambda _hard: Scores(0.5, 0.5), [GAINS], {})
    assert found.gain.mean == 0
    assert not found.beats_random


def test_the_record_is_plain_json():
    found = compare(precision, [-GAINS], {"oracle": -GAINS})
    record = json.loads(json.dumps(found.to_dict()))
    assert record["beats_random"] is True
    assert [row["name"] for row in record["rows"][:3]] == [FITTED, RANDOM, "oracle"]
    assert record == found.to_dict()


def test_nothing_of_nothing_is_marked() -> None:
    assert lowest([], 0.5).shape == (0,)


@pytest.mark.parametrize(("share", "marked"), [(0, 0), (0.25, 1), (0.5, 2), (1, 4)])
def test_the_lowest_share_is_marked(share: float, marked: int) -> None:
    mask = lowest([0.4, 0.1, 0.3, 0.2], share)
    assert mask.sum() == marked
    assert set(np.flatnonzero(mask)) == set([1, 3, 2, 0][:marked])


def test_of_equal_values_the_first_are_marked() -> None:
    assert lowest([0.5] * 4, 0.5).tolist() == [True, True, False, False]


def test_random_choices_mark_as_many_and_are_the_same_every_time() -> None:
    masks = random_choices(10, 0.3, seeds=5)
    assert [mask.sum() for mask in masks] == [3] * 5
    assert len({tuple(mask) for mask in masks}) > 1
    for again, mask in zip(random_choices(10, 0.3, seeds=5), masks, strict=True):
        np.testing.assert_array_equal(again, mask)


def test_a_mean_std_is_mean_and_deviation() -> None:
    assert MeanStd.of([1.0, 3.0]) == MeanStd(2.0, 1.0)


def disagreeing(hard: np.ndarray) -> Scores:
    """AP50 rises with what is chosen where AP falls."""
    gained = float(GAINS[hard].sum())
    return Scores(primary=0.4 - gained, secondary=0.4 + gained)


def test_average_precision_decides_unless_another_is_asked_for():
    by_ap = compare(disagreeing, [-GAINS, -GAINS * 2], {})
    by_ap50 = compare(disagreeing, [-GAINS, -GAINS * 2], {}, Metric.AP50)
    assert not by_ap.beats_random
    assert by_ap50.beats_random
    assert by_ap.gain.mean == pytest.approx(-by_ap50.gain.mean, abs=1e-3)
    assert by_ap50.means(Metric.AP)[FITTED] < by_ap50.means(Metric.AP)[RANDOM]


def test_the_ends_leave_nothing_to_choose():
    found = compare(precision, [-GAINS], {})
    assert found.ends == (precision(np.zeros(COUNT, bool)), precision(np.ones(COUNT, bool)))


def test_maximum_confidence_wins_where_it_is_clearly_better():
    rng = np.random.default_rng(0)
    routers = [-GAINS + rng.normal(0, 0.02, COUNT) for _ in range(10)]
    found = compare(precision, routers, {MAXIMUM_CONFIDENCE: -GAINS})
    assert found.winner == MAXIMUM_CONFIDENCE
    assert found.gain == found.gains[MAXIMUM_CONFIDENCE]
    assert json.loads(json.dumps(found.to_dict()))["winner"] == MAXIMUM_CONFIDENCE
    # where a head makes the scores, no router reads them
    unread = compare(precision, routers, {MAXIMUM_CONFIDENCE: -GAINS}, by_hand=False)
    assert unread.winner == FITTED
    # neither as good as the fitted router, nor better by luck
    assert compare(precision, [-GAINS], {MAXIMUM_CONFIDENCE: -GAINS}).winner == FITTED
    lucky = {FITTED: Gain(-0.01, 0.001), MAXIMUM_CONFIDENCE: Gain(0.01, 0.001)}
    within = RouterComparison(found.metric, found.rows, found.ends, lucky)
    assert within.winner == FITTED
    assert not within.beats_random


def test_a_way_that_is_no_contender_is_compared_all_the_same():
    found = compare(precision, [GAINS], {EXISTING: -GAINS})
    assert found.winner == FITTED
    assert found.means(Metric.AP)[EXISTING] > found.means(Metric.AP)[FITTED]


def compared(fitted: Gain, rule: Gain) -> RouterComparison:
    """Random choices differ by 1 at one share and by 3 at the other; other ways by more."""
    ways = {"an easiness": (7.0, 5.0), RANDOM: (0.0, 1.0), "the size": (8.0, 9.0)}
    rows = [
        QualityRow(name, share, MeanStd(4.0, 6.0), MeanStd(mean, std + more))
        for share, more in zip(SHARES, (0, 2), strict=True)
        for name, (mean, std) in ways.items()
    ]
    gains = {FITTED: fitted, MAXIMUM_CONFIDENCE: rule}
    return RouterComparison(Metric.AP, tuple(rows), (Scores(), Scores()), gains)


@pytest.mark.parametrize(
    ("fitted", "error", "rule", "wins"),
    [
        (0.0, 0.0, 3.75, False),
        (0.0, 0.0, 4.0, False),
        (0.0, 0.0, 4.25, True),
        (6.0, 1.5, 7.25, False),
        (6.0, 1.5, 7.5, False),
        (6.0, 1.5, 7.75, True),
    ],
)
def test_a_rule_wins_beyond_the_fitted_s_error_and_twice_what_random_choices_differ_by(
    fitted, error, rule, wins
):
    found = compared(Gain(fitted, error), Gain(rule, 0.0))
    assert found.winner == (MAXIMUM_CONFIDENCE if wins else FITTED)
    assert found.gain.mean == (rule if wins else fitted)


@pytest.mark.parametrize(("mean", "within"), [(1.75, True), (2.0, False), (2.25, False)])
def test_a_gain_is_within_chance_below_what_random_choices_differ_by(mean, within):
    found = compared(Gain(mean, 0.0), Gain(0.0, 0.0))
    assert found.within_chance is within
    assert found.means(Metric.AP) == {"an easiness": 7, RANDOM: 0, "the size": 8}
