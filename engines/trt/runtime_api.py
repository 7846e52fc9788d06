"""What running an engine uses of TensorRT's Python modules, as types.

The other half of :mod:`dyninfer.engines.trt.api`, which has what building uses: the same rules
hold, and the same test compares every protocol with the real modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class IOutputAllocator(Protocol):
    """Asked for memory for an output whose size depends on the data; subclassed in ``lane``.

    TensorRT 8.6 calls ``reallocate_output``; later versions call ``reallocate_output_async``.
    """


class IExecutionContext(Protocol):
    """An engine at work: its shapes, addresses and scratch memory."""

    device_memory: Any

    def set_device_memory(self, memory: int, size: int, /) -> None: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int, /) -> bool: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...], /) -> bool: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def set_tensor_address(self, name: str, memory: int, /) -> bool: ...
    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator, /) -> bool: ...
    def infer_shapes(self) -> Sequence[str]: ...
    def execute_async_v3(self, stream_handle: int, /) -> bool: ...
    def is_stream_capturable(self, stream: int, /) -> bool: ...


class IRuntimeCache(Protocol):
    """Kernels that were compiled for this GPU, for the next context to take."""


class IRuntimeConfig(Protocol):
    """How a context is to be made."""

    def set_execution_context_allocation_strategy(self, strategy: Any, /) -> None: ...
    def create_runtime_cache(self) -> IRuntimeCache: ...
    def set_runtime_cache(self, cache: IRuntimeCache, /) -> bool: ...


class ICudaEngine(Protocol):
    """A stage, compiled."""

    num_io_tensors: int
    num_optimization_profiles: int
    device_memory_size: int
    device_memory_size_v2: int

    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Any: ...
    def get_tensor_dtype(self, name: str, /) -> Any: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def get_tensor_location(self, name: str, /) -> Any: ...
    def get_tensor_profile_shape(
        self, name: str, profile_index: int, /
    ) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Any, /) -> IExecutionContext | None: ...
    def create_execution_context_without_device_memory(self) -> IExecutionContext | None: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...


class Runtime(Protocol):
    """Opens engines."""

    def deserialize_cuda_engine(self, serialized_engine: bytes, /) -> ICudaEngine | None: ...


class ExecutionContextAllocationStrategy(Protocol):
    """Who provides a context's scratch memory."""

    USER_MANAGED: Any


class TensorIOMode(Protocol):
    """Directions of a tensor."""

    INPUT: Any
    OUTPUT: Any


class TensorLocation(Protocol):
    """Where a tensor's values are read."""

    DEVICE: Any


class DataType(Protocol):
    """Element types."""

    FLOAT: Any
    HALF: Any


OPTIONAL = {
    "IExecutionContext.device_memory": "written where set_device_memory is missing",
    "IExecutionContext.set_device_memory": "TensorRT 10 and later, TensorRT-RTX",
    "IExecutionContext.is_stream_capturable": "TensorRT-RTX",
    "ICudaEngine.device_memory_size": "TensorRT 8 and 10",
    "ICudaEngine.device_memory_size_v2": "TensorRT 10 and later, TensorRT-RTX",
    "ICudaEngine.create_execution_context_without_device_memory": "TensorRT 8 and 10",
    "ICudaEngine.create_runtime_config": "TensorRT 10 and later, TensorRT-RTX",
    "IRuntimeConfig.create_runtime_cache": "TensorRT-RTX",
    "IRuntimeConfig.set_runtime_cache": "TensorRT-RTX",
    "IRuntimeCache": "TensorRT-RTX",
    "ExecutionContextAllocationStrategy": "TensorRT 10 and later, TensorRT-RTX",
}
"""Class or member -> which libraries have it; what is not named here, all of them have."""
