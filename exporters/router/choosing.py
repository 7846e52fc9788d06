"""A chooser for one detector at several sizes: fitted on losses, and shown to be worth something.

For every branch it estimates the loss of a picture there; the score is that loss, negated. A cost
bias (:class:`dyninfer.CostBias`) then trades loss against multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from onnx import ModelProto

from dyninfer.bundle.manifest import Manifest, SelectRoute
from dyninfer.errors import InputError, RouterError
from dyninfer.evaluation.choice_quality import ChoiceComparison, compare_choices
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.outcomes import picture_of
from dyninfer.evaluation.routed_precision import PictureMatches, RoutedPrecision, match_picture
from dyninfer.exporters.graphs import measured_macs, open_model
from dyninfer.exporters.router.fit import FitOptions, check_count, check_fittable, fit_record
from dyninfer.exporters.router.learning import DetectionPool, fit_losses
from dyninfer.exporters.router.observe import agreed_truth, usual_confidence, view_batches
from dyninfer.exporters.router.trunk import cut_trunk, with_scores
from dyninfer.results.answers import Detections
from dyninfer.runtime.detector import Detector
from dyninfer.types import BoolArray, Float32Array, Float64Array, Int64Array


@dataclass(frozen=True)
class ChooserFit:
    """A chooser, the image input that it reads, and what it is worth on unseen pictures."""

    model: ModelProto
    macs: int
    image_input: str
    comparison: ChoiceComparison
    record: dict[str, Any]


@dataclass(frozen=True)
class _Views:
    """All views: the picture of each (V,), whether it is that itself, features (V, F), matches."""

    photos: Int64Array
    original: BoolArray
    features: Float64Array
    matches: tuple[PictureMatches, ...]


def fit_chooser(
    detector: Detector,
    samples: Samples,
    options: FitOptions,
    progress: Callable[[], None] = lambda: None,
) -> ChooserFit:
    """Fit a chooser to the branches of a select route of detectors.

    Neither the opened bundle nor its files are changed. Where ``samples`` have no truth, what the
    dearest branch finds stands in for it. ``progress`` is called :meth:`FitOptions.runs` times.

    Raises:
        InputError: the branches are no detectors, or there are too few pictures.
        RouterError: there is nothing to learn, or nothing that a chooser could be made of.
    """
    manifest = detector.manifest
    check_fittable(detector)
    if not isinstance(manifest.route, SelectRoute):
        raise InputError(f"{manifest.name} has exits; fit_routers fits what decides there")
    check_count(len(samples.items), options.folds)
    cheapest = manifest.ways[manifest.ways_by_cost[0]]
    with detector.bundle.opening(cheapest.body) as file:
        trunk = cut_trunk(file, cheapest.body)
    found = options.found_confidence
    if not samples.labelled and found is None:
        found = usual_confidence(detector, samples, options.postprocess, progress)
    seen = _observe(detector, samples.items, trunk, cheapest.image_input, options, found, progress)
    fitter = _Fitter(seen, len(manifest.class_names) if samples.labelled else 0)
    spec = manifest.image_inputs[cheapest.image_input]
    macs = measured_macs(trunk, np.zeros((1, 3, spec.height, spec.width), np.float32))
    own = [matches for matches, is_own in zip(seen.matches, seen.original, strict=True) if is_own]
    if not any(len(picture.object_classes) for picture in own):
        raise RouterError(
            f"there is nothing to find in any of the {len(own)} pictures; give pictures that show "
            "what the detector knows"
        )
    comparison = compare_choices(
        RoutedPrecision(own).at,
        [fitter.out_of_fold(options.folds, seed) for seed in range(options.seeds)],
        -fitter.losses(np.ones(len(seen.photos), np.bool_))[seen.original],
        branch_macs=_alone(manifest),
        chooser_macs=macs,
        metric=options.metric,
    )
    weights, centre = fitter.fit(np.ones(len(seen.photos), np.bool_))
    record = fit_record(samples, options, None if samples.labelled else found) | {
        "loss": "each image's influence on AP50, at every branch",
        "chooser": {
            "reads": cheapest.image_input,
            "feature_count": len(centre),
            "macs": macs,
            "comparison": comparison.to_dict(),
        },
    }
    return ChooserFit(
        with_scores(trunk, -weights, centre), macs, cheapest.image_input, comparison, record
    )


def _observe(
    detector: Detector,
    samples: Sequence[Sample],
    trunk: ModelProto,
    image_input: str,
    options: FitOptions,
    found: float | None,
    progress: Callable[[], None],
) -> _Views:
    """Run all views of all pictures through all branches, and through the trunk."""
    session, manifest = open_model(trunk), detector.manifest
    photos: list[int] = []
    features: list[Float32Array] = []
    matches: list[PictureMatches] = []
    for photo, path, views in view_batches(samples, options.augment):
        images = detector.prepare([view.picture for view in views])
        seen = detector.trace(images)
        for row, view in enumerate(views):
            (made,) = session.run(None, {image_input: images[image_input][row : row + 1]})
            if not np.isfinite(made).all():
                raise RouterError(
                    f"the first layers give values that are not finite for {path}; verify the "
                    "bundle, or leave that picture out"
                )
            ways = picture_of(manifest, seen, view.picture, row).ways
            answers = [cast(Detections, way.answer(options.postprocess)) for way in ways]
            dearest = answers[manifest.ways_by_cost[-1]]
            truth = agreed_truth(dearest, found or 0.0) if view.truth is None else view.truth
            features.append(made[0])
            photos.append(photo)
            matches.append(match_picture(truth, answers))
            progress()
    original = np.arange(len(photos)) % (options.augment + 1) == 0
    rows = np.array(features, np.float64)
    return _Views(np.array(photos, np.int64), original, rows, tuple(matches))


class _Fitter:
    """Fits to some of the views; ``classes`` of the detector, or 0 where nothing is labelled."""

    def __init__(self, seen: _Views, classes: int) -> None:
        occurring = np.zeros(classes, np.bool_)
        if classes:
            for picture in seen.matches:
                occurring[picture.object_classes] = True
        ways = tuple(range(len(seen.matches[0].exits)))
        self._pool = DetectionPool(seen.matches, ways, occurring if classes else None)
        self._seen = seen
        self.losses = self._pool.losses

    def fit(self, views: BoolArray) -> tuple[Float64Array, Float64Array]:
        """Weights (F + 1, branches) of the loss at each branch, and the centre (F,) of features."""
        return fit_losses(self._seen.features[views], self._pool.losses(views)[views])

    def out_of_fold(self, folds: int, seed: int) -> Float32Array:
        """(photos, branches) scores of every picture by choosers that have not seen its views."""
        seen, count = self._seen, int(self._seen.photos[-1]) + 1
        fold = np.random.default_rng(seed).permutation(count) % folds
        scores: Float32Array | None = None
        for number in range(folds):
            held_out = fold[seen.photos] == number
            asked = held_out & seen.original
            weights, centre = self.fit(~held_out)
            if scores is None:
                scores = np.empty((count, weights.shape[1]), np.float32)
            estimate = (seen.features[asked] - centre) @ weights[:-1] + weights[-1]
            scores[seen.photos[asked]] = -estimate
        assert scores is not None  # there are folds
        return scores


def _alone(manifest: Manifest) -> list[int]:
    """Multiply-accumulates of each branch, whatever chose it."""
    parts = (way.parts.values() for way in manifest.ways)
    return [sum(manifest.stages[name].macs for name in names) for names in parts]


def refuse_useless_chooser(fit: ChooserFit) -> None:
    """Raise RouterError, with the figures, unless the chooser beats random mixtures."""
    comparison, metric = fit.comparison, fit.comparison.metric
    if comparison.gain.is_one:
        return
    figures = ", ".join(
        f"{100 * row.fitted.by(metric).mean:.1f} (random {100 * row.random.by(metric).mean:.1f})"
        for row in comparison.rows
    )
    raise RouterError(
        "the chooser is no better than random choices of the same shares on pictures it has not "
        f"seen: {metric.label} {figures}; nothing was written; give more pictures, or annotations "
        "(--annotations)"
    )
