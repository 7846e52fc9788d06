from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Forced, HardFraction, InputError, Threshold
from dyninfer.runtime.detector import Detector
from tests import support

PICTURES = [np.full((8, 8, 3), (0, 0, red), np.uint8) for red in (20, 240)]


def exits(detector: dyninfer.Detector) -> list[int]:
    return [found.exit_index for found in detector(PICTURES)]


@pytest.mark.parametrize("policy", [Threshold(0.05), AlwaysEasy(), AlwaysHard(), Forced([1, 0])])
def test_a_copy_has_the_same_arguments_and_policy(tmp_path, monkeypatch, policy) -> None:
    support.write_two_exits(tmp_path / "two.dyn")
    monkeypatch.chdir(tmp_path)
    with dyninfer.load("two.dyn", max_batch=3, max_pixels=1234, deadline_ms=5000) as detector:
        detector.policy = policy
        data = pickle.dumps(detector)
        assert len(data) < 2000  # a path, not a model
        expected = exits(detector)
        monkeypatch.chdir("/")
        with pickle.loads(data) as copy:
            assert copy is not detector
            assert copy.policy == policy
            assert copy.max_pixels == 1234
            assert copy._max_batch == 3
            assert copy._deadline_ms == 5000
            assert exits(copy) == expected
        assert exits(detector) == expected  # closing the copy closes nothing else


def test_a_detector_goes_to_another_process_and_its_results_come_back(two_exits) -> None:
    two_exits.policy = AlwaysHard()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        found = pool.submit(two_exits, PICTURES).result(timeout=60)
    for here, there in zip(two_exits(PICTURES), found, strict=True):
        assert there.exit_index == 1
        np.testing.assert_array_equal(here.boxes_xyxy, there.boxes_xyxy)


def test_what_cannot_be_sent_says_so(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as opened:
        made = Detector(opened.bundle, opened.session, 8)
        with support.refuses(InputError, "not opened by dyninfer.load", "bundle's path"):
            pickle.dumps(made)
    with support.refuses(InputError, "closed"):
        pickle.dumps(opened)


def test_a_bundle_that_has_gone_or_lost_its_calibration_is_told(tmp_path: Path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as detector:
        data = pickle.dumps(detector)
        detector._routing = detector._routing.__class__(HardFraction(0.5), AlwaysEasy(), None)
        asks_for_a_calibration = pickle.dumps(detector)
    with support.refuses(dyninfer.PolicyError, "calibrat"):
        pickle.loads(asks_for_a_calibration)
    path.rename(tmp_path / "elsewhere.dyn")
    with support.refuses(dyninfer.BundleError, "two.dyn", "does not exist"):
        pickle.loads(data)
