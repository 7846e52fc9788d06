"""Running a frozen cascade once: what a router would read of every picture, and what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dyninfer.bundle.manifest import TensorSpec
from dyninfer.errors import RouterError
from dyninfer.evaluation.dataset import Sample
from dyninfer.evaluation.routed_precision import PictureMatches, match_picture
from dyninfer.evaluation.traces import picture_of
from dyninfer.exporters.router.augment import View, make_views
from dyninfer.exporters.router.features import FeatureKind, Features, build_features
from dyninfer.exporters.router.losses import agreed_truth
from dyninfer.images.reading import read_image
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.executor import Arrays
from dyninfer.types import BoolArray, Float64Array, Int64Array

_BATCH = 8


@dataclass(frozen=True)
class Reader:
    """What the router of one exit reads, and of which outputs of the body."""

    features: Features
    inputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Observations:
    """All views of all pictures at every exit.

    Attributes:
        photos: (V,) index of the picture that each view was made from.
        original: (V,) whether a view is the picture itself.
        features: one (V, F) for every exit but the last.
        easiness: (exits - 1, V) by the routers that the bundle has; NaN where it has none.
        best: (exits - 1, V) largest confidence at each exit but the last.
        matches: one entry for every view, with all exits.
        labelled: whether the truth is known; else the last exit is believed.
        readers: one for every exit but the last.
    """

    photos: Int64Array
    original: BoolArray
    features: tuple[Float64Array, ...]
    easiness: Float64Array
    best: Float64Array
    matches: tuple[PictureMatches, ...]
    labelled: bool
    readers: tuple[Reader, ...]


def observe(
    detector: Detector,
    samples: Sequence[Sample],
    kind: FeatureKind,
    augment: int,
    options: Postprocess,
    progress: Callable[[], None] = lambda: None,
) -> Observations:
    """Run all views, the picture and ``augment`` others, of all pictures through all exits.

    Either all samples have their truth or none has. ``progress`` is called after every view.

    Raises:
        InputError: a picture cannot be read, or a body has no outputs of this kind.
        RouterError: a detector's outputs are not finite.
    """
    exits = detector.manifest.ways[:-1]
    readers = [Reader(*build_features(detector.manifest, k, kind)) for k in range(len(exits))]
    features: list[list[Float64Array]] = [[] for _ in readers]
    photos, easiness, best, matches = [], [], [], []
    for photo, path, views in _batches(samples, augment):
        pictures = [view.picture for view in views]
        bodies = [exit_.body for exit_ in exits]
        seen = detector.trace(detector.prepare(pictures), keep=bodies)
        for index, reader in enumerate(readers):
            features[index].append(_read(reader, seen.stages[bodies[index]]))
            if not np.isfinite(features[index][-1]).all():
                raise RouterError(
                    f"exit {index} gives values that are not finite for {path}; "
                    "verify the bundle, or leave that picture out"
                )
        for row, view in enumerate(views):
            ways = picture_of(detector.manifest, seen, view.picture, row).ways
            found = [cast(Detections, way.answer(options)) for way in ways]
            truth = agreed_truth(found[-1]) if view.truth is None else view.truth
            photos.append(photo)
            easiness.append([np.nan if way.easiness is None else way.easiness for way in ways[:-1]])
            best.append([each.confidences.max(initial=0.0) for each in found[:-1]])
            matches.append(match_picture(truth, found))
            progress()
    return Observations(
        photos=np.array(photos, np.int64),
        original=np.arange(len(photos)) % (augment + 1) == 0,
        features=tuple(np.concatenate(rows) for rows in features),
        easiness=np.array(easiness, np.float64).T,
        best=np.array(best, np.float64).T,
        matches=tuple(matches),
        labelled=samples[0].truth is not None,
        readers=tuple(readers),
    )


def _batches(samples: Sequence[Sample], augment: int) -> Iterator[tuple[int, Path, list[View]]]:
    """Views, a few at a time, with the number and the file of the picture they were made from."""
    for photo, sample in enumerate(samples):
        views = list(make_views(View(read_image(sample.path), sample.truth), augment, photo))
        for start in range(0, len(views), _BATCH):
            yield photo, sample.path, views[start : start + _BATCH]


def _read(reader: Reader, made: Arrays) -> Float64Array:
    """(N, F) features of what a body made."""
    tensors = [torch.from_numpy(made[spec.name]) for spec in reader.inputs]
    with torch.inference_mode():
        rows: Tensor = reader.features(*tensors)
    return rows.double().numpy()
