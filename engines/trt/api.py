"""What this project uses of TensorRT's Python modules, as types.

Every protocol has the name of the class that it describes and exactly the members that are used
here; :class:`Module` describes the module itself. mypy shows that no code reaches beyond them, and
a test compares each with the real ``tensorrt_rtx`` and with the published stubs of ``tensorrt``.
So an attribute that a library does not have cannot stay unnoticed, although no one machine has all
the versions. Where a method returns False or None, it failed, and the logger knows why; an axis of
-1 is dynamic.

Members that some versions or flavours lack are named in :data:`OPTIONAL`; only
:mod:`dyninfer.engines.trt.library` asks whether they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dyninfer.engines.trt.runtime_api import (
    DataType,
    ExecutionContextAllocationStrategy,
    TensorIOMode,
    TensorLocation,
)


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
    """A tensor of a network."""

    name: str
    shape: Sequence[int]


class INetworkDefinition(Protocol):
    """The network that a parser fills."""

    num_inputs: int

    def get_input(self, index: int, /) -> ITensor: ...


class ParserError(Protocol):
    """Why an ONNX file could not be parsed, and where."""

    def desc(self) -> str: ...
    def node(self) -> int: ...
    def node_name(self) -> str: ...
    def node_operator(self) -> str: ...


class OnnxParser(Protocol):
    """Reads an ONNX file into a network."""

    num_errors: int

    def parse_from_file(self, model: str, /) -> bool: ...
    def get_error(self, index: int, /) -> ParserError: ...


class IOptimizationProfile(Protocol):
    """The range of a network's dynamic shapes."""

    def set_shape(
        self, input: str, min: Sequence[int], opt: Sequence[int], max: Sequence[int], /
    ) -> None: ...


class IHostMemory(Protocol):
    """Bytes that the library owns; read through the buffer protocol."""

    nbytes: int


class ITimingCache(Protocol):
    """What a builder has measured before, so that it need not again."""

    def serialize(self) -> IHostMemory: ...


class IBuilderConfig(Protocol):
    """How an engine is to be built."""

    progress_monitor: IProgressMonitor
    hardware_compatibility_level: Any
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: IOptimizationProfile, /) -> int: ...
    def set_memory_pool_limit(self, pool: Any, pool_size: int, /) -> None: ...
    def set_flag(self, flag: Any, /) -> None: ...
    def create_timing_cache(self, serialized: bytes, /) -> ITimingCache: ...
    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool, /) -> bool: ...
    def get_timing_cache(self) -> ITimingCache: ...
    def set_compute_capability(self, compute_capability: Any, index: int, /) -> bool: ...


class Builder(Protocol):
    """Makes engines out of networks."""

    def create_network(self, flags: int, /) -> INetworkDefinition: ...
    def create_builder_config(self) -> IBuilderConfig: ...
    def create_optimization_profile(self) -> IOptimizationProfile: ...
    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig, /
    ) -> IHostMemory | None: ...


class MemoryPoolType(Protocol):
    """Kinds of memory that a builder may be limited in."""

    WORKSPACE: Any


class BuilderFlag(Protocol):
    """Options of a builder."""

    FP16: Any
    INT8: Any
    VERSION_COMPATIBLE: Any
    REQUIRE_USER_ALLOCATION: Any


class NetworkDefinitionCreationFlag(Protocol):
    """Options of a network."""

    EXPLICIT_BATCH: Any
    STRONGLY_TYPED: Any


class HardwareCompatibilityLevel(Protocol):
    """On which other GPUs an engine shall run."""

    AMPERE_PLUS: Any


class ComputeCapability(Protocol):
    """Generations of GPUs that TensorRT-RTX builds for without having one."""

    SM75: Any
    SM80: Any
    SM86: Any
    SM89: Any
    SM120: Any
    SM121: Any


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
    NetworkDefinitionCreationFlag: NetworkDefinitionCreationFlag
    HardwareCompatibilityLevel: HardwareCompatibilityLevel
    ComputeCapability: ComputeCapability
    Runtime: Any
    ICudaEngine: Any
    IExecutionContext: Any
    IRuntimeConfig: Any
    IOutputAllocator: Any
    ExecutionContextAllocationStrategy: ExecutionContextAllocationStrategy
    TensorIOMode: TensorIOMode
    TensorLocation: TensorLocation
    DataType: DataType


OPTIONAL = {
    "ParserError.node_name": "TensorRT 10 and later, TensorRT-RTX",
    "ParserError.node_operator": "TensorRT 10 and later, TensorRT-RTX",
    "Module.IProgressMonitor": "TensorRT 10 and later, TensorRT-RTX",
    "IBuilderConfig.progress_monitor": "TensorRT 10 and later, TensorRT-RTX",
    "Module.ComputeCapability": "TensorRT-RTX",
    "Module.IRuntimeConfig": "TensorRT 10 and later, TensorRT-RTX",
    "Module.ExecutionContextAllocationStrategy": "TensorRT 10 and later, TensorRT-RTX",
    "IBuilderConfig.num_compute_capabilities": "TensorRT-RTX",
    "IBuilderConfig.set_compute_capability": "TensorRT-RTX",
    "ComputeCapability": "TensorRT-RTX",
    "BuilderFlag.FP16": "TensorRT 8 and 10",
    "BuilderFlag.INT8": "TensorRT 8 and 10",
    "BuilderFlag.REQUIRE_USER_ALLOCATION": "TensorRT-RTX",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": "TensorRT 8 and 10",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": "TensorRT 10 and later, TensorRT-RTX",
}
"""Class or member -> which libraries have it; what is not named here, all of them have."""
