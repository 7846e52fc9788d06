"""Average precision against milliseconds as the threshold moves, and what the router is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.choices import Spread
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.evaluate import objects_of
from dyninfer.evaluation.exit_times import ExitTimes, last_exit_alone_ms
from dyninfer.evaluation.outcomes import Outcomes
from dyninfer.evaluation.routed_precision import PictureMatches, Precision, RoutedPrecision
from dyninfer.routing.thresholds import (
    SEND_ALL,
    SEND_NONE,
    exit_shares_at,
    exits_at,
    mean_ms,
    percentile_thresholds,
)
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
        ap, ap50: COCO average precision in [0, 1] as the router chooses.
        random_ap: as chance chooses, one value for each seed.
        oracle_ap: as the oracle of :func:`oracle_exits` chooses.
    """

    threshold: float
    hard_fraction: float
    mean_ms: float
    ap: float
    ap50: float
    random_ap: tuple[float, ...]
    oracle_ap: float

    @property
    def random(self) -> Spread:
        """Mean and standard deviation over the seeds."""
        return Spread.of(self.random_ap)


@dataclass(frozen=True)
class RoutingQuality:
    """What the router is worth, over the hard fractions between none and all.

    Attributes:
        over_random: mean AP of the router less that of chance; the spread is over the seeds of
            chance.
        below_oracle: mean AP of the oracle less that of the router.
        share_of_oracle: the router's gain over chance as a share of the oracle's; None where the
            oracle gains nothing.
        break_even: hard fraction up to which the cascade is, on average, faster than the last
            exit's detector alone; 1 where it always is, 0 where it never is.
    """

    over_random: Spread
    below_oracle: float
    share_of_oracle: float | None
    break_even: float


@dataclass(frozen=True)
class CurveResult:
    """The curve of a cascade on labelled pictures.

    Attributes:
        exits: precision of every exit when all pictures leave there.
        exit_ms: mean milliseconds of an image that leaves at each exit.
        last_exit_alone_ms: where the last exit's detector runs alone, without routers and heads
            of earlier exits.
        rows: by rising threshold, from all easy to all hard.
        quality: of the routing.
        seeds: random choices for each row.
        samples: the pictures that could be read, and warnings about the others.
    """

    exits: tuple[Precision, ...]
    exit_ms: tuple[float, ...]
    last_exit_alone_ms: float
    rows: tuple[CurveRow, ...]
    quality: RoutingQuality
    seeds: int
    samples: Samples


def evaluate_curve(
    manifest: Manifest,
    outcomes: Outcomes,
    times: ExitTimes,
    seeds: int = SEEDS,
    progress: Callable[[], None] = lambda: None,
) -> CurveResult:
    """Everything about the curve, from pictures with their truth that ran through every exit.

    Args:
        manifest: of a cascade with routers.
        outcomes: of :func:`dyninfer.evaluation.outcomes.run_samples`.
        times: of every exit.
        seeds: random choices for each threshold.
        progress: called after each of the :data:`ROWS` rows.

    Raises:
        InputError: there is nothing to find in any picture.
    """
    objects_of(outcomes.samples)
    precision = RoutedPrecision(outcomes.matches or ())
    count = len(outcomes.samples.items)
    alone_ms = last_exit_alone_ms(times, manifest)
    rows = curve_rows(precision, outcomes, times, seeds, progress)
    return CurveResult(
        exits=tuple(precision.at(np.full(count, index)) for index in range(len(manifest.ways))),
        exit_ms=tuple(float(np.mean(samples)) for samples in times.exit_ms),
        last_exit_alone_ms=alone_ms,
        rows=tuple(rows),
        quality=routing_quality(rows, alone_ms),
        seeds=seeds,
        samples=outcomes.samples,
    )


def curve_rows(
    precision: RoutedPrecision,
    outcomes: Outcomes,
    times: ExitTimes,
    seeds: int,
    progress: Callable[[], None],
) -> list[CurveRow]:
    """All easy, thresholds at percentiles of the easiness of these pictures, all hard."""
    gains = picture_gains(outcomes.matches or ())
    thresholds = percentile_thresholds(outcomes.easiness, PERCENTILES)
    rows = []
    for threshold in (SEND_NONE, *map(float, thresholds), SEND_ALL):
        exits = exits_at(outcomes.easiness, threshold)
        found = precision.at(exits)
        chance = [_ap(precision.at(shuffled(exits, seed))) for seed in range(seeds)]
        row = CurveRow(
            threshold=threshold,
            hard_fraction=float((exits == len(outcomes.easiness)).mean()),
            mean_ms=mean_ms(exit_shares_at(outcomes.easiness, threshold), times.exit_ms),
            ap=_ap(found),
            ap50=found.ap50 or 0.0,
            random_ap=tuple(chance),
            oracle_ap=_ap(precision.at(oracle_exits(exits, gains))),
        )
        rows.append(row)
        progress()
    return rows


def shuffled(exits: Int64Array, seed: int) -> Int64Array:
    """The same exits for other pictures, at random: as many leave at each."""
    return np.random.default_rng(seed).permutation(exits)


def oracle_exits(exits: Int64Array, gains: Float64Array) -> Int64Array:
    """The same exits, the later ones for the pictures that gain most; of equal ones, the first."""
    chosen = np.empty_like(exits)
    chosen[np.argsort(-gains, kind="stable")] = np.sort(exits)[::-1]
    return chosen


def picture_gains(pictures: Sequence[PictureMatches]) -> Float64Array:
    """(N,) AP of each picture on its own at the last exit, less that at the first.

    It needs the truth, so an oracle may use it and a router cannot. It is not the best choice
    there is, since precision over all pictures is no sum over them.
    """
    return np.array(
        [
            _ap(RoutedPrecision([picture]).at([len(picture.exits) - 1]))
            - _ap(RoutedPrecision([picture]).at([0]))
            for picture in pictures
        ]
    )


def routing_quality(rows: Sequence[CurveRow], last_exit_alone_ms: float) -> RoutingQuality:
    """Means over the rows between all easy and all hard.

    Args:
        rows: of :func:`curve_rows`, by rising threshold; at least three.
        last_exit_alone_ms: milliseconds of an image where the last exit's detector runs alone.
    """
    between = rows[1:-1]
    router = np.array([row.ap for row in between])
    oracle = np.array([row.oracle_ap for row in between])
    by_seed = np.array([row.random_ap for row in between])
    over_random = router.mean() - by_seed.mean(axis=0)
    possible = float(oracle.mean() - by_seed.mean())
    return RoutingQuality(
        over_random=Spread.of(over_random.tolist()),
        below_oracle=float(oracle.mean() - router.mean()),
        share_of_oracle=float(over_random.mean()) / possible if possible > 0 else None,
        break_even=break_even(rows, last_exit_alone_ms),
    )


def break_even(rows: Sequence[CurveRow], last_exit_alone_ms: float) -> float:
    """The hard fraction up to which an image takes less time than the last exit's detector alone.

    With two exits of t0 and t1 milliseconds, (t - t0) / (t1 - t0) for a detector of t, within
    [0, 1]; between the rows of more exits it is interpolated.
    """
    spent = [row.mean_ms for row in rows]
    if last_exit_alone_ms >= max(spent):
        return 1.0
    if last_exit_alone_ms <= spent[0]:
        return 0.0
    return float(np.interp(last_exit_alone_ms, spent, [row.hard_fraction for row in rows]))


def _ap(precision: Precision) -> float:
    return precision.ap or 0.0
