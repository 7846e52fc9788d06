"""Places, numbers and times of images between a call and its batches."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.engines.device_array import DeviceArray
from dyninfer.runtime import batches
from dyninfer.runtime.detector import _spent_ms
from tests import support


class Noting(dyninfer.Threshold):
    """A threshold that notes which images of the call it was asked about, and their easiness."""

    def decide(self, easiness, point):
        asked.append((point.images.tolist(), np.round(easiness.astype(np.float64), 3).tolist()))
        return super().decide(easiness, point)


asked: list[tuple[list[int], list[float]]] = []


def pictures(*shades: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), shade, np.uint8) for shade in shades]


@pytest.fixture
def in_pairs(tmp_path: Path):
    asked.clear()
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=2) as detector:
        yield detector


SHADES = (0, 51, 102, 153, 204)
EASINESS = [0, 0.2, 0.4, 0.6, 0.8]
BY_PAIRS = [([0, 1], [0, 0.2]), ([2, 3], [0.4, 0.6]), ([4], [0.8])]


def test_images_are_known_by_their_place_in_a_call_of_several_batches(in_pairs) -> None:
    found = in_pairs(pictures(*SHADES), policy=Noting(0.5))
    assert asked == BY_PAIRS
    assert [answer.exit_index for answer in found] == [1, 1, 1, 0, 0]
    asked.clear()
    raw = in_pairs.infer(in_pairs.prepare(pictures(*SHADES)), policy=Noting(0.5))
    assert asked == BY_PAIRS
    assert [output.easiness for output in raw] == pytest.approx(EASINESS)
    assert in_pairs.engines["first"].run_count == 6


def test_a_skipped_image_keeps_its_place(in_pairs) -> None:
    given = pictures(*SHADES)
    given[2] = np.zeros((8, 8, 7), np.uint8)
    found = in_pairs(given, policy=Noting(0.5), on_error="skip")
    assert [answer is None for answer in found] == [False, False, True, False, False]
    assert [images for images, _ in asked] == [[0, 1], [3], [4]]


def test_a_trace_of_several_batches_is_that_of_one(in_pairs) -> None:
    images = in_pairs.prepare(pictures(*SHADES))
    several = in_pairs.trace(images, keep=["first"])
    with dyninfer.load(in_pairs.bundle.path) as detector:
        one = detector.trace(images, keep=["first"])
    np.testing.assert_allclose(several.signals[0], EASINESS, atol=1e-6)
    np.testing.assert_array_equal(several.signals[0], one.signals[0])
    mine, theirs = ((*found.ways, *found.stages.values()) for found in (several, one))
    for ours, other in zip(mine, theirs, strict=True):
        assert ours.keys() == other.keys()
        for name, array in ours.items():
            np.testing.assert_array_equal(array, other[name])


def test_every_preparation_of_an_image_counts_into_its_time(tmp_path, monkeypatch) -> None:
    """By a clock that goes on by a millisecond whenever somebody looks at it."""
    clock = itertools.count(0, 1_000_000)
    monkeypatch.setattr(batches, "time", SimpleNamespace(perf_counter_ns=lambda: next(clock)))
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), pictures(100)[0])
    with dyninfer.load(support.write_three_exits(tmp_path / "three.dyn")) as detector:
        for way, prepared in ((0, 1), (1, 2), (2, 2)):  # the second exit reads another size
            first, second = detector([path, *pictures(200)], policy=dyninfer.LeaveAt(way))
            for answer in (first, second):
                assert answer.timings_ms["prepare"] == prepared
                assert answer.timings_ms["postprocess"] == 1
            assert ("decode" in first.timings_ms, "decode" in second.timings_ms) == (True, False)


def test_what_a_call_took_beside_its_images_is_shared_evenly() -> None:
    found = [
        SimpleNamespace(timings_ms={"decode": 50.0, "prepare": 1.0, "first": 2.0}),
        SimpleNamespace(timings_ms={"prepare": 1.0, "first": 2.0, "second": 4.0}),
    ]
    np.testing.assert_allclose(_spent_ms(found, 16.0), [3 + 3, 7 + 3])
    np.testing.assert_allclose(_spent_ms(found, 4.0), [0, 4])  # clocks differ: never below 0


def test_an_array_on_a_gpu_is_given_whole() -> None:
    array = DeviceArray(64, (4, 3, 8, 8), np.dtype(np.float32), 0, None, lambda _: None)
    feed = batches._tensor_feed({"images": array})
    for rows in ([0, 1, 2, 3], [1, 2]):
        assert feed("images", np.array(rows), None) is array


def test_only_calls_that_tell_times_have_them_taken(workspaces, in_pairs) -> None:
    images = in_pairs.prepare(pictures(0, 51))
    for call, timed in (
        (lambda: in_pairs(pictures(0)), True),
        (lambda: in_pairs.infer(images), False),
        (lambda: in_pairs.trace(images), False),
        (lambda: in_pairs.run_stage("first", images), False),
        (lambda: in_pairs.warm_up([1]), False),
    ):
        call()
        assert [workspace.timed for workspace in workspaces] == [timed]
