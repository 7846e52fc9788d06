"""What TensorRT-RTX compiles and TensorRT measures is there for the next process."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dyninfer import AlwaysHard
from dyninfer.builds import tensorrt
from dyninfer.builds.spec import BuildTarget, own_precision, this_system
from dyninfer.builds.tensorrt import TensorRTBuilder
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.trt import kept
from dyninfer.engines.trt.builder import EngineOptions
from dyninfer.engines.trt.targets import BatchProfile
from tests import support
from tests.engines.trt.rig import make_rig
from tests.engines.trt.test_runtime import EASY, HARD, two


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(kept, "user_cache", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "kernels"


def compiled(path: Path, version: str = "1.7.1", batches=(1, 2)) -> int:
    """How often a process compiles that takes these batches."""
    rig = make_rig("rtx")
    rig.fake.module.__version__ = rig.backend.version = version
    with rig.detector(path) as detector:
        for batch in batches:
            for _ in range(2):  # the second one is captured
                detector.infer(two([HARD] * batch), policy=AlwaysHard())
    return rig.machine.calls["compile"]


@pytest.fixture
def bundle(tmp_path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def test_the_second_process_compiles_nothing_and_a_new_size_once(bundle, cache) -> None:
    first = compiled(bundle)

    assert first > 0
    assert compiled(bundle) == 0
    assert compiled(bundle, batches=(1, 3)) == first / 2
    assert compiled(bundle, batches=(1, 2, 3)) == 0
    assert len(list(cache.iterdir())) == 3  # the head does not run


def test_kernels_are_kept_once_they_are_captured_and_not_only_at_the_end(bundle, cache) -> None:
    rig = make_rig("rtx")
    with rig.detector(bundle) as detector:
        detector.warm_up(batches=[2])
        written = {path.name: path.read_bytes() for path in cache.iterdir()}
        assert len(written) == 4
        before = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
        detector.infer(two([EASY, HARD]))
    assert {path.name: path.stat().st_mtime_ns for path in cache.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"1.6.0\nkernels"])
def test_what_the_library_refuses_is_compiled_anew_and_replaced(bundle, cache, content) -> None:
    first = compiled(bundle)
    for path in cache.iterdir():
        path.write_bytes(content)

    assert compiled(bundle) == first
    assert compiled(bundle) == 0


def test_another_version_of_the_library_has_its_own(bundle) -> None:
    first = compiled(bundle)

    assert compiled(bundle, "1.8.0") == first
    assert compiled(bundle) == compiled(bundle, "1.8.0") == 0


def test_what_another_user_wrote_is_not_read(bundle, monkeypatch) -> None:
    first = compiled(bundle)
    monkeypatch.setattr(os, "getuid", lambda: 12345)

    assert compiled(bundle) == first


def test_where_nothing_can_be_kept_everything_still_runs(bundle, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (lambda _: tmp_path / "file" / "kernels", no_home):
        monkeypatch.setattr(kept, "user_cache", folder)
        first = compiled(bundle)
        assert first > 0
        assert compiled(bundle) == first


def no_home(_name: str) -> Path:
    raise OSError("this user has no home")


def test_timings_are_kept_for_a_version_and_a_gpu(cache) -> None:
    path = kept.timing_file("10.4.0", "Tesla V100/SXM2 16GB")

    assert path == cache.parent / "timings" / "10.4.0-Tesla-V100-SXM2-16GB.cache"


@pytest.mark.parametrize(
    ("version", "gpu", "given", "expected"),
    [
        ("10.13", "T4", None, "timings/10.13.0-T4.cache"),
        ("10.13", "T4", Path("mine.cache"), "mine.cache"),
        ("10.13", None, None, None),
        ("rtx", "T4", None, None),
    ],
)
def test_builds_use_the_timings_of_the_gpu_that_is_here(
    bundle, cache, monkeypatch, version, gpu, given, expected
) -> None:
    told: list[Path | None] = []

    def build(_library, source, options, *_others) -> bytes:
        told.append(options.timing_cache)
        return source.name.encode()

    monkeypatch.setattr(tensorrt, "build_engine", build)
    library, opened = make_rig(version).fake.library, Bundle.open(bundle)
    if version == "rtx":
        library.module.ComputeCapability = SimpleNamespace(SM75=1)
    target = BuildTarget(compute_capabilities=("7.5",), system=this_system(), gpu_name=gpu)
    options = EngineOptions(BatchProfile.parse("1"), timing_cache=given)
    builder = TensorRTBuilder(library, target, options)
    builder.make(opened, builder.wanted(opened.manifest, own_precision(opened.manifest), 1))

    assert {path and str(path).removeprefix(f"{cache.parent}/") for path in told} == {expected}


def test_timings_of_a_user_without_a_home_are_not_kept(monkeypatch) -> None:
    monkeypatch.setattr(kept, "user_cache", no_home)

    assert kept.timing_file("10.4.0", "T4") is None
