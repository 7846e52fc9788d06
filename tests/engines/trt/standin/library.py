"""``tensorrt`` and ``tensorrt_rtx``, as far as engines are run with them."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from dyninfer.engines.trt.library import Flavour, Library
from dyninfer.engines.trt.targets import BatchProfile
from tests.engines.trt.standin.machine import POISON, Machine, Misuse, Operation

MAGIC = b"a stand-in's engine\n"
VERSIONS = ("8.6", "10.3", "10.13", "11.4", "rtx")
ADDRESS_ALIGNMENT = 256


class DataType(Enum):
    FLOAT = 0
    HALF = 1
    INT64 = 2
    UINT8 = 4
    OTHER = 3


class TensorIOMode(Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(Enum):
    DEVICE = 0
    HOST = 1


class TensorFormat(Enum):
    LINEAR = 0
    CHW32 = 5


class ExecutionContextAllocationStrategy(Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


_TYPES = {1: DataType.FLOAT, 2: DataType.UINT8, 10: DataType.HALF, 7: DataType.INT64}
_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.UINT8: np.uint8,
    DataType.HALF: np.float16,
    DataType.INT64: np.int64,
}


def profiles_of(batch: BatchProfile) -> list[tuple[int, int, int]]:
    """What the builder asks for, as ``engine_bytes`` takes it."""
    return [(part.minimum, part.optimum, part.maximum) for part in batch.parts()]


def engine_bytes(
    model: onnx.ModelProto,
    profiles: Sequence[Sequence[int]] = ((1, 4, 16),),
    scratch: int = 4096,
    host_tensors: Sequence[str] = (),
    packed_tensors: Sequence[str] = (),
    *,
    shared_profiles: bool = False,
    host_code: bool = False,
) -> bytes:
    header = {
        "profiles": list(profiles),
        "scratch": scratch,
        "host_tensors": list(host_tensors),
        "packed_tensors": list(packed_tensors),
        "shared_profiles": shared_profiles,
        "host_code": host_code,
    }
    return MAGIC + json.dumps(header).encode() + b"\n" + model.SerializeToString()


def engine_file(source: Path, **options: Any) -> bytes:
    return engine_bytes(onnx.load(source), **options)


@dataclass(eq=False)
class Model:
    """What an engine knows of its tensors; shapes at a batch come from ONNX's shape inference."""

    proto: onnx.ModelProto
    profiles: list[list[int]]
    scratch: int
    host_tensors: list[str]
    packed_tensors: list[str]
    shared_profiles: bool
    host_code: bool
    shapes_at: dict[tuple, dict[str, list[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(
            self.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        graph = self.proto.graph
        self.inputs = {value.name: value for value in graph.input}
        self.outputs = {value.name: value for value in graph.output}

    def value(self, name: str) -> onnx.ValueInfoProto:
        return (self.inputs | self.outputs)[name]

    def dtype(self, name: str) -> DataType:
        return _TYPES.get(self.value(name).type.tensor_type.elem_type, DataType.OTHER)

    def itemsize(self, name: str) -> int:
        return np.dtype(_NUMPY[self.dtype(name)]).itemsize

    def shape(self, name: str) -> list[int]:
        axes = self.value(name).type.tensor_type.shape.dim
        return [axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes]

    def inferred(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[int]]:
        key = tuple(sorted(shapes.items()))
        if key not in self.shapes_at:
            copy = onnx.ModelProto()
            copy.CopyFrom(self.proto)
            for value in copy.graph.input:
                for axis, size in zip(
                    value.type.tensor_type.shape.dim, shapes[value.name], strict=True
                ):
                    axis.dim_value = size
            del copy.graph.value_info[:]
            for value in copy.graph.output:
                rank = len(value.type.tensor_type.shape.dim)
                del value.type.tensor_type.shape.dim[:]
                for _ in range(rank):
                    value.type.tensor_type.shape.dim.add()
            done = onnx.shape_inference.infer_shapes(copy, data_prop=True)
            self.shapes_at[key] = {
                value.name: [
                    axis.dim_value if axis.HasField("dim_value") else -1
                    for axis in value.type.tensor_type.shape.dim
                ]
                for value in done.graph.output
            }
        return self.shapes_at[key]


def parse_engine(data: bytes) -> Model | None:
    if not data.startswith(MAGIC):
        return None
    header, _, body = data[len(MAGIC) :].partition(b"\n")
    return Model(onnx.ModelProto.FromString(body), **json.loads(header))


class Runtime:
    def __init__(self, library: FakeLibrary, logger: Any) -> None:
        self._library, self._logger = library, logger
        self.engine_host_code_allowed = False
        if library.has_no_driver:
            logger.log(
                ILogger.ERROR, "CUDA driver version is insufficient for CUDA runtime version"
            )

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        self._library.machine.require_current(self._library.device, "a runtime")
        if self._library.has_no_driver:
            raise Misuse("a call of a runtime around a null pointer: the process ends here")
        model = parse_engine(serialized_engine)
        if model is None:
            self._logger.log(self._library.module.ILogger.ERROR, "Magic tag does not match")
            return None
        if model.host_code and not self.engine_host_code_allowed:
            self._logger.log(ILogger.ERROR, "engine_host_code_allowed must be set to true")
            return None
        return self._library.module.ICudaEngine(self._library, self._logger, model)


class CudaEngine:
    def __init__(self, library: FakeLibrary, logger: Any, model: Model) -> None:
        self._library, self._logger, self._model = library, logger, model
        self._making_context = False
        self._contexts: weakref.WeakSet[Any] = weakref.WeakSet()
        library.machine.created("library engine")
        weakref.finalize(self, library.machine.gone, "library engine", library.device)

    @property
    def num_io_tensors(self) -> int:
        return len(self._model.inputs) + len(self._model.outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._model.inputs, *self._model.outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._model.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._model.dtype(name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._model.shape(name))

    def get_tensor_location(self, name: str) -> TensorLocation:
        at_host = name in self._model.host_tensors
        return TensorLocation.HOST if at_host else TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat.CHW32 if name in self._model.packed_tensors else TensorFormat.LINEAR

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._model.profiles)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        shape = self._model.shape(name)
        return [
            tuple(batch if axis == -1 else axis for axis in shape)
            for batch in self._model.profiles[profile_index]
        ]

    def _new_context(self) -> Any:
        machine = self._library.machine
        machine.require_current(self._library.device, "an engine")
        if self._making_context:
            raise Misuse("two threads make contexts of one engine at once")
        self._making_context = True
        time.sleep(0.0005)  # time for another thread to come along
        try:
            if self._library.refuses_contexts:
                error = self._library.module.ILogger.ERROR
                self._logger.log(error, "out of memory while making a context")
                return None
            shares = self._library.version != "8.6" or self._model.shared_profiles
            if self._contexts and not shares:
                error = self._library.module.ILogger.ERROR
                what = "Profile 0 has been chosen by another IExecutionContext"
                self._logger.log(error, what)
                return None
            machine.created("execution context")
            made = self._library.module.IExecutionContext(self._library, self._logger, self)
            self._contexts.add(made)
            return made
        finally:
            self._making_context = False


class WithSizeV1:
    @property
    def device_memory_size(self) -> int:
        return self._model.scratch


class WithSizeV2:
    @property
    def device_memory_size_v2(self) -> int:
        return self._model.scratch


class WithoutStrategy:
    def create_execution_context_without_device_memory(self) -> Any:
        return self._new_context()


class WithStrategy:
    def create_execution_context(self, strategy: Any = None) -> Any:
        config = isinstance(strategy, RuntimeConfig)
        chosen = strategy.strategy if config else strategy
        if chosen is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise Misuse("a context with memory of its own, beside the shared one")
        if config and strategy.cache is None:
            raise Misuse("a context that compiles its kernels anew")
        context = self._new_context()
        if config and context is not None:
            context.compiled = strategy.cache
        return context


class WithConfig:
    def create_runtime_config(self) -> Any:
        config = self._library.module.IRuntimeConfig()
        config.version = self._library.module.__version__
        return config


class RuntimeConfig:
    def __init__(self) -> None:
        self.strategy = ExecutionContextAllocationStrategy.STATIC
        self.cache = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


class RuntimeCache:
    """Kernels by the shapes that they were compiled for; known ones of this version are taken."""

    def __init__(self, version: str) -> None:
        self._version = version
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        version, *kernels = blob.decode(errors="replace").split("\n")
        if version != self._version:
            return False
        self.kernels = set(kernels)
        return True

    def serialize(self) -> bytes:
        return "\n".join([self._version, *sorted(self.kernels)]).encode()


class WithRuntimeCache:
    def create_runtime_cache(self) -> Any:
        return RuntimeCache(self.version)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class ExecutionContext:
    def __init__(self, library: FakeLibrary, logger: Any, engine: CudaEngine) -> None:
        self._library, self._logger, self._engine = library, logger, engine
        self._machine, self._model = library.machine, engine._model
        self._shapes: dict[str, tuple[int, ...]] = {
            name: tuple(self._model.shape(name))
            for name in self._model.inputs
            if -1 not in self._model.shape(name)
        }
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._memory: tuple[int, int] | None = None
        self._profile = 0
        self._version = 0
        self._warm_version = -1
        self.compiled: RuntimeCache | None = None
        gone, what = library.machine.gone, "execution context"
        weakref.finalize(self, gone, what, library.device, id(self))

    def _log_error(self, message: str) -> bool:
        self._logger.log(self._library.module.ILogger.ERROR, message)
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._machine.stream(stream_handle)
        if profile_index >= self._engine.num_optimization_profiles:
            return self._log_error(f"there is no profile {profile_index}")
        self._profile = profile_index
        self._shapes = {n: s for n, s in self._shapes.items() if -1 not in self._model.shape(n)}
        self._version += 1
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name not in self._model.inputs:
            return self._log_error(f"there is no input {name}")
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile)
        if not all(a <= axis <= b for a, axis, b in zip(low, shape, high, strict=True)):
            return self._log_error(f"{name} {shape} is not in the profile")
        if self._shapes.get(name) != tuple(shape):
            self._shapes[name] = tuple(shape)
            self._version += 1
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self._model.inputs:
            return self._shapes.get(name, tuple(self._model.shape(name)))
        if set(self._shapes) != set(self._model.inputs):
            raise Misuse("the shape of an output before all inputs have one")
        return tuple(self._model.inferred(self._shapes)[name])

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self._model.inputs | self._model.outputs:
            return self._log_error(f"there is no tensor {name}")
        if memory % ADDRESS_ALIGNMENT:
            raise Misuse(f"the address of {name} is not aligned to {ADDRESS_ALIGNMENT} bytes")
        self._addresses[name] = memory
        self._version += 1
        return True

    def set_output_allocator(self, name: str, output_allocator: Any) -> bool:
        assert isinstance(output_allocator, self._library.module.IOutputAllocator)
        assert output_allocator.made, "the base class was not initialised"
        # the real one does not keep it alive
        self._allocators[name] = weakref.ref(output_allocator)
        self._version += 1
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self._model.inputs if name not in self._shapes]

    def _set_memory(self, memory: int, size: int | None) -> None:
        if memory % ADDRESS_ALIGNMENT:
            raise Misuse("scratch memory is not aligned")
        room = self._machine.device_room(memory)
        if room < (size or self._model.scratch) or (size or room) < self._model.scratch:
            raise Misuse(f"scratch memory of {room} bytes for {self._model.scratch}")
        self._memory = (memory, self._model.scratch)
        self._version += 1

    def execute_async_v3(self, stream_handle: int) -> bool:
        machine, model = self._machine, self._model
        machine.calls["enqueue"] += 1
        machine.require_current(self._library.device, "a context")
        stream = machine.stream(stream_handle)
        self._compile()
        if missing := self.infer_shapes():
            raise Misuse(f"run before the shapes of {missing} were set")
        if self._memory is None:
            raise Misuse("run before the context had scratch memory")
        if self._library.refuses_runs:
            said = self._library.refuses_runs
            return self._log_error("Cask convolution execution" if said is True else said)
        unknown = {n for n, shape in model.inferred(self._shapes).items() if -1 in shape}
        if stream.capture is not None:
            if self._library.refuses_capture or unknown:
                return self._log_error("operation not permitted when stream is capturing")
            if self._warm_version != self._version:
                raise Misuse("captured before a first run had finished the preparations")
        if unknown:
            return self._run_at_once(stream_handle, unknown)
        operation = self._operation(stream_handle)
        machine.enqueue(stream_handle, operation)
        self._warm_version = self._version
        return True

    def _compile(self) -> None:
        kernels = str(sorted(self._shapes.items()))
        if self.compiled is not None and kernels not in self.compiled.kernels:
            self._machine.calls["compile"] += 1
            self.compiled.kernels.add(kernels)

    def _operation(self, _handle: int) -> Operation:
        machine, model = self._machine, self._model
        sources = {name: self._range(name, self._shapes[name]) for name in model.inputs}
        shapes = model.inferred(self._shapes)
        targets = {name: self._range(name, shapes[name]) for name in model.outputs}
        scratch = machine.device_range(*self._memory, "scratch memory")
        for used in targets.values():
            for other in (*sources.values(), scratch):
                if used.overlaps(other):
                    raise Misuse("an output lies over an input or the scratch memory")
        context, version, feeds = weakref.ref(self), self._version, dict(self._shapes)

        def run() -> None:
            made = compute(model, {n: (r.view, feeds[n]) for n, r in sources.items()})
            scratch.view[:] = POISON
            for name, target in targets.items():
                target.view[:] = made[name].reshape(-1).view(np.uint8)

        def check() -> None:
            alive = context()
            if alive is None or alive._version != version:
                raise Misuse("a graph was launched whose context is gone or was changed")

        writes = [*targets.values(), scratch]
        return Operation("engine", run, [*sources.values()], writes, 1.0, check, id(self))

    def _range(self, name: str, shape: Sequence[int]) -> Any:
        if not self._addresses.get(name):
            raise Misuse(f"run before {name} had an address")
        size = int(np.prod(shape)) * self._model.itemsize(name)
        return self._machine.device_range(self._addresses[name], size, name)

    def _run_at_once(self, handle: int, unknown: set[str]) -> bool:
        """With shapes that depend on the data the host has to wait within the call."""
        machine, model = self._machine, self._model
        sources = {name: self._range(name, self._shapes[name]) for name in model.inputs}
        machine.synchronize(handle)
        made = compute(model, {n: (r.view, self._shapes[n]) for n, r in sources.items()})
        for name, array in made.items():
            size = array.nbytes
            address = self._addresses.get(name, 0)
            if name in unknown:
                allocator = self._allocators[name]()
                if allocator is None:
                    raise Misuse("an output allocator was let go of while its context lives")
                arguments = (name, address, size, ADDRESS_ALIGNMENT)
                if self._library.version == "8.6":
                    address = allocator.reallocate_output(*arguments)
                else:
                    address = allocator.reallocate_output_async(*arguments, handle)
                if not address:
                    return self._log_error(f"no memory for {name}")
                self._addresses[name] = address
                if not self._library.forgets_shapes:
                    more = 1000 if self._library.tells_more_than_it_made else 1
                    allocator.notify_shape(name, (*array.shape[:-1], array.shape[-1] * more))
            if size:
                target = machine.device_range(address, size, name)
                target.view[:] = array.reshape(-1).view(np.uint8)
        return True


class WithMemoryProperty:
    """Write-only, as in TensorRT 8.6."""

    def _write(self, memory: int) -> None:
        self._set_memory(memory, None)

    device_memory = property(None, _write)


class WithSizedMemory:
    def set_device_memory(self, memory: int, size: int) -> None:
        self._set_memory(memory, size)


class TellsCapturable:
    def is_stream_capturable(self, stream: int) -> bool:
        self._machine.stream(stream)
        return not self._library.refuses_capture


def compute(model: Model, feeds: Mapping[str, tuple[np.ndarray, tuple[int, ...]]]) -> dict:
    inputs = {
        name: data.view(_NUMPY[model.dtype(name)]).reshape(shape).copy()
        for name, (data, shape) in feeds.items()
    }
    names = list(model.outputs)
    made = model.session.run(names, inputs)
    return {name: np.ascontiguousarray(array) for name, array in zip(names, made, strict=True)}


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self) -> None:
        pass

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    made = False

    def __init__(self) -> None:
        self.made = True


class FakeLibrary:
    """One version of TensorRT on one GPU of a machine: ``module`` has what that version has."""

    def __init__(self, machine: Machine, version: str = "10.13", device: int = 1) -> None:
        self.machine, self.version, self.device = machine, version, device
        self.refuses_capture = self.refuses_contexts = False
        self.refuses_runs: bool | str = False
        self.has_no_driver = False
        self.forgets_shapes = self.tells_more_than_it_made = False
        old, rtx = version == "8.6", version == "rtx"
        engine: list[type] = [WithoutStrategy] if old else [WithStrategy, WithSizeV2, WithConfig]
        if version in ("8.6", "10.3", "10.13"):
            engine.append(WithSizeV1)
        if version in ("10.3", "10.13"):
            engine.append(WithoutStrategy)
        context: list[type] = [WithMemoryProperty if old else WithSizedMemory]
        if rtx:
            context.append(TellsCapturable)
        config = [WithRuntimeCache] if rtx else []
        module = SimpleNamespace(
            __version__=f"{version}.0" if not rtx else "1.7.1",
            Runtime=lambda logger: Runtime(self, logger),
            ICudaEngine=type("ICudaEngine", (CudaEngine, *engine), {}),
            IExecutionContext=type("IExecutionContext", (ExecutionContext, *context), {}),
            IOutputAllocator=IOutputAllocator,
            ILogger=ILogger,
            TensorIOMode=TensorIOMode,
            TensorLocation=TensorLocation,
            TensorFormat=TensorFormat,
            DataType=DataType,
        )
        if old:
            module.PreviewFeature = SimpleNamespace(PROFILE_SHARING_0806=2)
        else:
            strong = SimpleNamespace(STRONGLY_TYPED=1)
            module.NetworkDefinitionCreationFlag = strong
            module.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
            module.IRuntimeConfig = type("IRuntimeConfig", (RuntimeConfig, *config), {})
        self.module = module

    @property
    def library(self) -> Library:
        flavour = Flavour.RTX if self.version == "rtx" else Flavour.TENSORRT
        return Library(flavour, self.module, self.module.__version__)
