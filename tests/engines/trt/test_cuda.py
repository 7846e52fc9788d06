"""CUDA through cuda-python and PyCUDA: what is used is there, what fails is one line."""

from __future__ import annotations

import importlib
import inspect
import re
import threading
from typing import Any

import pytest

import dyninfer
from dyninfer import BackendUnavailable, EngineRunError
from dyninfer.engines import open_backend
from dyninfer.engines.trt import backend, cuda, cuda_api, pycuda_driver
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.library import Flavour
from dyninfer.engines.trt.pycuda_driver import PyCuda
from tests import support
from tests.engines.trt.api_check import members
from tests.engines.trt.rig import DEVICE, make_rig
from tests.engines.trt.standin.driver import FakeDriver
from tests.engines.trt.standin.machine import Machine
from tests.engines.trt.standin.runtime import FakeContexts, FakeRuntime

MEMBERS = members(cuda_api)
RUNTIME_CLASSES = {
    "CudaError": "cudaError_t",
    "CudaMemcpyKind": "cudaMemcpyKind",
    "CudaMemcpySrcAccessOrder": "cudaMemcpySrcAccessOrder",
    "CudaMemcpyAttributes": "cudaMemcpyAttributes",
    "CudaStreamCaptureMode": "cudaStreamCaptureMode",
    "CudaDeviceProp": "cudaDeviceProp",
}
RUNTIME = [m for m in MEMBERS if m.owner == "CudaRuntime" or m.owner in RUNTIME_CLASSES]
CONTEXTS = [m for m in MEMBERS if m.owner == "CudaDriver"]
DRIVER = [m for m in MEMBERS if m not in (*RUNTIME, *CONTEXTS)]


# cuda-python


def test_every_protocol_belongs_to_one_of_the_two_packages() -> None:
    assert len(RUNTIME) > 30
    assert len(DRIVER) > 20
    assert {m.owner for m in DRIVER} == set(PYCUDA_SOURCE)


@pytest.mark.parametrize("member", [*RUNTIME, *CONTEXTS], ids=lambda member: member.key)
def test_the_installed_cuda_bindings_have_what_is_used(member) -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")
    owner: Any = cuda.import_driver_of(runtime) if member in CONTEXTS else runtime
    if member.owner in RUNTIME_CLASSES:
        owner = getattr(runtime, RUNTIME_CLASSES[member.owner])
    assert hasattr(owner, member.name)
    if member.parameters is not None:
        first_line = getattr(owner, member.name).__doc__.splitlines()[0]
        parameters = [part for part in first_line.split("(", 1)[1].rstrip(")").split(",") if part]
        protocol = getattr(cuda_api, member.owner)
        described = inspect.signature(getattr(protocol, member.name)).parameters
        assert len(parameters) == member.parameters
        names = [
            re.split(r"[: ]", part.strip())[-1 if " " in part.strip() and ":" not in part else 0]
            for part in parameters
        ]
        assert names == [name for name in described if name != "self"]


@pytest.mark.parametrize("member", [*RUNTIME, *CONTEXTS], ids=lambda member: member.key)
def test_the_stand_in_has_it_too(member) -> None:
    owner: Any = FakeContexts(Machine()) if member in CONTEXTS else FakeRuntime(Machine())
    if member.owner == "CudaDeviceProp":
        owner = owner.cudaGetDeviceProperties(0)[1]
    elif member.owner in RUNTIME_CLASSES:
        owner = getattr(owner, RUNTIME_CLASSES[member.owner])
    assert hasattr(owner, member.name)


def test_the_real_bindings_answer_without_a_driver_in_one_line() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")
    code, _ = runtime.cudaGetDeviceCount()
    if code == runtime.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a GPU; make test-gpu runs on it")
    driver = cuda.import_driver_of(runtime)
    with support.refuses(BackendUnavailable, "cudaGetDeviceCount", "NVIDIA driver"):
        Cuda(0, runtime, driver)


@pytest.mark.parametrize("code", ["cudaErrorInsufficientDriver", "cudaErrorNoDevice"])
def test_a_driver_that_answers_with_a_code(code) -> None:
    machine = Machine()
    machine.failures["cudaGetDeviceCount"] = code
    with support.refuses(BackendUnavailable, code, "NVIDIA driver"):
        Cuda(0, FakeRuntime(machine), FakeContexts(machine))


def test_a_driver_library_that_cannot_be_loaded() -> None:
    class NotThere(FakeRuntime):
        def cudaGetDeviceCount(self):  # noqa: N802  # CUDA's name
            raise RuntimeError('"cuda" is an NVIDIA driver library\nand was not found')

    with support.refuses(BackendUnavailable, "driver library", "NVIDIA driver"):
        Cuda(0, NotThere(Machine()), FakeContexts(Machine()))


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_a_gpu_that_is_not_there(package) -> None:
    machine = Machine(gpus=2)
    with support.refuses(BackendUnavailable, "'cuda:2'", "2 GPUs"):
        if package == "pycuda":
            PyCuda(2, FakeDriver(machine))
        else:
            Cuda(2, FakeRuntime(machine), FakeContexts(machine))


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_properties_are_read(package) -> None:
    found = make_rig(package=package).cuda.properties
    assert (found.name, found.compute_capability) == ("Stand-in GPU 1", (8, 6))
    assert (found.multiprocessors, found.memory_gib) == (46, 8)


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_failures_name_the_call_and_the_reason(package) -> None:
    rig = make_rig(package=package, memory=1000)
    with rig.cuda.active(), support.refuses(EngineRunError, "lloc", "cudaErrorMemoryAllocation"):
        rig.cuda.allocate(2000)


