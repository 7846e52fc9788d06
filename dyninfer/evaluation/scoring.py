"""How answers are scored against what is known of the pictures, one object for each task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest, Task
from dyninfer.errors import InputError
from dyninfer.evaluation.class_labels import classes_by_folder
from dyninfer.evaluation.coco import average_precision
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.routed_precision import (
    PictureMatches,
    RoutedPrecision,
    match_picture,
    one_for_each,
)
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer, Detections, TopK
from dyninfer.results.scores import Scores
from dyninfer.results.tasks import Options
from dyninfer.types import Float64Array

_TOP = 5


class RoutedAccuracy:
    """Top-1 and top-5 of any choice of ways.

    Args:
        ranks: (N, ways) place of the right class in each answer, from 0.
    """

    def __init__(self, ranks: npt.ArrayLike) -> None:
        self._ranks = np.asarray(ranks, np.int64)

    def at(self, ways: npt.ArrayLike) -> Scores:
        """Both when every picture takes the given way, (N,) integers from 0.

        Raises:
            InputError: there is not one way for every picture.
        """
        chosen = one_for_each(ways, len(self._ranks))
        if not len(chosen):
            return Scores()
        ranks = self._ranks[np.arange(len(chosen)), chosen]
        return Scores(float((ranks < 1).mean()), float((ranks < _TOP).mean()))

    def gains(self) -> Float64Array:
        """(N,) top-1 of each picture on its own at the last way, less that at the first."""
        right = (self._ranks < 1).astype(np.float64)
        return np.asarray(right[:, -1] - right[:, 0], np.float64)


RoutedScores = RoutedPrecision | RoutedAccuracy
"""The scores of any choice of ways, of pictures that were looked at once."""


@dataclass(frozen=True)
class Scoring:
    """How a task's answers are scored.

    Attributes:
        title: what ``measure`` gives, in one word.
        check: refuses pictures, with the names of the classes, before anything runs: InputError
            where nothing is known of them or there is nothing to find, MissingExtra where a
            library is missing.
        options: of the postprocessing, where answers are scored.
        note: what is right of the answers of every way to a picture of which something is known.
        scores: of the pictures that were noted.
        measure: everything that can be said of one answer for every picture, by name, with so
            many classes.
    """

    title: str
    check: Callable[[Samples, Sequence[str]], None]
    options: Callable[[Manifest], Options]
    note: Callable[[Sample, Sequence[Answer]], Any]
    scores: Callable[[Sequence[Any]], RoutedScores]
    measure: Callable[[Samples, Sequence[Answer], int], Mapping[str, float | None]]


def _check_objects(samples: Samples, _class_names: Sequence[str]) -> None:
    if samples.items and samples.truths is None:
        raise InputError(
            "average precision needs to know what is in the pictures; give annotations "
            "(--annotations): a JSON file in COCO's format, or a folder of VOC's or YOLO's labels"
        )
    if not any((~truth.crowds).any() for truth in samples.truths or []):
        raise InputError(
            "there is no object of the detector's classes in "
            f"{counted(len(samples.items), 'picture')}; average precision needs at least one"
        )
    average_precision([], [], 0)  # raises where its library is missing


def _note_objects(sample: Sample, found: Sequence[Answer]) -> PictureMatches:
    assert sample.truth is not None
    return match_picture(sample.truth, _detections(found))


def _measure_objects(
    samples: Samples, found: Sequence[Answer], classes: int
) -> Mapping[str, float | None]:
    six = average_precision(samples.truths or [], _detections(found), classes)
    return dict(zip(("AP", "AP50", "AP75", "small", "medium", "large"), astuple(six), strict=True))


def _detections(found: Sequence[Answer]) -> list[Detections]:
    return [answer for answer in found if isinstance(answer, Detections)]


def _check_classes(samples: Samples, class_names: Sequence[str]) -> None:
    if any(item.class_id is None for item in samples.items):
        try:
            classes_by_folder([item.path for item in samples.items], class_names)
        except InputError as error:
            raise InputError(
                f"{error}; keep each class in a folder of its name, or give annotations "
                "(--annotations)"
            ) from None
    if not samples.items:
        raise InputError("no picture with a class can be read; accuracy needs at least one")


def _at_least_five(manifest: Manifest) -> TopK:
    options = manifest.evaluation_options
    assert isinstance(options, TopK)  # the manifest was checked
    return replace(options, count=max(options.count, _TOP))


def _note_class(sample: Sample, found: Sequence[Answer]) -> list[int]:
    """Place of the right class in each answer; the answer's length where it is not there."""
    places = [np.flatnonzero(answer.class_ids == sample.class_id) for answer in found]
    pairs = zip(places, found, strict=True)
    return [int(place[0]) if len(place) else max(len(a), _TOP) for place, a in pairs]


def _measure_classes(
    samples: Samples, found: Sequence[Answer], _classes: int
) -> Mapping[str, float | None]:
    pairs = zip(samples.items, found, strict=True)
    ranks = [_note_class(sample, [answer]) for sample, answer in pairs]
    scores = RoutedAccuracy(ranks).at(np.zeros(len(found), np.int64))
    return {"top-1": scores.primary, "top-5": scores.secondary}


class _ByTask(dict[Task, Scoring]):
    def __missing__(self, task: Task) -> Scoring:
        raise InputError(
            f"the bundle is a backbone, which ends in {task.value}: nothing is found that could be "
            "scored; expected a detector or a classifier"
        )


SCORING: Mapping[Task, Scoring] = _ByTask(
    {
        Task.DETECT: Scoring(
            "precision",
            _check_objects,
            lambda manifest: manifest.evaluation_options,
            _note_objects,
            RoutedPrecision,
            _measure_objects,
        ),
        Task.CLASSIFY: Scoring(
            "accuracy",
            _check_classes,
            _at_least_five,
            _note_class,
            RoutedAccuracy,
            _measure_classes,
        ),
    }
)
"""How each task's answers are scored."""


def score_key(name: str) -> str:
    """A score's name as a key in JSON: ``AP50`` is ``ap50``, ``top-1`` is ``top1``."""
    return name.replace("-", "").lower()
