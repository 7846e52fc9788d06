from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.bundle.manifest import Task
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.scoring import SCORING, RoutedAccuracy, score_key
from dyninfer.results.answers import Classification, Detections, TopK
from dyninfer.results.scores import Scores
from tests.support import refuses


def answer(*class_ids: int) -> Classification:
    count = len(class_ids)
    return Classification(np.array(class_ids, np.int64), np.ones(count, np.float32), ("",) * count)


def test_no_pictures_have_no_accuracy() -> None:
    assert RoutedAccuracy(np.empty((0, 2), np.int64)).at([]) == Scores()


def test_any_choice_of_ways_has_the_accuracy_of_its_answers(tmp_path) -> None:
    scoring = SCORING[Task.CLASSIFY]
    rng = np.random.default_rng(0)
    samples = [Sample(tmp_path, class_id=int(rng.integers(8))) for _ in range(40)]
    found = [[answer(*rng.permutation(8)[:5]) for _ in range(3)] for _ in samples]
    routed = scoring.scores([scoring.note(*pair) for pair in zip(samples, found, strict=True)])
    for seed in range(5):
        ways = np.random.default_rng(seed).integers(0, 3, 40)
        chosen = [answers[way] for answers, way in zip(found, ways, strict=True)]
        pairs = list(zip(samples, chosen, strict=True))
        first = np.mean([a.class_ids[0] == s.class_id for s, a in pairs])
        five = np.mean([s.class_id in a.class_ids for s, a in pairs])
        assert routed.at(ways) == Scores(first, five)
        measured = scoring.measure(Samples(tuple(samples)), chosen, 8)
        assert measured == {"top-1": first, "top-5": five}
    gains = routed.gains()
    assert gains.sum() == pytest.approx(
        40 * ((routed.at([2] * 40).primary or 0) - (routed.at([0] * 40).primary or 0))
    )
    with refuses(InputError, "(1,)", "(40,)"):
        routed.at([0])


def test_names_of_scores_make_keys() -> None:
    assert [score_key(name) for name in ("AP", "AP50", "top-1")] == ["ap", "ap50", "top1"]


@pytest.mark.parametrize(
    ("class_ids", "place"),
    [((3,), 0), ((1, 3), 1), ((0, 1, 2, 4, 3), 4), ((0, 1), 5), ((), 5), ((0, 1, 2, 4, 5, 6), 6)],
)
def test_a_class_that_an_answer_lacks_is_beyond_it_and_beyond_five(class_ids, place) -> None:
    sample = Sample(Path("a.png"), class_id=3)
    assert SCORING[Task.CLASSIFY].note(sample, [answer(*class_ids), answer(3)]) == [place, 0]
    top = 1.0 if place == 0 else 0.0, 1.0 if place < 5 else 0.0
    assert RoutedAccuracy([[0, place]]).at([1]) == Scores(*top)


@pytest.mark.parametrize(("count", "asked"), [(1, 5), (5, 5), (6, 6), (20, 20)])
def test_at_least_five_classes_are_asked_for(count, asked) -> None:
    manifest = SimpleNamespace(evaluation_options=TopK(count=count))
    assert SCORING[Task.CLASSIFY].options(manifest) == TopK(count=asked)


def test_six_precisions_are_told_by_name() -> None:
    rng = np.random.default_rng(0)
    samples, found = [], []
    for number in range(8):
        corners = rng.uniform(0, 200, (3, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 150, (3, 1))], 1)
        ids = np.arange(3) % 2
        samples.append(Sample(Path(f"{number}.png"), Truth(boxes, ids, np.zeros(3, bool))))
        moved = boxes + rng.normal(0, 8, (3, 4))
        found.append(
            Detections(
                moved.astype(np.float32), rng.random(3).astype(np.float32), ids, ("a", "b", "a")
            )
        )
    told = SCORING[Task.DETECT].measure(Samples(tuple(samples)), found, 2)
    six = average_precision([sample.truth for sample in samples], found, 2)
    by_name = {"AP": six.ap, "AP50": six.ap50, "AP75": six.ap75}
    assert told == by_name | {"small": six.small, "medium": six.medium, "large": six.large}
    assert len({value for value in told.values() if value is not None}) > 3


def test_precision_needs_objects() -> None:
    check = SCORING[Task.DETECT].check
    one = Sample(Path("a.png"), Truth(np.zeros((1, 4)), np.zeros(1, int), np.array([True])))
    there = Sample(
        Path("a.png"), Truth(np.zeros((2, 4)), np.zeros(2, int), np.array([True, False]))
    )
    with refuses(InputError, "average precision needs to know what is in the pictures"):
        check(Samples((Sample(Path("a.png")),)), ("a",))
    for items, told in (((one, one), "2 pictures"), ((), "0 pictures")):
        with refuses(InputError, f"no object of the detector's classes in {told}"):
            check(Samples(items), ("a",))
    check(Samples((one, there)), ("a",))
    with refuses(InputError, "no picture with a class can be read"):
        SCORING[Task.CLASSIFY].check(Samples(()), ("a",))
