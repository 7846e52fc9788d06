"""``dyninfer.load`` on TensorRT, from the bundle to detections, with the stand-in underneath."""

from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer import EngineBuildError, EngineRunError, Threshold
from dyninfer.builds import tensorrt
from dyninfer.builds.spec import VERSION_COMPATIBLE
from dyninfer.engines.trt import backend
from dyninfer.engines.trt.backend import Platform
from tests import support
from tests.engines.trt.rig import assert_same, make_rig
from tests.engines.trt.standin.library import VERSIONS, engine_file, profiles_of


@pytest.fixture
def platform(monkeypatch):
    """Put the stand-in where TensorRT and the GPU are looked for; builds are ONNX in disguise."""

    def put(version: str = "10.13", package: str = "cuda-python"):
        rig = make_rig(version, package)
        found = Platform(rig.fake.library, rig.cuda)
        monkeypatch.setattr(backend, "find_platform", lambda _flavour, _device: found)

        def build(library, source, options, *_others) -> bytes:
            shared = library.must_share_profiles
            profiles = profiles_of(options.batch)
            return engine_file(source.onnx, profiles=profiles, shared_profiles=shared)

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


def test_only_a_build_made_so_may_run_code_of_its_engines(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig, images = make_rig(), {"images": support.coded_images([(0.9, 0, 0), (0.1, 0, 1)])}
    with rig.detector(path, also={VERSION_COMPATIBLE: "yes"}) as detector:
        assert [output.exit_index for output in detector.infer(images)] == [0, 1]
    refused = support.refuses(EngineBuildError, "'first'", "engine_host_code_allowed")
    with refused, make_rig().detector(path, first={"host_code": True}):
        pass


def test_tensorrt_8_6_gets_a_second_context_only_if_it_was_built_for_that(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    images = {"images": support.coded_images([(0.9, 0, 0), (0.1, 0, 1), (0.9, 0, 2)])}
    one = {"images": images["images"][:1]}
    with make_rig("8.6").detector(path) as detector:
        assert [output.exit_index for output in detector.infer(images)] == [0, 1, 0]
        assert [output.exit_index for output in detector.infer(one)] == [0]
    with make_rig("8.6").detector(path, all={"shared_profiles": False}) as detector:
        detector.infer(images)
        with support.refuses(EngineRunError, "Profile 0 has been chosen by another"):
            detector.infer(one)


def test_a_runtime_without_a_driver_is_never_called(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig("11.4")
    rig.fake.has_no_driver = True
    with (
        support.refuses(EngineBuildError, "cannot start a runtime", "driver version", "nvidia-smi"),
        rig.detector(path),
    ):
        pass
