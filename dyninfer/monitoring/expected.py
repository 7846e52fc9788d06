"""What a policy is expected to do, from images on which easiness and losses are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.calibration import Calibration, Certificate
from dyninfer.errors import InputError
from dyninfer.monitoring.drift import bin_counts, bin_edges, mean_bounds, on_grid
from dyninfer.plain_text import counted
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, LeaveAt, Policy, Threshold
from dyninfer.routing.thresholds import exits_at, exits_under
from dyninfer.types import Float64Array, Int64Array

RISK_MARGIN = 0.01
"""By how much the risk may exceed what the calibration shows before it is an alarm."""
_LEVEL = 0.05
_FORETOLD = (Threshold, LeaveAt, AlwaysEasy, AlwaysHard)
"""Policies that may be asked about a reference's images: others may learn from being asked."""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What one policy does on a reference's images.

    Attributes:
        reported: (N,) the easiness that a detector would report for each, NaN included: that from
            the last router that sees it.
        nan_share: share whose reported easiness is NaN.
        hard_share: share that reaches the last exit, in [0, 1]; None where unknown.
        easy_loss: mean loss of the images that leave before, in [0, 1]; None where unknown.
        risk_limit: the risk above which something has changed; None where unknown.
    """

    reported: Float64Array
    nan_share: float
    hard_share: float | None = None
    easy_loss: float | None = None
    risk_limit: float | None = None

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.reported)

    @cached_property
    def easiness(self) -> Float64Array:
        """(M,) rising, without NaN, on the grid of :func:`dyninfer.monitoring.drift.on_grid`."""
        return np.sort(on_grid(self.reported[~np.isnan(self.reported)]))

    @cached_property
    def edges(self) -> Float64Array:
        """(9,) inner edges of the bins of :attr:`counts`."""
        return bin_edges(self.easiness)

    @cached_property
    def counts(self) -> Float64Array:
        """(10,) images in each bin of easiness."""
        return bin_counts(self.easiness, self.edges)

    @property
    def histogram(self) -> tuple[float, ...]:
        """Share of the images in each bin; all 0 where no easiness is known."""
        return tuple((self.counts / max(self.counts.sum(), 1)).tolist())


@dataclass(frozen=True, eq=False)
class Reference:
    """Images of the kind that the threshold was chosen for; ``source`` says where they came from.

    ``easiness`` and ``losses`` are (routers, N); a loss is that at an exit against the last.
    """

    source: str
    easiness: Float64Array
    losses: Float64Array | None = None
    certificate: Certificate | None = None

    @classmethod
    def of_calibration(cls, calibration: Calibration) -> Reference:
        """The images that a bundle was calibrated on."""
        return cls(
            f"calibration on {counted(calibration.images.count, 'image')}",
            calibration.easiness_array,
            calibration.losses_array,
            calibration.certificate,
        )

    @classmethod
    def of_easiness(cls, easiness: npt.ArrayLike, routers: int) -> Reference:
        """Easiness alone, (N,) for one router or (routers, N).

        Raises:
            InputError: another shape, or not one number.
        """
        array = np.asarray(easiness)
        if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
            raise InputError(
                f"a baseline is {array.dtype} {array.shape}, expected easiness as ({routers}, N) "
                "numbers, or a Calibration"
            )
        rows = np.atleast_2d(array.astype(np.float64))
        if len(rows) != routers or np.isinf(rows).any() or np.isnan(rows).all(axis=1).any():
            raise InputError(
                f"a baseline is {array.shape}, expected ({routers}, N) finite easiness: one row "
                "for every exit but the last, with at least one number in each"
            )
        return cls(f"easiness given of {counted(rows.shape[1], 'image')}", rows)

    def under(self, policy: Policy) -> Outlook:
        """What a policy does on these images.

        Of a policy that follows the stream, such as online control, it is not known which images
        it would send on: the shares are left open, and the risk is limited by what it would be if
        every image left where its loss is largest.
        """
        if not isinstance(policy, _FORETOLD):
            return self._open_outlook()
        leaving = exits_under(self.easiness, policy)
        seen_last = np.minimum(leaving, len(self.easiness) - 1)  # the router that reports
        reported = self.easiness[seen_last, np.arange(len(leaving))]
        easy_loss, limit = self._losses_at(leaving)
        certificate = self.certificate
        if certificate and (leaving >= exits_at(self.easiness, certificate.threshold)).all():
            limit = certificate.risk  # every image goes on that the certified threshold sends on
        hard_share = float((leaving == len(self.easiness)).mean())
        return Outlook(reported, float(np.isnan(reported).mean()), hard_share, easy_loss, limit)

    def _open_outlook(self) -> Outlook:
        single = len(self.easiness) == 1  # otherwise the router that reports is not known
        reported = self.easiness[0] if single else np.full(self.easiness.shape[1], np.nan)
        nan_share = float(np.isnan(self.easiness).any(axis=0).mean())
        limit = None if self.losses is None else _risk_limit(self.losses.max(axis=0))
        return Outlook(reported, nan_share, risk_limit=limit)

    def _losses_at(self, leaving: Int64Array) -> tuple[float | None, float | None]:
        """Mean loss of the images that leave early, and the limit of everybody's risk."""
        if self.losses is None:
            return None, None
        early = np.flatnonzero(leaving < len(self.losses))
        losses = np.zeros(len(leaving))
        losses[early] = self.losses[leaving[early], early]
        return float(losses[early].mean()) if len(early) else 0.0, _risk_limit(losses)


def _risk_limit(losses: Float64Array) -> float:
    """From the loss of every image (N,): the upper bound of its expectation, and a margin."""
    return mean_bounds(float(losses.mean()), len(losses), _LEVEL)[1] + RISK_MARGIN
