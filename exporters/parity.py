"""What a verification measures, and when it passes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer import __version__
from dyninfer.bundle.manifest import Manifest
from dyninfer.routing.policy import DEFAULT_THRESHOLD, route
from dyninfer.types import Float32Array

Place = tuple[str, str]
"""(stage or route, tensor)"""


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may be from its source.

    Boxes, easiness and class scores have absolute bounds, features one relative to their largest
    value. Where a bound is missed, an error is still no fault of the export if the source's own
    float32 rounding is as large: up to ``rounding_factor`` times the difference between the source
    in float32 and in float64 is accepted then. (A logit's rounding error becomes pixels through
    anchors of hundreds of pixels.)
    """

    boxes_px: float = 1e-3
    easiness: float = 1e-5
    class_scores: float = 1e-4
    features_relative: float = 1e-4
    rounding_factor: float = 5.0

    def bound(self, tensor: str, largest: float) -> float:
        """Largest error that passes for a tensor of this name and largest value."""
        bounds = {
            "boxes_xyxy": self.boxes_px,
            "easiness": self.easiness,
            "class_scores": self.class_scores,
        }
        return bounds.get(tensor, self.features_relative * largest)


@dataclass(frozen=True)
class Check:
    """One tensor of one stage, or of one route, over all samples.

    ``max_rel`` is the largest error divided by the largest value of the source's tensor.
    ``rounding`` is the source's own float32 rounding error, where it had to be measured.
    """

    where: str
    tensor: str
    max_abs: float
    max_rel: float
    rounding: float | None
    passed: bool


@dataclass(frozen=True)
class Flips:
    """Route decisions: how many of (threshold, image) pairs fall on the other side."""

    decisions: int
    flips: int

    @property
    def share(self) -> float:
        """Share of decisions that differ from the source's."""
        return self.flips / self.decisions if self.decisions else 0.0


@dataclass(frozen=True)
class Parity:
    """The outcome of a verification.

    ``not_compared`` are the stages that the source model does not have.
    """

    checks: tuple[Check, ...]
    flips: Flips
    photos: int
    random_tensors: int
    backend: str
    device: str
    tolerance: Tolerance
    not_compared: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every tensor is within its tolerance."""
        return all(check.passed for check in self.checks)

    def to_dict(self, manifest: Manifest) -> dict[str, Any]:
        """What ``parity.json`` holds."""
        return {
            "written_by": f"dyninfer {__version__}",
            "passed": self.passed,
            "source_sha256": manifest.source.sha256,
            "stages_sha256": {name: stage.sha256 for name, stage in manifest.stages.items()},
            "backend": self.backend,
            "device": self.device,
            "photos": self.photos,
            "random_tensors": self.random_tensors,
            "tolerance": asdict(self.tolerance),
            "not_compared": list(self.not_compared),
            "checks": [asdict(check) for check in self.checks],
            "decisions": self.flips.decisions,
            "flips": self.flips.flips,
            "flip_share": self.flips.share,
        }


class Errors:
    """Largest error and largest value of every tensor, over all samples."""

    def __init__(self) -> None:
        self._largest: dict[Place, tuple[float, float]] = {}

    def add(
        self, where: str, tensor: str, found: npt.NDArray[Any], source: npt.NDArray[Any]
    ) -> None:
        """Compare two arrays of the same shape; a NaN is an infinite error."""
        error = np.abs(found.astype(np.float64) - source.astype(np.float64))
        old_error, old_value = self._largest.get((where, tensor), (0.0, 0.0))
        self._largest[where, tensor] = (
            float(max(old_error, np.where(np.isnan(error), np.inf, error).max())),
            max(old_value, float(np.nanmax(np.abs(source)))),
        )

    def largest(self, place: Place) -> float:
        """Largest error at a place."""
        return self._largest[place][0]

    def checks(self, tolerance: Tolerance, rounding: Errors | None = None) -> tuple[Check, ...]:
        """Every place with its verdict; ``rounding`` holds the source's own rounding errors."""
        return tuple(
            self._check(place, tolerance, None if rounding is None else rounding.largest(place))
            for place in self._largest
        )

    def _check(self, place: Place, tolerance: Tolerance, rounding: float | None) -> Check:
        (where, tensor), (error, value) = place, self._largest[place]
        passed = error <= max(
            tolerance.bound(tensor, value), tolerance.rounding_factor * (rounding or 0.0)
        )
        return Check(where, tensor, error, error / value if value else error, rounding, passed)


def count_flips(expected: Float32Array, found: Float32Array) -> Flips:
    """Decisions that differ, at the default threshold and between all neighbouring values.

    Args:
        expected: (N,) easiness of the source.
        found: (N,) easiness of the engines, in the same order.
    """
    if not len(expected):
        return Flips(0, 0)
    ordered = np.unique(expected)
    thresholds = [DEFAULT_THRESHOLD, *((ordered[1:] + ordered[:-1]) / 2)]
    flips = sum(int((route(expected, t) != route(found, t)).sum()) for t in thresholds)
    return Flips(len(thresholds) * len(expected), flips)
