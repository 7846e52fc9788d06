from __future__ import annotations

import numpy as np

from dyninfer.bundle.calibration import (
    BiasRow,
    Calibration,
    CalibrationRow,
    Certificate,
    EngineRecord,
    ImageSet,
    WayFigures,
)
from dyninfer.results.scores import Scores
from dyninfer.routing.cost_bias import bias_steps
from dyninfer.routing.thresholds import (
    exit_shares_at,
    hard_fraction_at,
    mean_ms,
    percentile_thresholds,
)

EXIT_MS = ((9.0, 10.0, 11.0), (19.0, 20.0, 21.0))
RECORD = EngineRecord(
    stages_sha256={"body": "a", "head": "b"},
    precision={"body": "fp32", "head": "fp32"},
    image_inputs={"images": "640x640"},
    backend="onnxruntime",
    backend_version="1.0",
    provider="cpu",
    device_name="a processor, 2 cores",
)


def spread(count: int = 200, seed: int = 0) -> np.ndarray:
    """(1, count) different easiness values, as float32 has them."""
    values = np.random.default_rng(seed).permutation(np.linspace(0.02, 0.98, count))
    return values.astype(np.float32).astype(np.float64)[None]


def certificate_at(easiness: np.ndarray, threshold: float) -> Certificate:
    return Certificate(
        risk=0.05,
        confidence=0.9,
        threshold=threshold,
        hard_fraction=hard_fraction_at(easiness, threshold),
        measured_risk=0.01,
        method="none",
    )


def calibration_of(
    easiness: np.ndarray,
    exit_ms: tuple[tuple[float, ...], ...] = EXIT_MS,
    certified: float | None = None,
    precision: tuple[float, ...] = (),
    last_exit_ap: float | None = None,
) -> Calibration:
    """A calibration of (routers, N) easiness; ``precision`` is the AP of evenly spread rows."""
    percentiles = np.linspace(0, 100, len(precision) or 3)
    thresholds = percentile_thresholds(easiness, percentiles)
    rows = tuple(
        CalibrationRow(
            percentile=float(percentile),
            threshold=float(threshold),
            hard_fraction=hard_fraction_at(easiness, threshold),
            mean_ms=mean_ms(exit_shares_at(easiness, threshold), exit_ms),
            scores=Scores(precision[index] if precision else None),
            agreement=0.5,
        )
        for index, (percentile, threshold) in enumerate(zip(percentiles, thresholds, strict=True))
    )
    return Calibration(
        written_by="a test",
        engine=RECORD,
        images=ImageSet(count=easiness.shape[1], sha256="c"),
        easiness=tuple(
            tuple(None if np.isnan(value) else float(value) for value in row) for row in easiness
        ),
        losses=tuple((0.1,) * easiness.shape[1] for _ in easiness),
        exit_ms=exit_ms,
        metrics=("AP", "AP50"),
        ways=tuple(
            WayFigures(
                share=1 / len(exit_ms),
                mean_ms=float(np.mean(spent)),
                scores=Scores(last_exit_ap if spent is exit_ms[-1] else None),
                agreement=0.5,
            )
            for spent in exit_ms
        ),
        rows=rows,
        certificate=None if certified is None else certificate_at(easiness, certified),
    )


def choosing(
    scores: np.ndarray,
    macs: tuple[int, ...],
    way_ms: tuple[tuple[float, ...], ...],
    precision: tuple[float, ...] = (),
) -> Calibration:
    """A calibration of a chooser's (N, branches) scores, with a row for every step.

    ``precision`` is the AP of each branch; a row has the mean of those that its images take.
    """
    steps = bias_steps(scores, macs)

    def figures(shares: np.ndarray) -> dict:
        return {
            "mean_ms": mean_ms(shares, way_ms),
            "mean_macs": float(shares @ np.array(macs)),
            "scores": Scores(float(shares @ np.array(precision)) if precision else None),
            "agreement": 0.5,
        }

    rows = [
        BiasRow(bias=steps.bias(step), shares=tuple(shares), **figures(shares))
        for step, shares in enumerate(steps.shares)
    ]
    count, branches = scores.shape
    return Calibration(
        written_by="a test",
        engine=RECORD,
        images=ImageSet(count=count, sha256="c"),
        metrics=("AP", "AP50"),
        ways=tuple(
            WayFigures(share=share, **figures(np.eye(branches)[way]))
            for way, share in enumerate(steps.shares[steps.chosen])
        ),
        easiness=(),
        choice_scores=tuple(
            tuple(None if np.isnan(v) else float(v) for v in column) for column in scores.T
        ),
        losses=((0.1,) * count,) * (branches - 1),
        exit_ms=way_ms,
        rows=(),
        biases=tuple(rows),
    )