def test_the_current_gpu_of_a_thread_is_put_back_even_after_a_failure() -> None:
    rig = make_rig()
    assert rig.machine.current == 0

    def fail() -> None:
        with rig.cuda.active():
            with rig.cuda.active():
                assert rig.machine.current == DEVICE
            assert rig.machine.current == DEVICE
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert rig.machine.current == 0


def test_pycuda_contexts_are_popped_in_every_thread(tmp_path) -> None:
    """PyCUDA ends the process when a thread ends with a context on its stack."""
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package="pycuda")
    images = support.coded_images([(0.9, 0, 0), (0.1, 0, 1)])
    with rig.detector(path) as detector:
        threads = [
            threading.Thread(target=lambda: detector.infer({"images": images})) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stacks = rig.driver.stacks
    assert len(stacks) >= 3
    assert not any(stacks)


# PyCUDA, whose package takes long to build: names from its source, 2026.1,
# src/wrapper/wrap_cudadrv.cpp and pycuda/driver.py; test_pycuda.py builds it and compares

PYCUDA_SOURCE = {
    "PyCudaStream": {"handle", "synchronize", "is_done", "wait_for_event"},
    "PyCudaEvent": {"record", "synchronize", "query", "time_since", "time_till", "ipc_handle"},
    "DeviceAllocation": {"__int__", "__index__", "as_buffer", "free"},
    "PagelockedHostAllocation": {"free", "get_flags", "get_device_pointer"},
    "PyCudaContext": {"push", "pop", "get_device", "synchronize", "get_current", "detach"},
    "PyCudaDevice": {
        *("name", "compute_capability", "total_memory", "retain_primary_context"),
        "get_attribute",
    },
    "DeviceAttribute": {"MULTIPROCESSOR_COUNT", "CLOCK_RATE", "WARP_SIZE"},
    "DeviceClass": {"__call__", "count"},
    "EventFlags": {"DEFAULT", "BLOCKING_SYNC", "DISABLE_TIMING", "INTERPROCESS"},
    "PyCudaDriver": {
        *("Error", "Context", "Device", "event_flags", "init", "device_attribute", "Stream"),
        *("Event", "mem_alloc", "pagelocked_empty", "memcpy_htod_async", "memcpy_dtoh_async"),
        *("memcpy_dtod_async", "get_version", "mem_get_info"),
    },
}
PYCUDA_PARAMETERS = {
    "memcpy_htod_async": ["dest", "src", "stream"],
    "memcpy_dtoh_async": ["dest", "src", "stream"],
    "memcpy_dtod_async": ["dest", "src", "size", "stream"],
    "pagelocked_empty": ["shape", "dtype"],
}


@pytest.mark.parametrize("member", DRIVER, ids=lambda member: member.key)
def test_the_source_of_pycuda_has_what_is_used(member) -> None:
    assert member.name in PYCUDA_SOURCE[member.owner]
    if member.name in PYCUDA_PARAMETERS:
        described = inspect.signature(getattr(cuda_api.PyCudaDriver, member.name)).parameters
        assert [n for n in described if n != "self"] == PYCUDA_PARAMETERS[member.name]


# What is missing


@pytest.fixture
def without(monkeypatch):
    """Make modules unimportable, as if they were not installed."""
    real = importlib.import_module

    def hide(*names: str) -> None:
        def only_others(name: str, package: str | None = None):
            if name in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, package)

        monkeypatch.setattr(importlib, "import_module", only_others)
        backend.load_library.cache_clear()

    yield hide
    backend.load_library.cache_clear()


def test_all_that_is_missing_is_said_at_once(tmp_path, without) -> None:
    without("tensorrt", "tensorrt_rtx", *cuda.MODULES, pycuda_driver.MODULE)
    path = support.write_two_exits(tmp_path / "two.dyn")
    for name in ("tensorrt", "tensorrt-rtx"):
        extra = f"[{name}]"
        with support.refuses(
            BackendUnavailable, repr(name), "cannot be used", extra, "cuda-python"
        ):
            dyninfer.load(path, backend=name)


def test_a_device_that_tensorrt_does_not_run_on() -> None:
    for device in ("cpu", "cuda:x", "gpu", ""):
        with support.refuses(BackendUnavailable, repr(device), "'cuda:0'"):
            open_backend("tensorrt-rtx", device)


def test_a_provider_belongs_to_onnx_runtime() -> None:
    with support.refuses(BackendUnavailable, "'cuda'", "ONNX Runtime"):
        open_backend("tensorrt", provider="cuda")


def test_pycuda_takes_the_place_of_cuda_python(without, monkeypatch) -> None:
    without(*cuda.MODULES)
    monkeypatch.setattr(pycuda_driver, "import_driver", lambda: FakeDriver(Machine()))
    opened = cuda.open_cuda(1)
    assert (opened.package, opened.device, opened.has_graphs) == ("pycuda", 1, False)
    with support.refuses(EngineRunError, "no graphs", "cuda-python"):
        opened.begin_capture(None)


@pytest.mark.parametrize("flavour", Flavour)
def test_here_it_is_said_what_is_missing(flavour) -> None:
    runtime = cuda.import_runtime()
    if runtime is not None and int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a GPU; make test-gpu runs on it")
    with support.refuses(BackendUnavailable, flavour.value, "install"):
        open_backend(flavour.value)
