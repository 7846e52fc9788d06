"""A deserialised engine, checked against what the manifest says of its stage."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from dyninfer.bundle.manifest import Stage
from dyninfer.engines.signature import BUILD_AGAIN, FileTensor, check_made, check_signature
from dyninfer.engines.trt.api import ICudaEngine, IExecutionContext, Runtime
from dyninfer.engines.trt.kept import KeptKernels
from dyninfer.engines.trt.library import Library, LogCollector
from dyninfer.engines.trt.lost import advised
from dyninfer.engines.trt.memory import Block, TrtTensor
from dyninfer.errors import EngineBuildError, EngineRunError
from dyninfer.foreign_errors import let_through

DYNAMIC = -1


class OpenedEngine:
    """An engine, and what does not change while it is open.

    Several threads may make contexts of it: TensorRT wants that one at a time. What the library
    compiles when it runs is ``kept_as`` a file of that name.
    """

    def __init__(
        self,
        name: str,
        stage: Stage,
        engine: ICudaEngine,
        kept_as: str,
        runtime: Runtime,
        library: Library,
        log: LogCollector,
    ) -> None:
        self.name = name
        self.library = library
        self._live: ICudaEngine | None = engine
        self._runtime = runtime  # TensorRT wants it to outlive its engines
        self._log = log
        self._stage = stage
        self._kept_as = kept_as
        self._lock = threading.Lock()
        self._shapes: dict[int, dict[str, tuple[int, ...] | None]] = {}
        self._kernels: KeptKernels | None = None
        self._kept: set[int] = set()  # batches whose kernels were saved
        self._check_tensors()
        self.profiles = self._read_profiles()
        self.max_batch = max(most for _, most in self.profiles)
        if stage.rows_per_run is not None:
            self.max_batch = 1
        size = (
            engine.device_memory_size_v2
            if library.has("ICudaEngine.device_memory_size_v2")
            else None
        )
        self.scratch_size = int(engine.device_memory_size if size is None else size)

    @property
    def _engine(self) -> ICudaEngine:
        if self._live is None:
            raise EngineRunError(f"stage {self.name!r} was closed; load the bundle again")
        return self._live

    def close(self) -> None:
        """Free the engine, even if an error that somebody keeps still refers to this object."""
        try:
            if self._kernels is not None:
                self._kernels.save()
        finally:
            self._live = self._kernels = None

    def keep_kernels(self, batch: int) -> None:
        """Save what the library has compiled by now, if it compiles, once for each batch size."""
        if self._kernels is not None and batch not in self._kept:
            self._kept.add(batch)
            self._kernels.save()

    def require(self, succeeded: bool, what: str) -> None:
        """Raise EngineRunError where TensorRT said False, with the reason from its log."""
        if not succeeded:
            title, reason = self.library.title, self._log.reason()
            raise EngineRunError(
                advised(f"{title} failed in stage {self.name!r} ({what}): {reason}")
            )

    def _check_tensors(self) -> None:
        """Compare names, directions, types, shapes, places and layouts with the manifest."""
        module, engine = self.library.module, self._engine
        what = f"the engine of stage {self.name!r}"
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == module.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        reads, makes = ([self._declared(name) for name in side] for side in (inputs, outputs))
        check_signature(what, self._stage, reads, makes, BUILD_AGAIN)
        for name in names:
            if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
                raise EngineBuildError(
                    f"stage {self.name!r} reads the values of {name} on the host, which a stage "
                    "must not; export the bundle again"
                )
            if engine.get_tensor_format(name) != module.TensorFormat.LINEAR:
                raise EngineBuildError(
                    f"{what} has {name} in the layout {engine.get_tensor_format(name)}, expected "
                    f"the linear one; {BUILD_AGAIN}"
                )

    def _declared(self, name: str) -> FileTensor:
        types, engine = self.library.module.DataType, self._engine
        found = engine.get_tensor_dtype(name)
        known = {types.FLOAT: "float32", types.HALF: "float16", types.UINT8: "uint8"}
        dtype = known.get(found, str(found))
        axes = (int(axis) for axis in engine.get_tensor_shape(name))
        return FileTensor(name, dtype, tuple(None if axis == DYNAMIC else axis for axis in axes))

    def _read_profiles(self) -> tuple[tuple[int, int], ...]:
        """The smallest and largest batch of every profile, from the first input.

        One image must fit.
        """
        name, engine = self._stage.inputs[0].name, self._engine
        size = int(engine.get_tensor_shape(name)[0])
        if size != DYNAMIC:
            found = [(size, size)]
        else:
            shapes = (
                engine.get_tensor_profile_shape(name, index)
                for index in range(engine.num_optimization_profiles)
            )
            found = [(int(low[0]), int(most[0])) for low, _, most in shapes]
        if not any(low <= 1 <= most for low, most in found):
            least, most = min(low for low, _ in found), max(most for _, most in found)
            raise EngineBuildError(
                f"the engine of stage {self.name!r} takes batches from {least} up to {most}, but a "
                "batch that is split may come to one image; allow for one (--batch 1:OPT:MAX)"
            )
        return tuple(found)

    def profile_for(self, batch: int) -> int:
        """The profile that is meant for a batch most closely: the narrowest that takes it.

        Raises:
            EngineRunError: none does.
        """
        fitting = [
            (most - low, index)
            for index, (low, most) in enumerate(self.profiles)
            if low <= batch <= most
        ]
        if not fitting:
            ranges = ", ".join(f"{low} to {most}" for low, most in self.profiles)
            raise EngineRunError(
                f"stage {self.name!r} takes {ranges} images at once, not {batch}; {BUILD_AGAIN}"
            )
        return min(fitting)[1]

    def new_context(self, profile: int, stream: int) -> IExecutionContext:
        """A context for a profile, made on the stream with this handle.

        Raises:
            EngineRunError: it cannot be made, for want of memory for example.
        """
        with self._lock:
            context = self._create_context()
        if context is None:
            title, reason = self.library.title, self._log.reason()
            raise EngineRunError(advised(f"{title} cannot run stage {self.name!r}: {reason}"))
        if len(self.profiles) > 1:
            chosen = context.set_optimization_profile_async(profile, stream)
            self.require(chosen, f"profile {profile}")
        return context

    def set_memory(self, context: IExecutionContext, scratch: Block) -> None:
        """Let a context keep intermediate results in ``scratch``."""
        if self.library.has("IExecutionContext.set_device_memory"):
            context.set_device_memory(scratch.pointer, scratch.size)
        else:
            context.device_memory = scratch.pointer

    def set_shapes(self, context: IExecutionContext, batch: int) -> None:
        """Tell a context the batch.

        Raises:
            EngineRunError: it would make other shapes than the manifest says.
        """
        for spec in self._stage.inputs:
            shape = spec.shape_for(batch)
            if shape is None:
                raise EngineRunError(f"stage {self.name!r} reads {spec}, expected fixed axes")
            self.require(context.set_input_shape(spec.name, shape), f"{spec.name} {shape}")
        self._check_shapes(context, batch)

    def _check_shapes(self, context: IExecutionContext, batch: int) -> None:
        """Compare what a run will write with the buffers that the manifest asks for."""
        found: dict[str, TrtTensor] = {}
        for spec in self._stage.outputs:
            shape = told_shape(context, spec.name)
            if DYNAMIC not in shape or spec.shape_for(batch) is not None:
                found[spec.name] = TrtTensor(shape, np.dtype(spec.dtype), None)
        told = [spec for spec in self._stage.outputs if spec.name in found]
        check_made(self.name, told, found, batch)  # of the others, after a run

    def _create_context(self) -> IExecutionContext | None:
        library, engine = self.library, self._engine
        if not library.has("ExecutionContextAllocationStrategy"):
            return engine.create_execution_context_without_device_memory()
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not library.has("IRuntimeConfig.create_runtime_cache"):
            return engine.create_execution_context(strategy)
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if self._kernels is None:
            cache = config.create_runtime_cache()
            self._kernels = KeptKernels(cache, self._kept_as)
        config.set_runtime_cache(self._kernels.cache)
        return engine.create_execution_context(config)

    def output_shapes(self, batch: int, stream: int) -> dict[str, tuple[int, ...] | None]:
        """Shape of every output at a batch size; None where it depends on the data.

        The manifest knows nearly all; the engine is asked about others once.
        """
        known = {spec.name: spec.shape_for(batch) for spec in self._stage.outputs}
        if None not in known.values():
            return known
        if batch not in self._shapes:
            context = self.new_context(self.profile_for(batch), stream)
            self.set_shapes(context, batch)
            for name in [name for name, shape in known.items() if shape is None]:
                shape = told_shape(context, name)
                known[name] = None if DYNAMIC in shape else shape
            self._shapes[batch] = known
        return self._shapes[batch]


def told_shape(context: IExecutionContext, name: str) -> tuple[int, ...]:
    """The shape of an output, once those of all inputs are set; -1 depends on the data."""
    return tuple(int(axis) for axis in context.get_tensor_shape(name))


def read_engine(
    path: Path, name: str, runtime: Runtime, log: LogCollector
) -> tuple[ICudaEngine, bytes]:
    """Deserialise an engine file; also what was read.

    Raises:
        EngineBuildError: it cannot be read, or does not fit this library or GPU.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        let_through(error)
        raise EngineBuildError(
            f"{path}, the engine of stage {name!r}, cannot be read: {error.strerror}"
        ) from error
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise EngineBuildError(
            f"{path} does not open as the engine of stage {name!r}: {log.reason()}; build it again"
        )
    return engine, data
