"""What ``dyninfer calibrate`` measures: easiness, agreement, scores and times of every way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import dyninfer
from dyninfer.bundle.calibration import (
    BiasRow,
    Calibration,
    CalibrationRow,
    Certificate,
    ImageSet,
    WayFigures,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import CascadeRoute, Manifest
from dyninfer.errors import PolicyError
from dyninfer.evaluation.outcomes import SENSIBLE_IMAGES, Outcomes, refuse_few
from dyninfer.evaluation.runs import WayTimes
from dyninfer.evaluation.scoring import SCORING
from dyninfer.evaluation.worth import collapsed, no_better
from dyninfer.plain_text import counted
from dyninfer.routing.cost_bias import CostBias, bias_steps
from dyninfer.routing.policy import DecisionPoint, default_policy
from dyninfer.routing.thresholds import exits_at, percentile_thresholds, replay, shared_easiness
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array

PERCENTILES = tuple(range(101))
BIASES = 11
"""Targets between the cost of the cheapest branch and that of the dearest."""
MANY_TIES = 0.05
"""A share of the images with one easiness, from which on the table's steps are uneven."""
FITTED_ON_THESE = (
    "the router was fitted on these very pictures, which flatters it: scores, agreement and any "
    "certificate promise too much for other pictures; give pictures that it has not seen"
)


def check_threshold(manifest: Manifest, what: str) -> None:
    """Refuse a bundle whose images no threshold divides; ``what`` is missing then.

    Raises:
        PolicyError: the route has no decision, or not by easiness.
    """
    if isinstance(manifest.route, CascadeRoute) and manifest.routed:
        return
    if len(manifest.ways) < 2:
        reason = "one exit"
    else:
        reason = "a chooser in place of an easiness" if manifest.routed else "no router"
    raise PolicyError(f"{manifest.name} has {reason}, so there is {what}")


def check_calibratable(manifest: Manifest, count: int) -> None:
    """Refuse a bundle that does not decide yet, or too few pictures.

    Raises:
        PolicyError: the bundle has several exits and no router.
        InputError: there are fewer than two pictures, or it is a backbone.
    """
    SCORING[manifest.task]  # which refuses tasks that are not scored
    if len(manifest.ways) > 1 and not manifest.routed:
        check_threshold(
            manifest, "no easiness to calibrate; train a router with dyninfer fit-router"
        )
    refuse_few(count)


def make_rows(
    outcomes: Outcomes, times: WayTimes, progress: Callable[[], None]
) -> tuple[CalibrationRow, ...]:
    """The table: one row for every whole percentile of the easiness; none without any."""
    if not len(outcomes.easiness):
        return ()
    rows = []
    for percentile, threshold in zip(
        PERCENTILES, percentile_thresholds(outcomes.easiness, PERCENTILES), strict=True
    ):
        exits = exits_at(outcomes.easiness, float(threshold))
        row = CalibrationRow(
            percentile=percentile,
            threshold=float(threshold),
            hard_fraction=float((exits == len(outcomes.easiness)).mean()),
            **dict(outcomes.figures_at(exits, times.ms)),
        )
        rows.append(row)
        progress()
    return tuple(rows)


def make_biases(
    outcomes: Outcomes, times: WayTimes, points: Sequence[DecisionPoint]
) -> tuple[BiasRow, ...]:
    """The table of a chooser's cost biases, by rising cost; none without a chooser.

    Means of multiply-accumulates stand evenly between those of the cheapest and of the dearest
    branch, each with the least bias that stays within it; the chooser's own choice is always there.
    """
    scores = outcomes.choice_scores
    if not scores.shape[1]:
        return ()
    steps = bias_steps(scores, outcomes.macs)
    spent = steps.shares @ np.array(outcomes.macs, np.float64)
    targets = np.linspace(spent[0], spent[-1], BIASES)
    wanted = {int(np.flatnonzero(spent <= target * (1 + 1e-12))[-1]) for target in targets}
    rows = []
    for step in sorted({*wanted, steps.chosen}):
        bias = steps.bias(step)
        ways = replay(points, [scores], CostBias(bias), len(scores))
        shares = np.bincount(ways, minlength=len(outcomes.macs)) / len(ways)
        figures = outcomes.figures_at(ways, times.ms)
        rows.append(BiasRow(bias=bias, shares=tuple(shares.tolist()), **dict(figures)))
    return tuple(rows)


