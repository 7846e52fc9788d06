"""What the suite can stand on: a real TensorRT, PyTorch in its place, or the simulated machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import dyninfer
from dyninfer.builds import tensorrt
from dyninfer.cli import build_run
from dyninfer.engines.trt import backend
from dyninfer.engines.trt import cuda as cuda_module
from dyninfer.engines.trt.backend import Platform
from dyninfer.engines.trt.cuda import Cuda, open_cuda
from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.engines.trt.pycuda_driver import PyCuda, import_driver
from dyninfer.errors import BackendUnavailable
from tests.engines.trt.standin.driver import FakeDriver
from tests.engines.trt.standin.library import FakeLibrary, engine_file
from tests.engines.trt.standin.machine import Machine
from tests.engines.trt.standin.runtime import FakeContexts, FakeRuntime
from tests.gpu.choosing import RTX_CAPABILITIES

OpenGpu = Callable[[int], Cuda]


class Kind(str, Enum):
    """Values are parts of tests' names, by which a suite is chosen."""

    STAND_IN = "stand-in"
    PYTORCH = "pytorch"
    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"


@dataclass
class Ground:
    """Opens bundles and GPUs, as the runtime does from now on.

    ``library`` gives what stands where TensorRT does, for a GPU's number; ``machine`` is the
    simulated one, if that is what this is.
    """

    kind: Kind
    library: Callable[[int], Library]
    open_gpu: OpenGpu
    open_pycuda: OpenGpu
    gpus: int
    patch: pytest.MonkeyPatch
    machine: Machine | None = None

    @property
    def backend(self) -> str:
        """The backend's name."""
        return Flavour.RTX.value if self.kind is Kind.RTX else Flavour.TENSORRT.value

    def load(self, path: Path, **options: Any) -> dyninfer.Detector:
        """The bundle with engines, of one range of batches; built where there are none."""
        return dyninfer.load(path, **{"backend": self.backend, "max_batch": 8} | options)

    def use_pycuda(self) -> None:
        """Reach GPUs through PyCUDA from now on.

        Raises:
            BackendUnavailable: it is not installed, or has no GPU.
        """
        self.open_pycuda(0)
        self.open_gpu = self.open_pycuda
        self.patch.setattr(backend, "open_cuda", self.open_pycuda)

    def stand_in_for_tensorrt(self) -> Ground:
        """Let the runtime and ``dyninfer build`` find this where they look for TensorRT."""

        def find_platform(_flavour: Flavour, device: str) -> Platform:
            number = int(device.partition(":")[2] or 0)
            return Platform(self.library(number), self.open_gpu(number))

        def build_engine(_library: Library, source: Any, options: Any, *_others: Any) -> bytes:
            batch = options.batch
            profile = [batch.minimum, batch.optimum, batch.maximum]
            return engine_file(source.onnx, profiles=[profile])

        self.patch.setattr(backend, "find_platform", find_platform)
        self.patch.setattr(tensorrt, "build_engine", build_engine)
        self.patch.setattr(build_run, "load_library", lambda _flavour: self.library(0))
        self.patch.setattr(cuda_module, "open_cuda", lambda number: self.open_gpu(number))
        return self


def stand_on(kind: Kind, patch: pytest.MonkeyPatch) -> Ground:
    """The ground of this kind, for the duration of a test.

    Raises:
        BackendUnavailable: it is not there; the message says what is missing.
    """
    if kind is Kind.STAND_IN:
        return _on_a_simulated_machine(patch)
    gpu = open_cuda(0)
    if kind is Kind.PYTORCH:
        return _on_pytorch(gpu, patch)
    flavour, capability = Flavour(kind.value), gpu.properties.capability
    if flavour is Flavour.RTX and capability not in RTX_CAPABILITIES:
        raise BackendUnavailable(f"TensorRT-RTX does not know compute capability {capability}")
    library = load_library(flavour)
    return Ground(kind, lambda _number: library, open_cuda, _real_pycuda, _count(), patch)


def _on_a_simulated_machine(patch: pytest.MonkeyPatch) -> Ground:
    machine = Machine()
    libraries = [FakeLibrary(machine, device=number).library for number in range(machine.gpus)]
    return Ground(
        Kind.STAND_IN,
        libraries.__getitem__,
        lambda number: Cuda(number, FakeRuntime(machine), FakeContexts(machine)),
        lambda number: PyCuda(number, FakeDriver(machine)),
        machine.gpus,
        patch,
        machine,
    ).stand_in_for_tensorrt()


def _on_pytorch(gpu: Cuda, patch: pytest.MonkeyPatch) -> Ground:
    from tests.gpu.torch_library import OnGpu, TorchLibrary, why_not

    reason = why_not(gpu.properties.capability)
    if reason is not None:
        raise BackendUnavailable(reason)
    libraries = [TorchLibrary(OnGpu(number)).library for number in range(_count())]
    return Ground(
        Kind.PYTORCH, libraries.__getitem__, open_cuda, _real_pycuda, len(libraries), patch
    ).stand_in_for_tensorrt()


def _real_pycuda(number: int) -> Cuda:
    driver = import_driver()
    if driver is None:
        raise BackendUnavailable("PyCUDA is not installed, or cannot load libcuda")
    return PyCuda(number, driver)


def _count() -> int:
    """How many GPUs there are, two at most: more are not tested."""
    try:
        open_cuda(1)
    except BackendUnavailable:
        return 1
    return 2
