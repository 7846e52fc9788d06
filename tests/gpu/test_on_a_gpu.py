"""What the stand-in shows elsewhere, on a real GPU."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Threshold
from dyninfer.engines.trt.memory import Pool
from tests import support

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SIZE = (64, 96)


@pytest.fixture(scope="module")
def bundle(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpu") / "small.dyn"
    shutil.copytree(small_bundle, path)
    return path


def policies(images: np.ndarray, bundle: Path) -> list:
    """Both ends, and a threshold in the widest gap of the easiness."""
    with dyninfer.load(bundle) as detector:
        easiness = np.sort([o.easiness for o in detector.infer({"images": images})])
    gap = int(np.argmax(np.diff(easiness)))
    return [AlwaysEasy(), AlwaysHard(), Threshold(float(easiness[gap : gap + 2].mean()))]


def assert_close(found, expected) -> None:
    """Within what TF32 and another order of summation may change."""
    for a, b in zip(found, expected, strict=True):
        assert a.exit_index == b.exit_index
        np.testing.assert_allclose(a.easiness, b.easiness, rtol=0, atol=5e-3)
        for name, array in b.outputs.items():
            spread = float(np.abs(array).max())
            np.testing.assert_allclose(a.outputs[name], array, rtol=0, atol=2e-2 * spread)


@pytest.mark.parametrize("speculative", [False, True])
def test_routes_batches_and_graphs(flavour, bundle, speculative, record_property) -> None:
    images = support.random_images(8, *SIZE)
    with (
        dyninfer.load(bundle, max_batch=8) as reference,
        dyninfer.load(
            bundle, backend=flavour.value, max_batch=8, speculative_head=speculative
        ) as detector,
    ):
        for policy in policies(images, bundle):
            detector.policy = reference.policy = policy
            for batch in (8, 1, 3):
                inputs = {"images": images[:batch]}
                for _ in range(4):  # first run, capture, launches
                    assert_close(detector.infer(inputs), reference.infer(inputs))
        graphs = {name: engine.graph_count for name, engine in detector.engines.items()}
        record_property("graphs", graphs)
        assert any(graphs.values())


def test_threads(flavour, bundle) -> None:
    images = support.random_images(8, *SIZE)
    with (
        dyninfer.load(bundle) as reference,
        dyninfer.load(bundle, backend=flavour.value) as detector,
    ):
        detector.policy = reference.policy = policies(images, bundle)[2]
        expected = reference.infer({"images": images})

        def work(job: int) -> None:
            for turn in range(20):
                batch = 1 + (job + turn) % 8
                assert_close(detector.infer({"images": images[:batch]}), expected[:batch])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))


def test_the_steady_state_allocates_nothing(flavour, bundle, record_property) -> None:
    images = support.random_images(8, *SIZE)
    with dyninfer.load(bundle, backend=flavour.value) as detector:
        backend = detector.session.backend
        held, routes = [], policies(images, bundle)
        for _ in range(6):
            for policy in routes:
                detector.policy = policy
                detector.infer({"images": images})
            held.append(backend.allocated_bytes)
        record_property("allocated_bytes", held[-1])
        assert len(set(held[2:])) == 1


def test_times_are_those_of_the_device(flavour, bundle, record_property) -> None:
    pictures = support.random_pictures(1)
    with dyninfer.load(bundle, backend=flavour.value) as detector:
        for name, policy in (("easy", AlwaysEasy()), ("hard", AlwaysHard())):
            detector.policy = policy
            spent, wall = [], []
            for _ in range(50):
                start = time.perf_counter_ns()
                (found,) = detector(pictures)
                wall.append((time.perf_counter_ns() - start) / 1e6)
                stages = set(detector.engines) & set(found.timings_ms)
                spent.append(sum(found.timings_ms[stage] for stage in stages))
            record_property(f"{name}_stages_ms", round(float(np.median(spent)), 4))
            record_property(f"{name}_wall_ms", round(float(np.median(wall)), 4))
            assert np.median(spent) > 0


def test_arrays_of_another_library(flavour, bundle) -> None:
    """CuPy or PyTorch, whichever is there with CUDA."""
    images = support.random_images(4, *SIZE)
    with dyninfer.load(bundle, backend=flavour.value) as detector:
        expected = detector.infer({"images": images})
        for shared in _shared(images):
            assert_close(detector.infer({"images": shared}), expected)


def _shared(images: np.ndarray) -> list:
    import torch

    if torch.cuda.is_available():
        return [torch.from_numpy(images).cuda()]
    cupy = pytest.importorskip("cupy", reason="neither PyTorch with CUDA nor CuPy is installed")
    return [cupy.asarray(images)]


def test_memory_that_is_not_there_is_one_line(cuda) -> None:
    with cuda.active(), support.refuses(dyninfer.EngineRunError, "device memory", "max_batch"):
        Pool(cuda, pinned=False).take(1 << 50)


def test_onnx_runtime_s_providers(provider, bundle) -> None:
    images = support.random_images(6, *SIZE)
    with (
        dyninfer.load(bundle) as reference,
        dyninfer.load(bundle, device="cuda:0", provider=provider) as detector,
    ):
        for policy in policies(images, bundle):
            detector.policy = reference.policy = policy
            for batch in (6, 1):
                inputs = {"images": images[:batch]}
                assert_close(detector.infer(inputs), reference.infer(inputs))
