from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.errors import InputError
from dyninfer.evaluation.dataset import Sample, Samples, load_samples
from dyninfer.evaluation.outcomes import (
    Outcomes,
    only_readable,
    pictures_to_time,
    refuse_few,
    run_samples,
    trace_picture,
)
from dyninfer.images.pictures import read_image
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import EVALUATION, Postprocess
from dyninfer.results.scores import Scores
from dyninfer.routing.policy import LeaveAt
from tests import support
from tests.dyninfer.evaluation.coded import write_coded
from tests.support import random_pictures


def test_one_trace_is_postprocessed_in_several_ways(small_bundle: Path) -> None:
    with dyninfer.load(small_bundle) as detector:
        for picture in random_pictures(3, seed=3):
            ways = trace_picture(detector, picture).ways
            for options in (Postprocess(), EVALUATION):
                for index, at_way in enumerate(ways):
                    expected = detector(picture, options=options, policy=LeaveAt(index))
                    found = at_way.answer(options)
                    assert isinstance(found, Detections)
                    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
                    np.testing.assert_array_equal(found.confidences, expected.confidences)
                    assert found.class_names == expected.class_names
                    assert found.exit_index == index
            assert ways[0].easiness == detector(picture, policy=LeaveAt(0)).easiness


def test_every_router_of_three_exits_is_asked(
    three_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    signals = [
        trace_picture(three_exits, read_image(path)).signals
        for path in write_coded(tmp_path, [51, 255], green=102)
    ]
    np.testing.assert_allclose(signals, [[0.2, 0.4], [1.0, 0.4]], atol=1e-6)


def test_without_a_router_the_easiness_is_not_known(tmp_path: Path) -> None:
    with dyninfer.load(support.write_two_exits(tmp_path / "plain.dyn", router=False)) as detector:
        trace = trace_picture(detector, np.zeros((8, 8, 3), np.uint8))
        assert trace.signals == (None,)
        assert [way.easiness for way in trace.ways] == [None, None]


@pytest.mark.parametrize(
    "write",
    [
        support.write_static_two_stages,
        support.write_static_classifier,
        support.write_three_exits,
        support.write_select_detectors,
        support.write_select_classifiers,
    ],
)
def test_every_stage_runs_once_for_each_picture(write, tmp_path: Path) -> None:
    pictures = write_coded(tmp_path / "pictures", [0, 100, 200], green=120)
    with dyninfer.load(write(tmp_path / "bundle.dyn")) as detector:
        manifest = detector.manifest
        samples = load_samples(pictures, None, manifest.class_names, manifest.task)
        outcomes = run_samples(detector, samples)
        assert {name: e.run_count for name, e in detector.engines.items()} == dict.fromkeys(
            manifest.roles, 3
        )
        # what the default policy would do is known without running it
        assert outcomes.taken.tolist() == [detector(path).exit_index for path in pictures]


def test_answers_are_compared_with_those_of_the_dearest_way(tmp_path: Path) -> None:
    pictures = write_coded(tmp_path / "pictures", [0, 200], green=120)
    blue = np.full((8, 8, 3), (255, 120, 0), np.uint8)  # which branch 0 does not see
    assert cv2.imwrite(str(pictures[0]), blue)
    with dyninfer.load(support.write_dear_first(tmp_path / "dear.dyn")) as detector:
        manifest = detector.manifest
        samples = load_samples(pictures, None, manifest.class_names, manifest.task)
        outcomes = run_samples(detector, samples)
    assert outcomes.hardest == 0
    assert outcomes.losses.tolist() == [[1.0, 0.0]]
    agreement = [outcomes.figures_at(np.full(2, way), [[1.0], [2.0]]).agreement for way in range(2)]
    assert agreement == [1.0, 0.5]


def outcomes_of(losses: np.ndarray, hardest: int, macs: tuple[int, ...]) -> Outcomes:
    count = losses.shape[1]
    empty = np.zeros((0, count)), np.zeros((count, 0), np.float32), losses
    return Outcomes(Samples(()), *empty, np.zeros(count, int), None, macs, hardest, 0)


def test_the_figures_of_ways_are_means_over_the_pictures_that_take_them() -> None:
    rng = np.random.default_rng(0)
    losses, macs = rng.random((2, 9)), (5, 11, 7)
    times = [[1.0, 3.0], [8.0], [5.0, 5.5, 6.0]]
    for hardest, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        outcomes = outcomes_of(losses, hardest, macs)
        for seed in range(3):
            ways = np.random.default_rng(seed).integers(0, 3, 9)
            found = outcomes.figures_at(ways, times)
            assert found.mean_ms == pytest.approx(np.mean([np.mean(times[way]) for way in ways]))
            assert found.mean_macs == pytest.approx(np.mean([macs[way] for way in ways]))
            lost = [
                losses[others.index(way), n] if way in others else 0 for n, way in enumerate(ways)
            ]
            assert found.agreement == pytest.approx(1 - np.mean(lost))
            assert found.scores == Scores()


def test_what_was_left_out_or_has_another_size_is_told_once_for_each_kind(tmp_path: Path) -> None:
    (path,) = write_coded(tmp_path, [40])
    height, width = read_image(path).shape[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    items = [Sample(path), Sample(path, size=(width, height)), Sample(broken)]
    items += [Sample(path, size=(width, height + 1)), Sample(path, size=(height + 9, width))]
    ticks: list[int] = []
    found = only_readable(Samples(tuple(items), ("before",)), lambda: ticks.append(1))
    assert (len(ticks), found.items) == (5, (items[0], items[1], items[3], items[4]))
    before, unreadable, resized = found.warnings
    assert before == "before"
    assert unreadable.startswith("left out, unreadable: 1 picture: ")
    assert "more)" not in unreadable
    sizes = f"{path} has {width}x{height} (width, height), not {width}x{height + 1}; give"
    assert resized.startswith(f"of another size than the annotations say: 2 pictures: {sizes}")
    assert resized.endswith(" (and 1 more)")
    assert only_readable(Samples((items[0],))).warnings == ()


def test_two_pictures_are_the_fewest() -> None:
    refuse_few(2)
    with support.refuses(InputError, "1 usable picture given, expected at least 2, and better 100"):
        refuse_few(1)


@pytest.mark.parametrize(
    ("count", "limit", "chosen"),
    [(3, 5, [0, 1, 2]), (3, 3, [0, 1, 2]), (9, 3, [0, 4, 8]), (10, 4, [0, 3, 6, 9]), (5, 1, [0])],
)
def test_pictures_to_time_are_spread_over_all(count, limit, chosen) -> None:
    items = tuple(Sample(Path(f"{number}.png")) for number in range(count))
    assert pictures_to_time(Samples(items), limit) == [items[number] for number in chosen]


@pytest.mark.parametrize(
    ("more", "told"),
    [((0, 0), False), ((1, 0), True), ((-1, 0), True), ((0, 1), True), ((0, -1), True)],
)
def test_a_picture_larger_or_smaller_than_annotated_is_told(tmp_path, more, told) -> None:
    (path,) = write_coded(tmp_path, [40])
    height, width = read_image(path).shape[:2]
    samples = Samples((Sample(path, size=(width + more[0], height + more[1])),))
    assert [line[:15] for line in only_readable(samples).warnings] == ["of another size"] * told