def make_calibration(
    detector: Detector,
    outcomes: Outcomes,
    times: WayTimes,
    certificate: Certificate | None,
    progress: Callable[[], None] = lambda: None,
) -> Calibration:
    """Everything that was measured, as ``calibration.json`` holds it.

    ``progress`` is called after every one of the :data:`PERCENTILES`.
    """
    samples, task = outcomes.samples, detector.manifest.task.kind
    count = len(samples.items)
    return Calibration(
        written_by=f"dyninfer {dyninfer.__version__}",
        engine=detector.engine_record(),
        images=ImageSet(count=count, sha256=samples.sha256(), labels_sha256=samples.labels_sha256),
        metrics=task.metrics,
        policy=str(default_policy(detector.points)),
        ways=tuple(
            WayFigures(
                share=float((outcomes.taken == way).mean()),
                **dict(outcomes.figures_at(np.full(count, way), times.ms)),
            )
            for way in range(len(times.ms))
        ),
        routed=outcomes.figures_at(outcomes.taken, times.ms),
        easiness=tuple(
            tuple(None if np.isnan(value) else float(value) for value in row)
            for row in outcomes.easiness
        ),
        choice_scores=tuple(
            tuple(None if np.isnan(value) else float(value) for value in column)
            for column in np.nan_to_num(outcomes.choice_scores, nan=np.nan).T
        ),
        losses=tuple(tuple(map(float, row)) for row in outcomes.losses),
        exit_ms=times.ms,
        rows=make_rows(outcomes, times, progress),
        biases=make_biases(outcomes, times, detector.points),
        certificate=certificate,
    )


def cautions(easiness: Float64Array) -> list[str]:
    """What a user should know about these pictures by their easiness (routers, N), a line each."""
    if not len(easiness):
        return []
    count = easiness.shape[1]
    found = []
    if count < SENSIBLE_IMAGES:
        found.append(
            f"percentiles of {counted(count, 'picture')} are coarse, steps of {100 / count:.1f} %; "
            f"give {SENSIBLE_IMAGES} or more"
        )
    if broken := int(np.isnan(easiness).any(axis=0).sum()):
        found.append(f"an easiness of NaN counts as hard; {counted(broken, 'picture')} had it")
    shared = shared_easiness(easiness)
    values, counts = np.unique(shared[shared >= 0], return_counts=True)  # below 0 stands for NaN
    if told := collapsed(shared):
        found.append(told)
    elif counts.max() > max(1, MANY_TIES * count):
        found.append(
            f"{counts.max()} of {count} pictures share one easiness ({values[counts.argmax()]:.4g})"
            "; no threshold can tell them apart"
        )
    return found


def remarks(bundle: Bundle, calibration: Calibration) -> list[str]:
    """What a user should know about a calibration, one line each."""
    found = cautions(calibration.easiness_array)
    scores = [way.scores.primary for way in calibration.ways]
    count, manifest = calibration.images.count, bundle.manifest
    names = manifest.way_names
    if calibration.images.labels_sha256 is not None and scores[-1] is None:
        found.append(
            "the annotations list no objects in these pictures, so there is no "
            f"{calibration.metrics[0]}"
        )
    if told := no_better(calibration.metrics[0], scores, names, count, manifest):
        found.append(told)
    if told := _always_one_way(calibration, names):
        found.append(told)
    if was_fitted_on(bundle, calibration.images.sha256):
        found.append(FITTED_ON_THESE)
    return found


def _always_one_way(calibration: Calibration, names: Sequence[str]) -> str | None:
    """That the default policy sends every picture the same way, though it could do otherwise."""
    taken = [name for name, way in zip(names, calibration.ways, strict=True) if way.share == 1]
    if len(names) < 2 or not taken:
        return None
    if not calibration.easiness:
        return f"chooser collapsed: always the same branch, {taken[0]}"
    if collapsed(shared_easiness(calibration.easiness_array)):
        return None  # which is told already
    return f"by default ({calibration.policy}) every picture leaves at the same exit, {taken[0]}"


def was_fitted_on(bundle: Bundle, images_sha256: str) -> bool:
    """Whether ``router.json`` says that the router was fitted on exactly these pictures."""
    record = bundle.router_record()
    return record is not None and record.get("images_sha256") == images_sha256
