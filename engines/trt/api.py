"""What this project uses of TensorRT's Python modules, as types.

Every protocol has the name of the class that it describes and exactly the members that are used
here; :class:`Module` describes the module itself. mypy shows that no code reaches beyond them, and
tests compare each with the real ``tensorrt_rtx`` and with NVIDIA's bindings of seven versions.
So an attribute that a library does not have cannot stay unnoticed, although no one machine has all
the versions. NVIDIA's documentation describes the classes. Where a method returns False or None, it
failed, and the logger knows why; an axis of -1 is dynamic.

Members that some versions or flavours lack are named in :data:`OPTIONAL`; only
:mod:`dyninfer.engines.trt.library` asks whether they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class ILogger(Protocol):
    """Receives the library's messages; subclassed in :mod:`dyninfer.engines.trt.library`."""

    INTERNAL_ERROR: Any
    ERROR: Any
    WARNING: Any


class IProgressMonitor(Protocol):
    """Told of every phase of a build; subclassed in :mod:`dyninfer.engines.trt.progress`."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...
    def phase_finish(self, phase_name: str) -> None: ...


class ITensor(Protocol):
    name: str
    shape: Sequence[int]
    dtype: Any


class ILayer(Protocol):
    name: str
    num_outputs: int
    precision: Any

    def get_output(self, index: int, /) -> ITensor: ...
    def set_output_type(self, index: int, dtype: Any, /) -> None: ...


class INetworkDefinition(Protocol):
    num_inputs: int
    num_layers: int

    def get_input(self, index: int, /) -> ITensor: ...
    def get_layer(self, index: int, /) -> ILayer: ...


class ParserError(Protocol):
    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    num_errors: int

    def parse_from_file(self, model: str, /) -> bool: ...
    def get_error(self, index: int, /) -> ParserError: ...


class IOptimizationProfile(Protocol):
    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int], /
    ) -> None: ...


class ITimingCache(Protocol):
    def serialize(self) -> Any: ...


class IBuilderConfig(Protocol):
    progress_monitor: IProgressMonitor
    hardware_compatibility_level: Any
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: IOptimizationProfile, /) -> int: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int, /) -> None: ...
    def set_flag(self, flag: Any, /) -> None: ...
    def set_preview_feature(self, feature: Any, enable: bool, /) -> None: ...
    def create_timing_cache(self, serialized: bytes, /) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> ITimingCache: ...
    def set_compute_capability(self, compute_capability: Any, index: int, /) -> bool: ...


class Builder(Protocol):
    def create_network(self, flags: int, /) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig, /
    ) -> Any: ...


class MemoryPoolType(Protocol):
    WORKSPACE: Any


class PreviewFeature(Protocol):
    PROFILE_SHARING_0806: Any


class BuilderFlag(Protocol):
    FP16: Any
    INT8: Any
    OBEY_PRECISION_CONSTRAINTS: Any
    VERSION_COMPATIBLE: Any
    REQUIRE_USER_ALLOCATION: Any


class NetworkDefinitionCreationFlag(Protocol):
    EXPLICIT_BATCH: Any
    STRONGLY_TYPED: Any


class HardwareCompatibilityLevel(Protocol):
    AMPERE_PLUS: Any


class IExecutionContext(Protocol):
    device_memory: Any

    def set_device_memory(self, memory: int, size: int, /) -> None: ...
    def set_input_shape(self, name: str, shape: tuple[int, ...], /) -> bool: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int, /) -> bool: ...
    def set_tensor_address(self, name: str, memory: int, /) -> bool: ...
    def set_output_allocator(self, name: str, output_allocator: Any, /) -> bool: ...
    def infer_shapes(self) -> Sequence[str]: ...
    def execute_async_v3(self, stream_handle: int, /) -> bool: ...
    def is_stream_capturable(self, stream: int, /) -> bool: ...


class IRuntimeCache(Protocol):
    def deserialize(self, blob: bytes, /) -> bool: ...
    def serialize(self) -> Any: ...


class IRuntimeConfig(Protocol):
    def set_execution_context_allocation_strategy(self, strategy: Any, /) -> None: ...
    def create_runtime_cache(self) -> IRuntimeCache: ...
    def set_runtime_cache(self, cache: IRuntimeCache, /) -> bool: ...


class ICudaEngine(Protocol):
    num_io_tensors: int
    num_optimization_profiles: int
    device_memory_size: int
    device_memory_size_v2: int

    def get_tensor_name(self, index: int, /) -> str: ...
    def get_tensor_mode(self, name: str, /) -> Any: ...
    def get_tensor_dtype(self, name: str, /) -> Any: ...
    def get_tensor_shape(self, name: str, /) -> Sequence[int]: ...
    def get_tensor_location(self, name: str, /) -> Any: ...
    def get_tensor_format(self, name: str, /) -> Any: ...
    def get_tensor_profile_shape(
        self, name: str, profile_index: int, /
    ) -> Sequence[Sequence[int]]: ...
    def create_execution_context(self, strategy: Any, /) -> IExecutionContext | None: ...
    def create_execution_context_without_device_memory(self) -> IExecutionContext | None: ...
    def create_runtime_config(self) -> IRuntimeConfig: ...


class Runtime(Protocol):
    engine_host_code_allowed: bool

    def deserialize_cuda_engine(self, serialized_engine: bytes, /) -> ICudaEngine | None: ...


class ExecutionContextAllocationStrategy(Protocol):
    USER_MANAGED: Any


class TensorIOMode(Protocol):
    INPUT: Any


class TensorLocation(Protocol):
    DEVICE: Any


class TensorFormat(Protocol):
    LINEAR: Any


class DataType(Protocol):
    FLOAT: Any
    HALF: Any
    UINT8: Any


class Module(Protocol):
    """The module ``tensorrt`` or ``tensorrt_rtx``; classes are only called, so Any stands there."""

    __version__: str
    Builder: Any
    OnnxParser: Any
    ParserError: Any
    ILogger: Any
    IProgressMonitor: Any
    MemoryPoolType: MemoryPoolType
    BuilderFlag: BuilderFlag
    PreviewFeature: PreviewFeature
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    HardwareCompatibilityLevel: HardwareCompatibilityLevel
    ComputeCapability: Any
    Runtime: Any
    ICudaEngine: Any
    IExecutionContext: Any
    IRuntimeConfig: Any
    IOutputAllocator: Any
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy
    TensorIOMode: TensorIOMode
    TensorLocation: TensorLocation
    TensorFormat: TensorFormat
    DataType: DataType


OPTIONAL = {
    "ParserError.node_name": "TensorRT 10 and later, TensorRT-RTX",
    "ParserError.node_operator": "TensorRT 10 and later, TensorRT-RTX",
    "Module.IProgressMonitor": "TensorRT 10 and later, TensorRT-RTX",
    "IBuilderConfig.progress_monitor": "TensorRT 10 and later, TensorRT-RTX",
    "Module.ComputeCapability": "TensorRT-RTX",
    "Module.IRuntimeConfig": "TensorRT 10.13 and later, TensorRT-RTX",
    "Module.ExecutionContextAllocationStrategy": "TensorRT 10 and later, TensorRT-RTX",
    "IBuilderConfig.num_compute_capabilities": "TensorRT-RTX",
    "IBuilderConfig.set_compute_capability": "TensorRT-RTX",
    "IExecutionContext.device_memory": "written where set_device_memory is missing",
    "IExecutionContext.set_device_memory": "TensorRT 10.3 and later, TensorRT-RTX",
    "IExecutionContext.is_stream_capturable": "TensorRT-RTX",
    "ICudaEngine.device_memory_size": "TensorRT 8 and 10",
    "ICudaEngine.device_memory_size_v2": "TensorRT 10.3 and later, TensorRT-RTX",
    "ICudaEngine.create_execution_context_without_device_memory": "TensorRT 8 and 10",
    "ICudaEngine.create_execution_context": "without a choice in TensorRT 8",
    "ICudaEngine.create_runtime_config": "TensorRT 10.13 and later, TensorRT-RTX",
    "IRuntimeCache": "TensorRT-RTX",
    "IRuntimeConfig.create_runtime_cache": "TensorRT-RTX",
    "IRuntimeConfig.set_runtime_cache": "TensorRT-RTX",
    "ExecutionContextAllocationStrategy": "TensorRT 10 and later, TensorRT-RTX",
    "BuilderFlag.FP16": "TensorRT 8 and 10",
    "BuilderFlag.INT8": "TensorRT 8 and 10",
    "BuilderFlag.OBEY_PRECISION_CONSTRAINTS": "TensorRT 8 and 10",
    "ILayer.precision": "TensorRT 8 and 10",
    "ILayer.set_output_type": "TensorRT 8 and 10",
    "PreviewFeature.PROFILE_SHARING_0806": "TensorRT 8 and 10",
    "BuilderFlag.REQUIRE_USER_ALLOCATION": "TensorRT-RTX",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "TensorRT 8 and 10",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "TensorRT 10 and later, TensorRT-RTX",
}
"""Class or member -> which libraries have it; what is not named here, all of them have."""
