"""PyTorch in TensorRT's place: the same calls, real kernels, for GPUs that have no TensorRT.

An engine is one of the stand-in's, an ONNX model in disguise. All that the runtime does with CUDA
is real: streams, events, copies, page-locked memory, graphs, addresses. What a stage computes is
PyTorch's, on the stream that the runtime hands over, and is captured with it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from dyninfer.engines.trt.library import Flavour, Library
from tests.engines.trt.standin import library as standin
from tests.gpu.onnx_in_torch import TorchGraph

TYPES = {
    standin.DataType.FLOAT: torch.float32,
    standin.DataType.HALF: torch.float16,
    standin.DataType.INT64: torch.int64,
}
_TYPESTR = {torch.float32: "<f4", torch.float16: "<f2", torch.int64: "<i8"}


class OnGpu:
    """Where stages run: a GPU, its streams by their handles, and its memory by addresses."""

    def __init__(self, number: int) -> None:
        self.device = f"cuda:{number}"

    def new_pool(self) -> Any:
        """Memory of one context's own, so that a graph's intermediate values stay in place."""
        with torch.cuda.device(self.device):
            return torch.cuda.MemPool()

    @contextmanager
    def running(self, handle: int, pool: Any) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.cuda.device(self.device))
            stream = torch.cuda.ExternalStream(handle, device=self.device)
            stack.enter_context(torch.cuda.stream(stream))
            stack.enter_context(torch.cuda.use_mem_pool(pool, device=self.device))
            yield

    def tensor(self, address: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The values at an address, not copied."""
        interface = {
            "shape": shape,
            "typestr": _TYPESTR[dtype],
            "data": (address, False),
            "strides": None,
            "version": 3,
        }
        return torch.as_tensor(
            SimpleNamespace(__cuda_array_interface__=interface), device=self.device
        )

    def wait(self, handle: int) -> None:
        torch.cuda.ExternalStream(handle, device=self.device).synchronize()

    def is_capturing(self, _handle: int) -> bool:
        """Asked within :meth:`running`."""
        return torch.cuda.is_current_stream_capturing()


class Untold:
    """Takes what the stand-in would tell its machine: a real one needs no telling."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None


class TorchContext(standin.ExecutionContext):
    """One stage with its shapes and addresses; runs on whatever stream it is given."""

    def __init__(self, library: TorchLibrary, logger: Any, engine: Any) -> None:
        super().__init__(library, logger, engine)
        self._place = library.place
        self._graph = library.graph_of(self._model)
        self._pool = self._place.new_pool()

    def _set_memory(self, memory: int, size: int | None) -> None:
        self._memory = (memory, size or self._model.scratch)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._memory is not None, "run before the context had scratch memory"
        unknown = {n for n, s in self._model.inferred(self._shapes).items() if -1 in s}
        try:
            with self._place.running(stream_handle, self._pool):
                if unknown and self._place.is_capturing(stream_handle):
                    return self._log_error("sizes that depend on the data cannot be captured")
                feeds = {name: self._at(name, shape) for name, shape in self._shapes.items()}
                made = self._graph(feeds)
                if unknown:
                    self._place.wait(stream_handle)
                for name, value in made.items():
                    if name in unknown and not self._reserve(name, value, stream_handle):
                        return False
                    self._at(name, tuple(value.shape)).copy_(value)
        except RuntimeError as error:  # of CUDA, PyTorch's way
            return self._log_error(" ".join(str(error).split()))
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> Tensor:
        dtype = TYPES[self._model.dtype(name)]
        if 0 in shape:
            return torch.empty(shape, dtype=dtype, device=self._place.device)
        return self._place.tensor(self._addresses[name], shape, dtype)

    def _reserve(self, name: str, value: Tensor, handle: int) -> bool:
        """Ask the output's allocator for memory, and tell it the shape."""
        allocator = self._allocators[name]()
        size = value.numel() * value.element_size()
        address = allocator.reallocate_output_async(name, 0, size, 256, handle)
        if not address:
            return self._log_error(f"no memory for {name}")
        self._addresses[name] = address
        allocator.notify_shape(name, tuple(value.shape))
        return True


class TorchLibrary(standin.FakeLibrary):
    """Looks like TensorRT 10.13; ``place`` is where its stages run."""

    def __init__(self, place: Any) -> None:
        super().__init__(Untold())
        self.place = place
        self._graphs: dict[int, tuple[standin.Model, TorchGraph]] = {}
        self._lock = threading.Lock()
        bases = (TorchContext, standin.WithSizedMemory)
        self.module.IExecutionContext = type("IExecutionContext", bases, {})
        self.module.__version__ = f"0 (PyTorch {torch.__version__})"

    @property
    def library(self) -> Library:
        return Library(Flavour.TENSORRT, self.module, self.module.__version__)

    def graph_of(self, model: standin.Model) -> TorchGraph:
        """A stage's graph with its constants on the GPU, shared by all of its contexts."""
        with self._lock:
            if id(model) not in self._graphs:
                self._graphs[id(model)] = (model, TorchGraph(model.proto, self.place.device))
            return self._graphs[id(model)][1]


def why_not(capability: str) -> str | None:
    """What keeps PyTorch from running on a GPU of this compute capability, if anything does."""
    if not torch.cuda.is_available():
        built = torch.version.cuda or "the CPU alone"
        return (
            f"PyTorch {torch.__version__}, built for {built}, sees no GPU; install its CUDA build"
        )
    known = torch.cuda.get_arch_list()
    wanted = int(capability.replace(".", ""))
    if not any(_runs_on(arch, wanted) for arch in known):
        return (
            f"PyTorch {torch.__version__} has code for {', '.join(known)} and none for "
            f"sm_{wanted}; install its build for an older CUDA (12.6 for Volta) or a newer one"
        )
    return None


def _runs_on(arch: str, wanted: int) -> bool:
    """Whether code for "sm_86" or "compute_86" runs on what is wanted, 89 for example."""
    kind, _, digits = arch.partition("_")
    number = int("".join(digit for digit in digits if digit.isdecimal()))
    return number <= wanted and (kind == "compute" or number // 10 == wanted // 10)
