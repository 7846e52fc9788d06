"""``dyninfer.load`` on TensorRT, from the bundle to detections, with the stand-in underneath."""

from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer import EngineBuildError, Threshold
from dyninfer.builds import tensorrt
from dyninfer.engines.trt import backend
from dyninfer.engines.trt.backend import Platform
from tests import support
from tests.engines.trt.rig import assert_same, make_rig
from tests.engines.trt.standin.library import VERSIONS, engine_file


@pytest.fixture
def platform(monkeypatch):
    """Put the stand-in where TensorRT and the GPU are looked for; builds are ONNX in disguise."""

    def put(version: str = "10.13", package: str = "cuda-python"):
        rig = make_rig(version, package)
        found = Platform(rig.fake.library, rig.cuda)
        monkeypatch.setattr(backend, "find_platform", lambda _flavour, _device: found)

        def build(_library, source, options, *_others) -> bytes:
            batch = options.batch
            sizes = [batch.minimum, batch.optimum, batch.maximum]
            return engine_file(source.onnx, profiles=[sizes])

        monkeypatch.setattr(tensorrt, "build_engine", build)
        return rig

    return put


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bundle_is_built_opened_and_found_again(tmp_path, platform, version) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = platform(version)
    name = rig.fake.library.flavour.value
    images = {"images": support.coded_images([(0.9, 0, 0), (0.1, 0, 1), (0.2, 0, 2)])}
    pictures = support.random_pictures(3)
    with dyninfer.load(path) as reference:
        expected, boxes = reference.infer(images), reference(pictures)
    for build in (True, False):  # made by the first, found by the second
        with dyninfer.load(path, backend=name, build=build) as detector:
            assert (detector.backend, detector.device) == (name, "cuda:1")
            for _ in range(3):
                assert_same(detector.infer(images), expected)
            for found, wanted in zip(detector(pictures), boxes, strict=True):
                np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=1e-3)
            record = detector.engine_record()
            assert (record.backend, record.device_name) == (name, "Stand-in GPU 1")
        assert not rig.machine.leaks()


def test_without_a_build_and_without_leave_to_build_it_is_refused(tmp_path, platform) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = platform()
    with support.refuses(EngineBuildError, "no build", "dyninfer build", "--backend tensorrt"):
        dyninfer.load(path, backend="tensorrt", build=False)
    assert not rig.machine.leaks()


def test_an_engine_that_does_not_open_leaves_nothing_behind(
    tmp_path, platform, monkeypatch
) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = platform()
    monkeypatch.setattr(tensorrt, "build_engine", lambda *_: b"for another GPU")
    with support.refuses(EngineBuildError, "does not open", "Magic tag", "build it again"):
        dyninfer.load(path, backend="tensorrt")
    assert not rig.machine.leaks()


def test_a_policy_may_change_and_a_stage_may_run_alone(tmp_path, platform) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    platform()
    images = support.coded_images([(0.4, 0, 0), (0.6, 0, 1)])
    with dyninfer.load(path, backend="tensorrt", speculative_head=True) as detector:
        value = detector.run_stage("first", {"images": images})["value"]
        np.testing.assert_allclose(value[:, 0], [0.4, 0.6], rtol=1e-6)
        for threshold, exits in ((0.3, [0, 0]), (0.5, [1, 0]), (0.7, [1, 1])):
            detector.policy = Threshold(threshold)
            assert [o.exit_index for o in detector.infer({"images": images})] == exits
