from __future__ import annotations

from pathlib import Path

import numpy as np

import dyninfer
from dyninfer.evaluation.exits import EVALUATION, at_every_exit, run_every_exit
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.policy import LeaveAt
from tests.dyninfer.evaluation.coded import write_coded
from tests.support import random_pictures


def test_no_pictures(two_exits: dyninfer.Detector) -> None:
    runs = run_every_exit(two_exits, [])
    assert len(runs) == 0
    assert runs.easiness.shape == (1, 0)


def test_every_exit_finds_what_the_detector_finds_there(small_bundle: Path) -> None:
    pictures = random_pictures(3)
    with dyninfer.load(small_bundle) as detector:
        runs = run_every_exit(detector, pictures)
        for index in range(2):
            detector.policy = LeaveAt(index)
            for picture, found in zip(pictures, runs.found[index], strict=True):
                expected = detector(picture, options=EVALUATION)
                np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
                np.testing.assert_array_equal(found.confidences, expected.confidences)


def test_one_run_is_postprocessed_in_several_ways(small_bundle: Path) -> None:
    with dyninfer.load(small_bundle) as detector:
        for picture in random_pictures(2, seed=3):
            exits = at_every_exit(detector, picture)
            for options in (Postprocess(), EVALUATION):
                for index, at_exit in enumerate(exits):
                    detector.policy = LeaveAt(index)
                    expected = detector(picture, options=options)
                    found = at_exit.detections(options)
                    np.testing.assert_array_equal(found.boxes_xyxy, expected.boxes_xyxy)
                    np.testing.assert_array_equal(found.confidences, expected.confidences)
                    assert found.class_names == expected.class_names
                    assert at_exit.easiness == expected.easiness


def test_every_router_of_three_exits_is_asked(
    three_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    paths = write_coded(tmp_path, [51, 255], green=102)
    runs = run_every_exit(three_exits, paths)
    np.testing.assert_allclose(runs.easiness, [[0.2, 1.0], [0.4, 0.4]], atol=1e-6)
    assert [found[0].exit_index for found in runs.found] == [0, 1, 2]


def test_without_a_router_the_easiness_is_not_known(tmp_path: Path) -> None:
    from tests.support import write_two_exits

    with dyninfer.load(write_two_exits(tmp_path / "plain.dyn", router=False)) as detector:
        runs = run_every_exit(detector, write_coded(tmp_path / "pictures", [5]))
        assert np.isnan(runs.easiness).all()
