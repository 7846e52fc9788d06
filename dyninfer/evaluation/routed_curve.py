"""Scores against milliseconds as the threshold moves, and what the router is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.outcomes import Outcomes
from dyninfer.evaluation.router_quality import MeanStd
from dyninfer.evaluation.runs import WayTimes, last_way_alone_ms
from dyninfer.evaluation.scoring import SCORING, RoutedScores
from dyninfer.evaluation.worth import error_of_ends, no_better, not_faster
from dyninfer.results.scores import Scores
from dyninfer.routing.thresholds import SEND_ALL, SEND_NONE, exits_at, percentile_thresholds
from dyninfer.types import Float64Array, Int64Array

PERCENTILES = tuple(range(5, 100, 5))
ROWS = len(PERCENTILES) + 2  # and the two ends
SEEDS = 20


@dataclass(frozen=True)
class CurveRow:
    """One threshold, and other ways to choose as many pictures for each exit.

    Attributes:
        threshold: images of less easiness continue.
        hard_fraction: share that reached the last exit.
        mean_ms: predicted milliseconds of an image, from each exit's own.
        scores: as the router chooses.
        by_chance: primary score as chance chooses, one value for each seed.
        oracle: primary score as the oracle of :func:`oracle_exits` chooses.
    """

    threshold: float
    hard_fraction: float
    mean_ms: float
    scores: Scores
    by_chance: tuple[float, ...]
    oracle: float

    @property
    def score(self) -> float:
        """The primary one."""
        return _primary(self.scores)

    @property
    def chance(self) -> MeanStd:
        """Mean and standard deviation over the seeds."""
        return MeanStd.of(self.by_chance)


@dataclass(frozen=True)
class RoutingQuality:
    """What the router is worth, over the hard fractions between none and all.

    Attributes:
        over_random: mean primary score of the router less that of chance; the deviation is over
            the seeds of chance.
        below_oracle: that of the oracle less that of the router.
        share_of_oracle: the router's gain over chance as a share of the oracle's; None where the
            oracle gains nothing.
        break_even: hard fraction up to which the cascade is, on average, faster than the last
            exit's detector alone; 1 where it always is, 0 where it never is.
        break_even_interval: its ends if the times of the first and the last exit are off by as
            much as they vary.
    """

    over_random: MeanStd
    below_oracle: float
    share_of_oracle: float | None
    break_even: float
    break_even_interval: tuple[float, float]


@dataclass(frozen=True)
class CurveResult:
    """The curve of a cascade on labelled pictures.

    Attributes:
        metrics: names of the two scores.
        exits: scores of every exit when all pictures leave there.
        exit_ms: mean milliseconds of an image that leaves at each exit.
        last_exit_alone_ms: where the last exit's network runs alone, without routers and heads
            of earlier exits.
        rows: by rising threshold, from all easy to all hard.
        quality: of the routing.
        advice: lines that say that the cascade is not worth having, where it is not.
        seeds: random choices for each row.
        samples: the pictures that could be read, and warnings about the others.
    """

    metrics: tuple[str, ...]
    exits: tuple[Scores, ...]
    exit_ms: tuple[float, ...]
    last_exit_alone_ms: float
    rows: tuple[CurveRow, ...]
    quality: RoutingQuality
    advice: tuple[str, ...]
    seeds: int
    samples: Samples


def evaluate_curve(
    manifest: Manifest,
    outcomes: Outcomes,
    times: WayTimes,
    seeds: int = SEEDS,
    progress: Callable[[], None] = lambda: None,
) -> CurveResult:
    """Everything about the curve of a cascade with routers, from labelled pictures.

    There are ``seeds`` random choices for each threshold; ``progress`` is called after each of the
    :data:`ROWS` rows.

    Raises:
        InputError: there is nothing to find in any picture.
    """
    SCORING[manifest.task].check(outcomes.samples, manifest.class_names)
    assert outcomes.scores is not None  # something is known of the pictures
    count = len(outcomes.samples.items)
    alone_ms = last_way_alone_ms(times, manifest)
    rows = curve_rows(outcomes.scores, outcomes, times, seeds, progress)
    metrics, ways = manifest.task.kind.metrics, range(len(manifest.ways))
    exits = tuple(outcomes.scores.at(np.full(count, index)) for index in ways)
    primary = [scores.primary for scores in exits]
    advice = no_better(metrics[0], primary, manifest.way_names, count), not_faster(times, manifest)
    return CurveResult(
        metrics=metrics,
        exits=exits,
        exit_ms=tuple(float(np.mean(samples)) for samples in times.ms),
        last_exit_alone_ms=alone_ms,
        rows=tuple(rows),
        quality=routing_quality(rows, alone_ms, error_of_ends(times)),
        advice=tuple(line for line in advice if line is not None),
        seeds=seeds,
        samples=outcomes.samples,
    )


def curve_rows(
    scores: RoutedScores,
    outcomes: Outcomes,
    times: WayTimes,
    seeds: int,
    progress: Callable[[], None],
) -> list[CurveRow]:
    """All easy, thresholds at percentiles of the easiness of these pictures, all hard."""
    gains = scores.gains()
    thresholds = percentile_thresholds(outcomes.easiness, PERCENTILES)
    rows = []
    for threshold in (SEND_NONE, *map(float, thresholds), SEND_ALL):
        exits = exits_at(outcomes.easiness, threshold)
        figures = outcomes.figures_at(exits, times.ms)
        row = CurveRow(
            threshold=threshold,
            hard_fraction=float((exits == len(outcomes.easiness)).mean()),
            mean_ms=figures.mean_ms,
            scores=figures.scores,
            by_chance=tuple(_primary(scores.at(shuffled(exits, s))) for s in range(seeds)),
            oracle=_primary(scores.at(oracle_exits(exits, gains))),
        )
        rows.append(row)
        progress()
    return rows


def shuffled(exits: Int64Array, seed: int) -> Int64Array:
    """The same exits for other pictures, at random: as many leave at each."""
    return np.random.default_rng(seed).permutation(exits)


def oracle_exits(exits: Int64Array, gains: Float64Array) -> Int64Array:
    """The same exits, the later ones for the pictures that gain most; of equal ones, the first.

    Gains need the truth, so an oracle may use them and a router cannot. It is not the best choice
    there is, since a precision over all pictures is no sum over them.
    """
    chosen = np.empty_like(exits)
    chosen[np.argsort(-gains, kind="stable")] = np.sort(exits)[::-1]
    return chosen


def routing_quality(
    rows: Sequence[CurveRow], last_exit_alone_ms: float, error_ms: float
) -> RoutingQuality:
    """Means over the rows between all easy and all hard; at least three, by rising threshold.

    ``error_ms`` is by how much the milliseconds may be off.
    """
    between = rows[1:-1]
    router = np.array([row.score for row in between])
    oracle = np.array([row.oracle for row in between])
    by_seed = np.array([row.by_chance for row in between])
    over_random = router.mean() - by_seed.mean(axis=0)
    possible = float(oracle.mean() - by_seed.mean())
    low, middle, high = (
        break_even(rows, last_exit_alone_ms + off) for off in (-error_ms, 0.0, error_ms)
    )
    return RoutingQuality(
        over_random=MeanStd.of(over_random),
        below_oracle=float(oracle.mean() - router.mean()),
        share_of_oracle=float(over_random.mean()) / possible if possible > 0 else None,
        break_even=middle,
        break_even_interval=(low, high),
    )


def break_even(rows: Sequence[CurveRow], last_exit_alone_ms: float) -> float:
    """The hard fraction up to which an image takes less time than the last exit's network alone.

    With two exits of t0 and t1 milliseconds, (t - t0) / (t1 - t0) for a detector of t, within
    [0, 1]; between the rows of more exits it is interpolated.
    """
    spent = [row.mean_ms for row in rows]
    if last_exit_alone_ms >= max(spent):
        return 1.0
    if last_exit_alone_ms <= spent[0]:
        return 0.0
    return float(np.interp(last_exit_alone_ms, spent, [row.hard_fraction for row in rows]))


def _primary(scores: Scores) -> float:
    return scores.primary or 0.0
