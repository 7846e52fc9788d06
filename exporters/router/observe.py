"""Running a frozen cascade once: what a router would read of every picture, and what is lost.

Few pictures give further views: cut, shrunk, mirrored, darker or brighter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dyninfer.errors import RouterError
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.outcomes import picture_of, pictures_to_time
from dyninfer.evaluation.routed_precision import PictureMatches, match_picture
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.model import Reader, build_features
from dyninfer.images.pictures import read_image
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.policy import AlwaysHard
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.stage_runner import Arrays
from dyninfer.types import AnyArray, BoolArray, Float64Array, ImageArray, Int64Array

_BATCH = 8
USUAL_PICTURES = 100
_SURE_SHARE, _SURE_PICTURES, _LEAST_SURE = 0.6, 95, 0.05
_SEEN_SHARE = 0.2


@dataclass(frozen=True)
class Observations:
    """All views of all pictures at every exit; all but ``matches`` are for all but the last.

    ``photos`` (V,) are indices of the pictures that the views were made from, ``original`` (V,)
    tells whether a view is the picture itself. There is one (V, F) of ``features`` and a reader for
    each exit; ``easiness`` (exits - 1, V) is by the routers that the bundle has, NaN where it has
    none; ``best`` (exits - 1, V) is the largest confidence. ``labelled`` is whether the truth is
    known; else the last exit is believed.
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
    found: float | None,
    progress: Callable[[], None] = lambda: None,
) -> Observations:
    """Run all views, the picture and ``augment`` others, of all pictures through all exits.

    Either all samples have their truth or none has; then it is what the last exit finds with a
    confidence above ``found``. ``progress`` is called after every view.

    Raises:
        InputError: a picture cannot be read, or a body has no outputs of this kind.
        RouterError: a detector's outputs are not finite.
    """
    exits = detector.manifest.ways[:-1]
    readers = [build_features(detector.manifest, k, kind) for k in range(len(exits))]
    features: list[list[Float64Array]] = [[] for _ in readers]
    photos, easiness, best, matches = [], [], [], []
    for photo, path, views in view_batches(samples, augment):
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
            seen_here = [cast(Detections, way.answer(options)) for way in ways]
            truth = view.truth
            if truth is None:
                assert found is not None  # without labels
                truth = agreed_truth(seen_here[-1], found)
            photos.append(photo)
            easiness.append([np.nan if way.easiness is None else way.easiness for way in ways[:-1]])
            best.append([each.confidences.max(initial=0.0) for each in seen_here[:-1]])
            matches.append(match_picture(truth, seen_here))
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


def view_batches(samples: Sequence[Sample], augment: int) -> Iterator[tuple[int, Path, list[View]]]:
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


def usual_confidence(
    detector: Detector,
    samples: Samples,
    options: Postprocess,
    progress: Callable[[], None] = lambda: None,
) -> float:
    """The confidence above which this detector's last exit is sure, by its own confidences.

    Detectors differ: of some every object has 0.9, of others none has 0.5. It is 0.6 of the
    largest confidence in a picture, as 95 of 100 pictures have it or less, and never below 0.05;
    at most :data:`USUAL_PICTURES` pictures are asked. ``progress`` is called after each.
    """
    largest = []
    for sample in pictures_to_time(samples, USUAL_PICTURES):
        (found,) = detector.answers([read_image(sample.path)], options=options, policy=AlwaysHard())
        largest.append(float(found.confidences.max(initial=0.0)))
        progress()
    return max(_LEAST_SURE, _SURE_SHARE * float(np.percentile(largest, _SURE_PICTURES)))


def agreed_truth(last: Detections, sure: float) -> Truth:
    """The last exit's detections as the truth, where nothing is known of an image.

    What it is sure of (a confidence above ``sure``) are the objects. What it has seen at all (above
    a fifth of that) may be one or not: detections there count neither way, as in a crowd of COCO's.
    """
    seen = last.confidences > sure * _SEEN_SHARE
    return Truth(
        boxes_xyxy=last.boxes_xyxy[seen].astype(np.float64),
        class_ids=last.class_ids[seen],
        crowd=last.confidences[seen] <= sure,
    )


