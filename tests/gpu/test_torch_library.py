"""PyTorch in TensorRT's place, as far as that goes without a GPU."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.cli.common import built_in_photos
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.pycuda_driver import PyCuda
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings, Int8Target
from tests import support
from tests.engines.trt.standin.driver import FakeDriver
from tests.engines.trt.standin.machine import Machine
from tests.engines.trt.standin.runtime import FakeContexts, FakeRuntime
from tests.engines.trt.test_runtime_parts import columns, picky_head, write_picky
from tests.gpu import grounds, torch_library
from tests.gpu.grounds import Ground, Kind, stand_on
from tests.gpu.onnx_in_torch import TorchGraph
from tests.gpu.test_on_a_gpu import assert_close, policies

pytestmark = pytest.mark.skipif(
    "DYNINFER_LOWEST" in os.environ,
    reason="make test-cuda runs with the PyTorch of the lock, whose exports have other operators",
)

SETTINGS = Int8Settings(
    target=Int8Target.TENSORRT,
    method=CalibrationMethod.MINMAX,
    max_deviation=float("inf"),
    search_samples=1,
)
OFF = {Precision.FP32: 1e-4, Precision.FP16: 2e-2, Precision.INT8: 5e-2}


@pytest.mark.parametrize("precision", list(OFF), ids=lambda precision: precision.value)
def test_stages_are_computed_as_onnx_runtime_does(
    small_bundle: Path, tmp_path: Path, precision: Precision
) -> None:
    bundle = Bundle.open(small_bundle)
    stages = bundle.manifest.stages
    plan = dict.fromkeys(stages, precision)
    made = convert_bundle_stages(bundle, plan, built_in_photos()[:1], tmp_path, SETTINGS)
    values: dict[str, np.ndarray] = {"images": support.random_images(2, 64, 96)}
    for name in stages:
        model = onnx.load(made[name].path)
        session = ort.InferenceSession(made[name].path)
        feeds = {i.name: values[i.name] for i in session.get_inputs()}
        names = [output.name for output in session.get_outputs()]
        expected = dict(zip(names, session.run(None, feeds), strict=True))
        found = TorchGraph(model, "cpu")({n: torch.from_numpy(a) for n, a in feeds.items()})
        assert set(found) == set(expected)
        for output, array in expected.items():
            assert found[output].numpy().dtype == array.dtype
            off = np.abs(found[output].numpy().astype(float) - array).max()
            assert off <= OFF[precision] * np.abs(array).max(), (name, output)
        values |= expected


def test_a_size_that_depends_on_the_data_is_computed() -> None:
    model = picky_head()
    session = ort.InferenceSession(model.SerializeToString())
    for bright in (0, 3, 8):
        feeds = columns(2, bright)
        found = TorchGraph(model, "cpu")({n: torch.from_numpy(a) for n, a in feeds.items()})
        for output, array in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            np.testing.assert_allclose(found[output.name].numpy(), array, atol=1e-5)


def test_the_best_rows_are_taken_as_a_head_takes_them() -> None:
    scores = np.random.default_rng(0).random((2, 9, 3), dtype=np.float32)
    nodes = [
        onnx.helper.make_node("ReduceMax", ["scores"], ["best"], axes=[2], keepdims=0),
        onnx.helper.make_node("TopK", ["best", "count"], ["values", "rows"], axis=1),
        onnx.helper.make_node("Unsqueeze", ["rows", "last"], ["places"]),
        onnx.helper.make_node("GatherND", ["scores", "places"], ["kept"], batch_dims=1),
    ]
    constants = {"count": np.array([4]), "last": np.array([2])}
    sizes = {"scores": ["batch", 9, 3]}, {"kept": ["batch", 4, 3]}
    model = support.tiny_model(*sizes, nodes, constants)
    (expected,) = ort.InferenceSession(model.SerializeToString()).run(None, {"scores": scores})
    found = TorchGraph(model, "cpu")({"scores": torch.from_numpy(scores)})["kept"]
    np.testing.assert_array_equal(found.numpy(), expected)


def test_an_operator_that_it_lacks_is_named() -> None:
    node = onnx.helper.make_node("Sin", ["images"], ["y"])
    model = support.tiny_model({"images": [1]}, {"y": [1]}, [node])
    with pytest.raises(NotImplementedError, match="Sin"):
        TorchGraph(model, "cpu")


def test_pytorch_has_the_names_that_are_used_on_a_gpu() -> None:
    cuda = torch.cuda
    assert "device" in inspect.signature(cuda.use_mem_pool).parameters
    assert "stream_ptr" in inspect.signature(cuda.ExternalStream.__new__).parameters
    for name in ("MemPool", "get_arch_list", "is_current_stream_capturing", "stream", "device"):
        assert hasattr(cuda, name), name
    assert not cuda.is_available() or cuda.MemPool()


def test_memory_at_an_address_is_described_as_the_array_interface_says(monkeypatch) -> None:
    described: list[Any] = []
    monkeypatch.setattr(torch, "as_tensor", lambda value, **_other: described.append(value))
    torch_library.OnGpu(0).tensor(4096, (2, 3), torch.float16)
    (value,) = described
    assert value.__cuda_array_interface__ == {
        **{"shape": (2, 3), "typestr": "<f2", "data": (4096, False), "strides": None},
        "version": 3,
    }


@pytest.mark.parametrize(
    ("arch", "wanted", "runs"),
    [
        ("sm_70", 70, True),
        ("sm_80", 86, True),
        ("sm_86", 80, False),
        ("sm_75", 70, False),
        ("sm_70", 75, True),
        ("sm_80", 90, False),
        ("compute_80", 90, True),
        ("sm_90a", 90, True),
        ("sm_120", 121, True),
        ("sm_100", 120, False),
    ],
)
def test_which_code_runs_on_which_gpu(arch: str, wanted: int, runs: bool) -> None:
    assert torch_library._runs_on(arch, wanted) is runs


def test_a_build_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no GPU" in str(torch_library.why_not("7.0"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    assert "none for sm_70" in str(torch_library.why_not("7.0"))
    assert torch_library.why_not("8.6") is None


class OnMachine:
    """Stages run on this processor, at once, in the memory of a simulated GPU."""

    device = "cpu"

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def new_pool(self) -> None:
        return None

    @contextlib.contextmanager
    def running(self, _handle: int, _pool: None):
        with torch.inference_mode():
            yield

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = int(np.prod(shape)) * dtype.itemsize
        view = self._machine.device_range(address, size, "a tensor").view
        return torch.from_numpy(view).view(dtype).reshape(shape)

    def wait(self, handle: int) -> None:
        self._machine.synchronize(handle)

    def is_capturing(self, handle: int) -> bool:
        return self._machine.capturing(handle)


@pytest.fixture
def pytorch(monkeypatch: pytest.MonkeyPatch) -> Ground:
    """The ground of make test-cuda over a simulated GPU, reached through PyCUDA, without graphs.

    What PyTorch does at once cannot be captured there.
    """
    machine = Machine(late=False)
    monkeypatch.setattr(torch_library, "OnGpu", lambda _number: OnMachine(machine))
    monkeypatch.setattr(torch_library, "why_not", lambda _capability: None)
    monkeypatch.setattr(
        grounds,
        "open_cuda",
        lambda number: Cuda(number, FakeRuntime(machine), FakeContexts(machine)),
    )
    found = stand_on(Kind.PYTORCH, monkeypatch)
    found.open_pycuda = lambda number: PyCuda(number, FakeDriver(machine))
    found.use_pycuda()
    return found


def test_a_detector_runs_on_it(pytorch: Ground, small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.dyn"
    shutil.copytree(small_bundle, path)
    images = support.random_images(4, 64, 96)
    assert pytorch.gpus == 2
    with dyninfer.load(path) as reference, pytorch.load(path) as detector:
        for policy in policies(images, path):
            detector.policy = reference.policy = policy
            assert_close(detector.infer({"images": images}), reference.infer({"images": images}))


def test_sizes_that_depend_on_the_data_go_through_the_allocator(
    pytorch: Ground, tmp_path: Path
) -> None:
    path = write_picky(tmp_path / "picky.dyn")
    with dyninfer.load(path) as reference, pytorch.load(path) as detector:
        for bright in (3, 0, 8):
            found, expected = (d.infer(columns(1, bright)) for d in (detector, reference))
            boxes = found[0].outputs["boxes_xyxy"]
            assert boxes.shape == (bright, 4)
            np.testing.assert_allclose(boxes, expected[0].outputs["boxes_xyxy"], atol=1e-4)


def test_what_pytorch_says_of_a_failure_is_the_reason(
    pytorch: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with")

    path = support.write_two_exits(tmp_path / "two.dyn")
    pytorch.open_gpu = grounds.open_cuda  # graphs come in the second run only
    with pytorch.load(path) as detector:
        monkeypatch.setattr(TorchGraph, "__call__", fail)
        with support.refuses(dyninfer.EngineRunError, "illegal memory access"):
            detector.infer({"images": support.coded_images([(0.9, 0, 0)])})
