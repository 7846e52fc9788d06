"""From a cascade and pictures to a router that was shown to be worth something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dyninfer import __version__
from dyninfer.bundle.manifest import Manifest, SelectRoute, Task
from dyninfer.errors import InputError, RouterError
from dyninfer.evaluation.dataset import Samples
from dyninfer.evaluation.outcomes import pictures_to_time
from dyninfer.evaluation.routed_precision import RoutedPrecision
from dyninfer.evaluation.router_quality import (
    EXISTING,
    MAXIMUM_CONFIDENCE,
    RANDOM,
    SHARES,
    Metric,
    RouterComparison,
    compare,
)
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.learning import ExitData
from dyninfer.exporters.router.model import (
    DetectionStatistics,
    FittedRouter,
    LinearGain,
    MaximumConfidence,
    PooledFeatures,
    confidence_reader,
)
from dyninfer.exporters.router.observe import (
    USUAL_PICTURES,
    Observations,
    observe,
    usual_confidence,
)
from dyninfer.plain_text import counted
from dyninfer.results.postprocess import EVALUATION, Postprocess
from dyninfer.results.scores import Scores
from dyninfer.runtime.detector import Detector
from dyninfer.types import BoolArray, Float64Array

_MOST_NAMED = 32
_KINDS = {
    PooledFeatures: "pooled",
    DetectionStatistics: "detections",
    MaximumConfidence: MAXIMUM_CONFIDENCE,
}


@dataclass(frozen=True)
class FitOptions:
    """How routers are fitted.

    ``augment`` further views are made of every picture. The pictures are split ``seeds`` times into
    ``folds`` parts; each part is judged by the others, by ``metric``. Without labels, detections of
    the last exit above ``found_confidence`` are the objects; None takes what is usual of the
    detector, see :func:`dyninfer.exporters.router.observe.usual_confidence`. ``hard_share`` of the
    pictures have an easiness below 0.5, where images go on unless told otherwise.
    """

    features: FeatureKind = FeatureKind.AUTO
    augment: int = 12
    folds: int = 5
    seeds: int = 20
    postprocess: Postprocess = EVALUATION
    metric: Metric = Metric.AP
    found_confidence: float | None = None
    hard_share: float = 0.5

    def runs(self, samples: Samples) -> int:
        """How often progress is told of."""
        views = len(samples.items) * (1 + self.augment)
        asked = samples.labelled or self.found_confidence is not None
        return views if asked else views + len(pictures_to_time(samples, USUAL_PICTURES))


@dataclass(frozen=True)
class ExitFit:
    """The router of one exit, and what it is worth on pictures it has not seen."""

    exit_index: int
    router: FittedRouter
    comparison: RouterComparison
    easiness: Float64Array

    def to_dict(self) -> dict[str, Any]:
        """Plain Python values, ready for JSON."""
        names = self.router.features.names
        levels = (5, 25, 50, 75, 95)
        record: dict[str, Any] = {
            "exit": self.exit_index,
            "features": _KINDS[type(self.router.features)],
            "inputs": [str(spec) for spec in self.router.inputs],
            "feature_count": len(names),
            "easiness_percentiles": {
                str(level): float(np.percentile(self.easiness, level)) for level in levels
            },
            "comparison": self.comparison.to_dict(),
        }
        if len(names) <= _MOST_NAMED:  # of 2,880 averages no weight says anything
            weights = self.router.linear.weight[0].tolist()
            record["weights"] = dict(zip(names, weights, strict=True))
        return record


@dataclass(frozen=True)
class RouterFit:
    """Routers for all exits but the last, and how they were fitted."""

    exits: tuple[ExitFit, ...]
    record: dict[str, Any]


def fit_routers(
    detector: Detector,
    samples: Samples,
    options: FitOptions = FitOptions(),
    progress: Callable[[], None] = lambda: None,
) -> RouterFit:
    """Fit a router for every exit but the last, each against the last exit.

    Neither the opened cascade nor its bundle is changed. Where ``samples`` have no truth, the last
    exit's detections stand in for it, and precision means agreement with that exit. ``progress`` is
    called :meth:`FitOptions.runs` times.

    Raises:
        InputError: the bundle is no cascade of detectors, or there are too few pictures.
        RouterError: there is nothing to learn.
    """
    check_fittable(detector)
    if isinstance(detector.manifest.route, SelectRoute):
        raise InputError(
            f"{detector.manifest.name} chooses among {len(detector.manifest.ways)} branches; "
            "fit_chooser fits what chooses there"
        )
    check_count(len(samples.items), options.folds)
    kind, augment, found = options.features, options.augment, options.found_confidence
    if not samples.labelled and found is None:
        found = usual_confidence(detector, samples, options.postprocess, progress)
    seen = observe(detector, samples.items, kind, augment, options.postprocess, found, progress)
    originals = [m for m, own in zip(seen.matches, seen.original, strict=True) if own]
    if not any(len(picture.object_classes) for picture in originals):
        by = f" by the last exit with a confidence above {found:.3g}" if not seen.labelled else ""
        raise RouterError(
            f"there is nothing to find in any picture ({len(originals)}){by}; give pictures "
            "that show what the detector knows"
            + ("" if seen.labelled else ", or another found_confidence (--found-confidence)")
        )
    precision = RoutedPrecision(originals)
    fits = tuple(
        _fit_exit(seen, index, detector.manifest, precision, options)
        for index in range(len(seen.readers))
    )
    return RouterFit(fits, _record(fits, samples, options, None if seen.labelled else found))


def refuse_useless(fit: RouterFit) -> None:
    """Raise RouterError, with the figures, unless every router beats random choice."""
    for entry in fit.exits:
        comparison, metric = entry.comparison, entry.comparison.metric
        if not comparison.beats_random:
            figures = ", ".join(
                f"{100 * comparison.row(comparison.winner, share).of(metric).mean:.1f} at "
                f"{share:.0%} hard "
                f"(random {100 * comparison.row(RANDOM, share).of(metric).mean:.1f})"
                for share in SHARES
            )
            raise RouterError(
                f"the router of exit {entry.exit_index} is no better than random choice on "
                f"pictures it has not seen: {metric.label} {figures}; nothing was written; give "
                "more pictures, annotations (--annotations), or other features (--features)"
            )


def check_fittable(detector: Detector) -> None:
    """Refuse a bundle in which nothing decides, or that has no detections to judge by.

    Raises:
        InputError: it has one way, or no detectors.
    """
    manifest = detector.manifest
    if len(manifest.ways) < 2:
        raise InputError(
            f"{manifest.name} has a single exit, so there is nothing to route; "
            "expected a cascade, such as dyninfer export cascade writes"
        )
    if manifest.task is not Task.DETECT:
        raise InputError(f"{manifest.name} classifies; routers are fitted to detectors only")


def check_count(pictures: int, folds: int) -> None:
    """Refuse too few pictures for the folds."""
    if pictures < 2 * folds:
        raise InputError(
            f"{counted(pictures, 'picture')} given, expected at least {2 * folds}: two for each of "
            f"{folds} folds; give more (50 are few), or fewer folds (--folds)"
        )


def _fit_exit(
    seen: Observations,
    exit_index: int,
    manifest: Manifest,
    precision: RoutedPrecision,
    options: FitOptions,
) -> ExitFit:
    data = ExitData(seen, exit_index, len(manifest.class_names))
    held_out = [data.out_of_fold(options.folds, seed) for seed in range(options.seeds)]
    losses, best = data.losses()[seen.original], seen.best[exit_index][seen.original]
    others = {MAXIMUM_CONFIDENCE: best, "oracle": losses[:, 1] - losses[:, 0]}
    existing = seen.easiness[exit_index][seen.original]
    if not np.isnan(existing).all():
        others[EXISTING] = np.nan_to_num(existing, nan=-1.0)
    last = len(seen.matches[0].exits) - 1

    def precision_of(hard: BoolArray) -> Scores:
        return precision.at(np.where(hard, last, exit_index))

    by_hand = confidence_reader(manifest, exit_index)
    easiness_of_seeds = [-gain for gain in held_out]
    comparison = compare(
        precision_of, easiness_of_seeds, others, options.metric, by_hand=by_hand is not None
    )
    reader, features, gain = seen.readers[exit_index], seen.features[exit_index], data.fit()
    if by_hand is not None and comparison.winner == MAXIMUM_CONFIDENCE:
        reader, features = by_hand, seen.best[exit_index][:, None]
        gain = LinearGain(np.array([-1.0]), 0.0)
    gain = _spread_out(gain, features[seen.original], options.hard_share)
    router = FittedRouter(reader, features.mean(axis=0), gain)
    easiness = 1 / (1 + np.exp(gain(features[seen.original])))
    return ExitFit(exit_index, router, comparison, easiness)


def _spread_out(gain: LinearGain, features: Float64Array, hard_share: float) -> LinearGain:
    """The same order, with this share below an easiness of 0.5 and about unit spread of gains."""
    estimates = gain(features)
    spread = float(estimates.std())
    if spread < 1e-9:
        raise RouterError(
            "router collapsed: always the same exit; it gives every picture the same value: give "
            "pictures that differ"
        )
    shifted = gain.bias - float(np.quantile(estimates, 1 - hard_share))
    return LinearGain(gain.weights / spread, shifted / spread)


def _record(
    fits: Sequence[ExitFit], samples: Samples, options: FitOptions, found: float | None
) -> dict[str, Any]:
    """``found`` is the confidence above which the last exit is believed, without labels."""
    return fit_record(samples, options, found) | {
        "loss": "DynamicDet's router loss of each image's influence on AP50",
        "exits": [fit.to_dict() for fit in fits],
    }


def fit_record(samples: Samples, options: FitOptions, found: float | None) -> dict[str, Any]:
    """On what something was fitted, and how; ``found`` as in :class:`FitOptions`."""
    return {
        "schema_version": 1,
        "written_by": f"dyninfer {__version__}",
        "images": len(samples.items),
        "images_sha256": samples.sha256(),
        "labels_sha256": samples.labels_sha256,
        "truth": "annotations" if found is None else "agreement with the last exit",
        "found_confidence": found,
        "augment": options.augment,
        "folds": options.folds,
        "seeds": options.seeds,
        "postprocess": asdict(options.postprocess),
    }