_GREY = 114
_TRIES = 20
_GONE, _PARTLY = 0.15, 0.5  # visible shares of a box: below, it is not there; or may be


@dataclass(frozen=True)
class View:
    """A picture (h, w, 3) uint8 BGR and what is in it, where that is known."""

    picture: ImageArray
    truth: Truth | None


def make_views(view: View, count: int, seed: int) -> Iterator[View]:
    """The picture itself, then ``count`` others made from it; the same for the same seed.

    Of four, two are cuts of 0.55 to 0.95 of either side, one is shrunk on a grey border by 1.15
    to 1.9, and one keeps its frame; every other one is mirrored, and all vary in brightness.
    """
    yield view
    rng = np.random.default_rng(seed)
    for number in range(count):
        kind = number % 4
        changed = (
            _shrink(view, rng) if kind == 2 else view if kind == 3 else _cut_with_object(view, rng)
        )
        if kind == 3 or (number // 4) % 2 == 0:
            changed = _mirror(changed)
        yield View(_relight(changed.picture, rng), changed.truth)


def _cut_with_object(view: View, rng: np.random.Generator) -> View:
    """A random cut that keeps most of at least one object, where there is one."""
    if view.truth is None or not len(view.truth.class_ids):
        return _cut(view, rng)
    for _ in range(_TRIES):
        cut = _cut(view, rng)
        if cut.truth is not None and not cut.truth.crowds.all():
            return cut
    return view


def _cut(view: View, rng: np.random.Generator) -> View:
    height, width = view.picture.shape[:2]
    share = rng.uniform(0.55, 0.95)
    new_width = max(1, int(width * share))
    new_height = max(1, int(height * min(1.0, share * rng.uniform(0.85, 1.15))))
    left = int(rng.integers(0, width - new_width + 1))
    top = int(rng.integers(0, height - new_height + 1))
    picture = np.ascontiguousarray(view.picture[top : top + new_height, left : left + new_width])
    if view.truth is None:
        return View(picture, None)
    moved = view.truth.boxes_xyxy - np.array([left, top, left, top])
    boxes = np.clip(moved, 0, [new_width, new_height, new_width, new_height])
    visible = _areas(boxes) / np.maximum(_areas(moved), 1e-9)
    there = visible >= _GONE
    truth = Truth(
        boxes_xyxy=boxes[there],
        class_ids=view.truth.class_ids[there],
        crowd=(view.truth.crowds | (visible < _PARTLY))[there],
    )
    return View(picture, truth)


def _shrink(view: View, rng: np.random.Generator) -> View:
    height, width = view.picture.shape[:2]
    factor = rng.uniform(1.15, 1.9)
    canvas = np.full((int(height * factor), int(width * factor), 3), _GREY, np.uint8)
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    canvas[top : top + height, left : left + width] = view.picture
    return _moved(view, canvas, lambda boxes: boxes + np.array([left, top, left, top]))


def _mirror(view: View) -> View:
    picture, width = np.ascontiguousarray(view.picture[:, ::-1]), view.picture.shape[1]
    signs, edges = np.array([-1, 1, -1, 1]), np.array([width, 0, width, 0])
    return _moved(view, picture, lambda boxes: edges + signs * boxes[:, [2, 1, 0, 3]])


def _moved(view: View, picture: ImageArray, move: Callable[[AnyArray], AnyArray]) -> View:
    truth = view.truth
    return View(picture, truth and replace(truth, boxes_xyxy=move(truth.boxes_xyxy), areas=None))


def _relight(picture: ImageArray, rng: np.random.Generator) -> ImageArray:
    lit = picture.astype(np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-15, 15)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def _areas(boxes: npt.NDArray[np.floating]) -> Float64Array:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1), np.float64)
