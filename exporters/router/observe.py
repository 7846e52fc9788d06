"""Running a frozen cascade once: what a router would read of every picture, and what is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dyninfer.bundle.manifest import TensorSpec
from dyninfer.errors import RouterError
from dyninfer.evaluation.dataset import Sample
from dyninfer.evaluation.exits import run_every_exit
from dyninfer.evaluation.routed_precision import PictureMatches, match_picture
from dyninfer.exporters.router.augment import View, make_views
from dyninfer.exporters.router.features import FeatureKind, build_features
from dyninfer.exporters.router.losses import agreed_truth
from dyninfer.images.reading import read_image
from dyninfer.results.postprocess import Postprocess
from dyninfer.runtime.detector import Detector
from dyninfer.types import BoolArray, Float64Array, ImageArray, Int64Array

_BATCH = 8


@dataclass(frozen=True)
class Reader:
    """What the router of one exit reads, and of which outputs of the body."""

    features: nn.Module
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
        labelled: whether the truth is known, or the last exit's word.
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
    """Run all views of all pictures through all exits.

    Args:
        detector: an opened cascade.
        samples: pictures, all with their truth or all without.
        kind: what the routers read.
        augment: how many further views are made of every picture.
        options: of the postprocessing.
        progress: called after every view.

    Raises:
        InputError: a picture cannot be read, or a body has no outputs of this kind.
        RouterError: a detector's outputs are not finite.
    """
    exits = len(detector.manifest.ways)
    readers = tuple(
        Reader(*build_features(detector.manifest, index, kind)) for index in range(exits - 1)
    )
    features: list[list[Float64Array]] = [[] for _ in readers]
    easiness, best, photos, matches = [], [], [], []
    for photo, sample in enumerate(samples):
        views = list(make_views(View(read_image(sample.path), sample.truth), augment, photo))
        for index, rows in enumerate(_read(detector, readers, views)):
            _check_finite(rows, index, sample.path)
            features[index].append(rows)
        runs = run_every_exit(detector, [view.picture for view in views], options, progress)
        easiness.append(runs.easiness)
        best.append([[d.confidences.max(initial=0.0) for d in found] for found in runs.found[:-1]])
        photos += [photo] * len(views)
        for view, *found in zip(views, *runs.found, strict=True):
            truth = agreed_truth(found[-1]) if view.truth is None else view.truth
            matches.append(match_picture(truth, found))
    return Observations(
        photos=np.array(photos, np.int64),
        original=np.arange(len(photos)) % (augment + 1) == 0,
        features=tuple(np.concatenate(rows) for rows in features),
        easiness=np.concatenate(easiness, axis=1),
        best=np.concatenate(best, axis=1),
        matches=tuple(matches),
        labelled=samples[0].truth is not None,
        readers=readers,
    )


def _check_finite(rows: Float64Array, exit_index: int, picture: Path) -> None:
    if not np.isfinite(rows).all():
        raise RouterError(
            f"exit {exit_index} gives values that are not finite for {picture}; "
            "verify the bundle, or leave that picture out"
        )


def _read(
    detector: Detector, readers: Sequence[Reader], views: Sequence[View]
) -> list[Float64Array]:
    """One (views, F) for every exit but the last."""
    columns: list[list[Float64Array]] = [[] for _ in readers]
    for start in range(0, len(views), _BATCH):
        pictures = [view.picture for view in views[start : start + _BATCH]]
        outputs = body_outputs(detector, pictures)
        for column, reader, made in zip(columns, readers, outputs, strict=True):
            tensors = [torch.from_numpy(made[spec.name]) for spec in reader.inputs]
            with torch.inference_mode():
                rows: Tensor = reader.features(*tensors)
            column.append(rows.double().numpy())
    return [np.concatenate(column) for column in columns]


def body_outputs(
    detector: Detector, pictures: Sequence[ImageArray]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """For every exit but the last, all tensors that exist when its router runs."""
    manifest = detector.manifest
    tensors: dict[str, npt.NDArray[Any]] = {}
    for exit_ in manifest.ways[:-1]:
        body = manifest.stages[exit_.body]
        for spec in body.inputs:
            if spec.name in manifest.image_inputs and spec.name not in tensors:
                image = manifest.image_inputs[spec.name]
                tensors[spec.name] = np.stack([image.prepare(picture) for picture in pictures])
        inputs = {spec.name: tensors[spec.name] for spec in body.inputs}
        tensors = tensors | detector.run_stage(exit_.body, inputs)
        yield tensors
