"""What the stand-in shows elsewhere, on a real GPU; the first line of each test is what it settles.

On the simulated machine the same code runs everywhere, so that a name that is gone, or a call that
has changed, is noticed without a GPU.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Threshold
from dyninfer.engines.trt.memory import Pool
from dyninfer.errors import BackendUnavailable
from tests import support
from tests.dyninfer.cli.run import run
from tests.engines.trt.test_runtime_parts import columns, write_picky
from tests.gpu.grounds import Ground, Kind

SIZE = (64, 96)
MOST_OFF = {"fp16": 0.05, "int8": 0.5}
"""Of an output's largest value: random weights take rounding worse than trained ones do."""


@pytest.fixture(scope="module")
def made(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that keeps the engines that tests of this module build."""
    path = tmp_path_factory.mktemp("gpu") / "small.dyn"
    shutil.copytree(small_bundle, path)
    return path


@pytest.fixture
def bundle(made: Path, ground: Ground, small_bundle: Path, tmp_path: Path) -> Path:
    """The simulated machine's engines are ONNX in disguise, and must not be taken for others."""
    if ground.kind in (Kind.TENSORRT, Kind.RTX):
        return made
    path = tmp_path / "small.dyn"
    shutil.copytree(small_bundle, path)
    return path


def policies(images: np.ndarray, bundle: Path) -> list:
    """Both ends, and a threshold in the widest gap of the easiness."""
    with dyninfer.load(bundle) as detector:
        easiness = np.sort([o.easiness for o in detector.infer({"images": images})])
    gap = int(np.argmax(np.diff(easiness)))
    return [AlwaysEasy(), AlwaysHard(), Threshold(float(easiness[gap : gap + 2].mean()))]


def assert_close(found, expected, most_off: float = 2e-2) -> None:
    """Within what TF32 and another order of summation may change, or what rounding does."""
    for a, b in zip(found, expected, strict=True):
        assert a.exit_index == b.exit_index
        np.testing.assert_allclose(a.easiness, b.easiness, rtol=0, atol=most_off / 4)
        for name, array in b.outputs.items():
            spread = float(np.abs(array).max())
            np.testing.assert_allclose(a.outputs[name], array, rtol=0, atol=most_off * spread)


@pytest.mark.parametrize("speculative", [False, True], ids=["plain", "speculative"])
def test_routes_batches_and_graphs(ground, bundle, speculative, record_property) -> None:
    """Both exits and mixed batches give what the CPU gives, launched one by one and as graphs."""
    images = support.random_images(8, *SIZE)
    with (
        dyninfer.load(bundle) as reference,
        ground.load(bundle, speculative_head=speculative) as detector,
    ):
        for policy in policies(images, bundle):
            detector.policy = reference.policy = policy
            for batch in (8, 1, 3):
                inputs = {"images": images[:batch]}
                expected = reference.infer(inputs)
                for _ in range(4):  # first run, capture, launches
                    assert_close(detector.infer(inputs), expected)
        graphs = {name: engine.graph_count for name, engine in detector.engines.items()}
        record_property("graphs", graphs)
        assert any(graphs.values())


def test_threads(ground, bundle) -> None:
    """Four threads share a detector and get their own results."""
    images = support.random_images(8, *SIZE)
    turns = 2 if ground.kind is Kind.STAND_IN else 20
    with dyninfer.load(bundle) as reference, ground.load(bundle) as detector:
        detector.policy = reference.policy = policies(images, bundle)[2]
        expected = reference.infer({"images": images})

        def work(job: int) -> None:
            for turn in range(turns):
                batch = 1 + (job + turn) % 8
                assert_close(detector.infer({"images": images[:batch]}), expected[:batch])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))


def test_frames_sent_ahead(ground, bundle, tmp_path) -> None:
    """What is found in frames that were sent ahead is what single calls find."""
    for number, picture in enumerate(support.random_pictures(12)):
        assert cv2.imwrite(str(tmp_path / f"{number:02}.png"), picture)
    with ground.load(bundle) as detector:
        streamed = list(detector.stream(tmp_path))
        assert len(streamed) == 12
        for frame, found in streamed:
            expected = detector(frame.image)
            assert found.exit_index == expected.exit_index
            np.testing.assert_allclose(found.boxes_xyxy, expected.boxes_xyxy, atol=1e-2)


def test_the_steady_state_allocates_nothing(ground, bundle, record_property) -> None:
    """After the first calls no memory is allocated."""
    images = support.random_images(8, *SIZE)
    routes = policies(images, bundle)
    with ground.load(bundle) as detector:
        backend, held = detector.session.backend, []
        for _ in range(5):
            for policy in routes:
                detector.policy = policy
                detector.infer({"images": images})
            held.append(backend.allocated_bytes)
        record_property("allocated_bytes", held[-1])
        assert len(set(held[2:])) == 1


def test_times_are_those_of_the_device(ground, bundle, record_property) -> None:
    """Stage times come from the GPU's own events."""
    pictures = support.random_pictures(1)
    calls = 3 if ground.kind is Kind.STAND_IN else 50
    with ground.load(bundle) as detector:
        for name, policy in (("easy", AlwaysEasy()), ("hard", AlwaysHard())):
            detector.policy = policy
            spent, wall = [], []
            for _ in range(calls):
                start = time.perf_counter_ns()
                (found,) = detector(pictures)
                wall.append((time.perf_counter_ns() - start) / 1e6)
                stages = set(detector.engines) & set(found.timings_ms)
                spent.append(sum(found.timings_ms[stage] for stage in stages))
            record_property(f"{name}_stages_ms", round(float(np.median(spent)), 4))
            record_property(f"{name}_wall_ms", round(float(np.median(wall)), 4))
            assert np.median(spent) > 0


