from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.outcomes import run_samples, trace_picture
from dyninfer.images.pictures import read_image
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import EVALUATION, Postprocess
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
