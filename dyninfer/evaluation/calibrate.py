"""What ``dyninfer calibrate`` measures: easiness, agreement, precision and times of every exit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import dyninfer
from dyninfer.bundle.calibration import Calibration, Certificate, ImageSet, Row
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.errors import PolicyError
from dyninfer.evaluation.exit_times import ExitTimes
from dyninfer.evaluation.outcomes import SENSIBLE_IMAGES, Outcomes, refuse_few
from dyninfer.evaluation.routed_precision import Precision, RoutedPrecision
from dyninfer.routing.thresholds import (
    exit_shares_at,
    exits_at,
    mean_ms,
    percentile_thresholds,
    shared_easiness,
)
from dyninfer.runtime.detector import Detector
from dyninfer.types import Float64Array

PERCENTILES = tuple(range(101))
MANY_TIES = 0.05
"""A share of the images with one easiness, from which on the table's steps are uneven."""
FITTED_ON_THESE = (
    "the router was fitted on these very pictures, which flatters it: AP, agreement and any "
    "certificate promise too much for other pictures; give pictures that it has not seen"
)


def check_calibratable(manifest: Manifest, count: int) -> None:
    """Refuse what has no threshold to calibrate, or too few pictures.

    Raises:
        PolicyError: the bundle is static, has no router or does not detect.
        InputError: there are fewer than two pictures.
    """
    if len(manifest.ways) < 2:
        raise PolicyError(
            f"{manifest.name} has one exit, so there is no threshold to calibrate; "
            "calibrate a cascade (dyninfer eval measures a single detector)"
        )
    if not manifest.routed:
        raise PolicyError(
            f"{manifest.name} has no router, so there is no easiness to calibrate; "
            "train one with dyninfer fit-router"
        )
    if manifest.task is not Task.DETECT:
        raise PolicyError(f"{manifest.name} classifies; only detectors are calibrated")
    refuse_few(count)


def make_rows(
    outcomes: Outcomes,
    times: ExitTimes,
    precision: RoutedPrecision | None,
    progress: Callable[[], None],
) -> tuple[Row, ...]:
    """The table: one row for every whole percentile of the easiness."""
    thresholds = percentile_thresholds(outcomes.easiness, PERCENTILES)
    rows = []
    for percentile, threshold in zip(PERCENTILES, thresholds, strict=True):
        rows.append(_row(outcomes, times, precision, percentile, float(threshold)))
        progress()
    return tuple(rows)


def _row(
    outcomes: Outcomes,
    times: ExitTimes,
    precision: RoutedPrecision | None,
    percentile: int,
    threshold: float,
) -> Row:
    exits = exits_at(outcomes.easiness, threshold)
    shares = exit_shares_at(outcomes.easiness, threshold)
    # the last exit agrees with itself
    losses = np.vstack([outcomes.losses, np.zeros(len(exits))])[exits, np.arange(len(exits))]
    reached = None if precision is None else precision.at(exits)
    return Row(
        percentile=percentile,
        threshold=threshold,
        hard_fraction=float(shares[-1]),
        mean_ms=mean_ms(shares, times.exit_ms),
        ap=None if reached is None else reached.ap,
        ap50=None if reached is None else reached.ap50,
        agreement=float(1 - losses.mean()),
    )


def make_calibration(
    detector: Detector,
    outcomes: Outcomes,
    times: ExitTimes,
    certificate: Certificate | None,
    progress: Callable[[], None] = lambda: None,
) -> Calibration:
    """Everything that was measured, as ``calibration.json`` holds it.

    ``progress`` is called after every one of the :data:`PERCENTILES`.
    """
    samples = outcomes.samples
    precision = None if outcomes.matches is None else RoutedPrecision(outcomes.matches)
    last_exit = np.full(len(samples.items), len(outcomes.easiness))
    best = Precision(None, None) if precision is None else precision.at(last_exit)
    return Calibration(
        written_by=f"dyninfer {dyninfer.__version__}",
        engine=detector.engine_record(),
        images=ImageSet(
            count=len(samples.items), sha256=samples.sha256(), labels_sha256=samples.labels_sha256
        ),
        easiness=tuple(
            tuple(None if np.isnan(value) else float(value) for value in row)
            for row in outcomes.easiness
        ),
        losses=tuple(tuple(map(float, row)) for row in outcomes.losses),
        exit_ms=times.exit_ms,
        rows=make_rows(outcomes, times, precision, progress),
        certificate=certificate,
        last_exit_ap=best.ap,
        last_exit_ap50=best.ap50,
    )


def cautions(easiness: Float64Array) -> list[str]:
    """What a user should know about these pictures, one line each.

    Args:
        easiness: (routers, N), NaN where a router said so.
    """
    count = easiness.shape[1]
    found = []
    if count < SENSIBLE_IMAGES:
        found.append(
            f"{count} pictures make coarse percentiles, steps of {100 / count:.1f} %; "
            f"give {SENSIBLE_IMAGES} or more"
        )
    if broken := int(np.isnan(easiness).any(axis=0).sum()):
        found.append(f"the easiness of {broken} pictures is NaN; they count as hard")
    shared = shared_easiness(easiness)
    values, counts = np.unique(shared[shared >= 0], return_counts=True)  # below 0 stands for NaN
    if len(np.unique(shared)) == 1:
        found.append(
            "every picture has the same easiness, so a threshold can only send all or none on; "
            "HardFraction will be refused: look at the router"
        )
    elif counts.max(initial=0) > max(1, MANY_TIES * count):
        found.append(
            f"{counts.max()} of {count} pictures share one easiness ({values[counts.argmax()]:.4g})"
            "; no threshold can tell them apart"
        )
    return found


def remarks(bundle: Bundle, calibration: Calibration) -> list[str]:
    """What a user should know about a calibration, one line each."""
    found = cautions(calibration.easiness_array)
    if calibration.images.labels_sha256 is not None and calibration.last_exit_ap is None:
        found.append("the annotations have nothing to find in these pictures, so there is no AP")
    if was_fitted_on(bundle, calibration.images.sha256):
        found.append(FITTED_ON_THESE)
    return found


def was_fitted_on(bundle: Bundle, images_sha256: str) -> bool:
    """Whether the bundle's router was fitted on exactly these pictures.

    Args:
        bundle: whose ``router.json`` is read.
        images_sha256: :meth:`dyninfer.evaluation.dataset.Samples.sha256` of the pictures.
    """
    record = bundle.router_record()
    return record is not None and record.get("images_sha256") == images_sha256
