"""How answers are scored against what is known of the pictures, one object for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any, Protocol

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
from dyninfer.results.answers import Answer, Detections, TopK
from dyninfer.results.scores import Scores
from dyninfer.results.tasks import Options
from dyninfer.types import Float64Array, Int64Array

_TOP = 5


class RoutedScores(Protocol):
    """The scores of any choice of ways, of pictures that were looked at once."""

    def at(self, ways: npt.ArrayLike, /) -> Scores:
        """Scores when every picture takes the given way, (N,) integers from 0.

        Raises:
            InputError: there is not one way for every picture.
        """
        ...

    def gains(self) -> Float64Array:
        """(N,) primary score of each picture on its own at the last way, less that at the first."""
        ...


class Scoring(Protocol):
    """How a task's answers are scored.

    Attributes:
        title: what :meth:`measure` gives, in one word.
    """

    title: str

    def check(self, samples: Samples, class_names: Sequence[str]) -> None:
        """Refuse what cannot be scored, before anything runs.

        Raises:
            InputError: nothing is known of the pictures, or there is nothing to find.
            MissingExtra: a library is missing.
        """
        ...

    def options(self, manifest: Manifest) -> Options:
        """Of the postprocessing, where answers are scored."""
        return manifest.evaluation_options

    def note(self, sample: Sample, found: Sequence[Answer]) -> Any:
        """What is right of the answers of every way to a picture of which something is known."""
        ...

    def scores(self, notes: Sequence[Any]) -> RoutedScores:
        """Of the pictures that were noted."""
        ...

    def measure(
        self, samples: Samples, found: Sequence[Answer], classes: int
    ) -> Mapping[str, float | None]:
        """Everything that can be said of one answer for every picture, by name."""
        ...


class DetectScoring(Scoring):
    """COCO's average precision."""

    title = "precision"

    def check(self, samples: Samples, _class_names: Sequence[str]) -> None:
        """See :class:`Scoring`."""
        if samples.items and samples.truths is None:
            raise InputError(
                "average precision needs to know what is in the pictures; give --annotations, a "
                "JSON file in COCO's format"
            )
        if not any((~truth.crowds).any() for truth in samples.truths or []):
            raise InputError(
                f"there is no object of the detector's classes in {len(samples.items)} pictures; "
                "average precision needs at least one"
            )
        average_precision([], [], 0)  # raises where its library is missing

    def note(self, sample: Sample, found: Sequence[Answer]) -> PictureMatches:
        """See :class:`Scoring`."""
        assert sample.truth is not None
        return match_picture(sample.truth, _detections(found))

    def scores(self, notes: Sequence[PictureMatches]) -> RoutedPrecision:
        """See :class:`Scoring`."""
        return RoutedPrecision(notes)

    def measure(
        self, samples: Samples, found: Sequence[Answer], classes: int
    ) -> Mapping[str, float | None]:
        """COCO's six numbers; see :class:`Scoring`."""
        six = average_precision(samples.truths or [], _detections(found), classes)
        names = ("AP", "AP50", "AP75", "small", "medium", "large")
        return dict(zip(names, astuple(six), strict=True))


def _detections(found: Sequence[Answer]) -> list[Detections]:
    return [answer for answer in found if isinstance(answer, Detections)]


class RoutedAccuracy:
    """Top-1 and top-5 of any choice of ways.

    Args:
        ranks: (N, ways) place of the right class in each answer, from 0.
    """

    def __init__(self, ranks: Int64Array) -> None:
        self._ranks = ranks

    def at(self, ways: npt.ArrayLike) -> Scores:
        """See :class:`RoutedScores`."""
        chosen = one_for_each(ways, len(self._ranks))
        if not len(chosen):
            return Scores()
        ranks = self._ranks[np.arange(len(chosen)), chosen]
        return Scores(float((ranks < 1).mean()), float((ranks < _TOP).mean()))

    def gains(self) -> Float64Array:
        """See :class:`RoutedScores`."""
        right = (self._ranks < 1).astype(np.float64)
        return np.asarray(right[:, -1] - right[:, 0], np.float64)


class ClassifyScoring(Scoring):
    """Whether the right class is the first, or among the first five."""

    title = "accuracy"

    def check(self, samples: Samples, class_names: Sequence[str]) -> None:
        """See :class:`Scoring`."""
        if any(item.class_id is None for item in samples.items):
            try:
                classes_by_folder([item.path for item in samples.items], class_names)
            except InputError as error:
                raise InputError(
                    f"{error}; keep each class in a folder of its name, or give --annotations"
                ) from None
        if not samples.items:
            raise InputError("no picture with a class can be read; accuracy needs at least one")

    def options(self, manifest: Manifest) -> Options:
        """See :class:`Scoring`."""
        options = manifest.evaluation_options
        assert isinstance(options, TopK)  # the manifest was checked
        return replace(options, count=max(options.count, _TOP))

    def note(self, sample: Sample, found: Sequence[Answer]) -> list[int]:
        """See :class:`Scoring`."""
        return [_rank(answer, sample.class_id) for answer in found]

    def scores(self, notes: Sequence[Sequence[int]]) -> RoutedAccuracy:
        """See :class:`Scoring`."""
        return RoutedAccuracy(np.array(notes, np.int64))

    def measure(
        self, samples: Samples, found: Sequence[Answer], _classes: int
    ) -> Mapping[str, float | None]:
        """Top-1 and top-5; see :class:`Scoring`."""
        pairs = zip(samples.items, found, strict=True)
        noted = [self.note(sample, [answer]) for sample, answer in pairs]
        scores = self.scores(noted).at(np.zeros(len(found), np.int64))
        return {"top-1": scores.primary, "top-5": scores.secondary}


def _rank(answer: Answer, class_id: int | None) -> int:
    """Place of a class in an answer; its length where it is not there."""
    places = np.flatnonzero(answer.class_ids == class_id)
    return int(places[0]) if len(places) else max(len(answer), _TOP)


SCORING: Mapping[Task, Scoring] = {
    Task.DETECT: DetectScoring(),
    Task.CLASSIFY: ClassifyScoring(),
}
"""How each task's answers are scored."""


def score_key(name: str) -> str:
    """A score's name as a key in JSON: ``AP50`` is ``ap50``, ``top-1`` is ``top1``."""
    return name.replace("-", "").lower()
