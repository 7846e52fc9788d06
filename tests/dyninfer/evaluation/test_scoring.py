from __future__ import annotations

import numpy as np
import pytest

from dyninfer.bundle.manifest import Task
from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample, Samples
from dyninfer.evaluation.scoring import SCORING, RoutedAccuracy, score_key
from dyninfer.results.answers import Classification
from dyninfer.results.scores import Scores
from tests.support import refuses


def answer(*class_ids: int) -> Classification:
    count = len(class_ids)
    return Classification(np.array(class_ids), np.ones(count, np.float32), ("",) * count)


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