@pytest.mark.parametrize("precision", list(MOST_OFF))
def test_lower_precision(ground, bundle, precision, capsys, record_property) -> None:
    """Engines of lower precision are built by dyninfer build and stay near float32."""
    build = ("build", str(bundle), "--backend", ground.backend, "--precision", precision)
    status, _, complaint = run(capsys, *build, "--batch", "1:4:8")
    assert status == 0, complaint
    inputs = {"images": support.random_images(4, *SIZE)}
    with (
        dyninfer.load(bundle) as reference,
        ground.load(bundle, precision=precision, build=False) as detector,
    ):
        for policy in (AlwaysEasy(), AlwaysHard()):
            detector.policy = reference.policy = policy
            expected = reference.infer(inputs)
            for _ in range(3):
                found = detector.infer(inputs)
            off = [
                float(np.abs(a.outputs[name] - array).max() / np.abs(array).max())
                for a, b in zip(found, expected, strict=True)
                for name, array in b.outputs.items()
            ]
            record_property(f"{policy}_largest_error", round(max(off), 5))
            assert max(off) > 0  # it is not float32 that ran
            assert_close(found, expected, MOST_OFF[precision])


def test_outputs_whose_size_depends_on_the_data(ground, tmp_path) -> None:
    """Outputs whose size depends on the data arrive through IOutputAllocator."""
    if ground.kind is Kind.RTX:
        pytest.skip("TensorRT-RTX has no operator of that kind")
    path = write_picky(tmp_path / "picky.dyn")
    with dyninfer.load(path) as reference, ground.load(path) as detector:
        for batch, bright in ((1, 3), (1, 8), (2, 0), (2, 5), (1, 1), (2, 8)):
            found = detector.infer(columns(batch, bright))
            assert found[0].outputs["boxes_xyxy"].shape == (bright, 4)
            for a, b in zip(found, reference.infer(columns(batch, bright)), strict=True):
                for name, array in b.outputs.items():
                    np.testing.assert_allclose(a.outputs[name], array, rtol=1e-3, atol=1e-3)


def test_through_pycuda(ground, bundle) -> None:
    """PyCUDA takes the place of cuda-python, without graphs."""
    try:
        ground.use_pycuda()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    images = support.random_images(4, *SIZE)
    with dyninfer.load(bundle) as reference, ground.load(bundle) as detector:
        for policy in policies(images, bundle):
            detector.policy = reference.policy = policy
            for batch in (4, 1):
                inputs = {"images": images[:batch]}
                for _ in range(2):
                    assert_close(detector.infer(inputs), reference.infer(inputs))
        assert not any(engine.graph_count for engine in detector.engines.values())


def test_on_a_second_gpu(ground, bundle) -> None:
    """A detector on the second GPU beside one on the first, called in turns."""
    if ground.gpus < 2:
        pytest.skip("there is one GPU")
    images = support.random_images(4, *SIZE)
    with (
        dyninfer.load(bundle) as reference,
        ground.load(bundle) as first,
        ground.load(bundle, device="cuda:1") as second,
    ):
        assert (first.device, second.device) == ("cuda:0", "cuda:1")
        policy = policies(images, bundle)[2]
        first.policy = second.policy = reference.policy = policy
        expected = reference.infer({"images": images})
        for _ in range(3):
            for detector in (first, second):
                assert_close(detector.infer({"images": images}), expected)


@pytest.mark.gpu
def test_arrays_of_another_library(ground, bundle) -> None:
    """Pictures that lie on the GPU already are taken from CuPy or PyTorch."""
    if ground.kind is Kind.STAND_IN:
        pytest.skip("its arrays are those of tests/engines/trt/test_device_inputs.py")
    images = support.random_images(4, *SIZE)
    with ground.load(bundle) as detector:
        expected = detector.infer({"images": images})
        assert_close(detector.infer({"images": _on_the_gpu(images)}), expected)


def _on_the_gpu(images: np.ndarray):
    import torch

    if torch.cuda.is_available():
        return torch.from_numpy(images).cuda()
    cupy = pytest.importorskip("cupy", reason="neither PyTorch with CUDA nor CuPy is installed")
    return cupy.asarray(images)


def test_memory_that_is_not_there_is_one_line(ground) -> None:
    """Too much memory is refused in one line."""
    gpu = ground.open_gpu(0)
    with gpu.active(), support.refuses(dyninfer.EngineRunError, "device memory", "max_batch"):
        Pool(gpu, pinned=False).take(1 << 50)


@pytest.mark.gpu
def test_onnx_runtime_s_providers(provider, made) -> None:
    """ONNX Runtime's providers give what its CPU gives."""
    images = support.random_images(6, *SIZE)
    with (
        dyninfer.load(made) as reference,
        dyninfer.load(made, device="cuda:0", provider=provider) as detector,
    ):
        for policy in policies(images, made):
            detector.policy = reference.policy = policy
            for batch in (6, 1):
                inputs = {"images": images[:batch]}
                assert_close(detector.infer(inputs), reference.infer(inputs))
