"""One stage at one batch size: a context, and its CUDA graph.

NVIDIA's guide asks for one execution context per captured graph, because a graph holds the
context's state and addresses; contexts share their scratch memory, so that each costs little.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.memory import Block, TrtTensor
from dyninfer.engines.trt.opened import OpenedEngine
from dyninfer.engines.trt.track import Track
from dyninfer.errors import EngineRunError

logger = logging.getLogger("dyninfer")


def make_allocator(base: Any, reserve: Callable[[int], int]) -> Any:
    """An ``IOutputAllocator``: memory for an output whose size depends on the data, and its shape.

    ``reserve`` gives the address of memory for a number of bytes. TensorRT calls the allocator
    while it runs a stage and swallows what is raised there: a failure is kept. It must live as long
    as its context.
    """

    class Allocator(base):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            base.__init__(self)
            self.pointer = 0
            self.begin()

        def begin(self) -> None:
            """Forget the run before."""
            self.shape: tuple[int, ...] | None = None
            self.failure: str | None = None

        def reallocate_output(self, _name: str, _memory: int, size: int, _align: int) -> int:
            """What TensorRT 8.6 calls; 0 if there is no such memory."""
            try:
                self.pointer = reserve(size)
            except EngineRunError as error:
                self.failure = str(error)  # the error itself would keep everything around it alive
                return 0
            return self.pointer

        def reallocate_output_async(
            self, name: str, memory: int, size: int, align: int, _stream: int
        ) -> int:
            """What later versions call."""
            return self.reallocate_output(name, memory, size, align)

        def notify_shape(self, _name: str, shape: Any) -> None:
            self.shape = tuple(int(axis) for axis in shape)

        def result(self, name: str) -> tuple[int, tuple[int, ...]]:
            """Address and shape after a run that is over."""
            if self.shape is None or not self.pointer:
                raise EngineRunError(f"TensorRT did not tell the shape of output {name!r}")
            return self.pointer, self.shape

    return Allocator()


class GraphMaker:
    """Captures CUDA graphs of one stage until that fails once; then the stage runs without.

    ``usable`` says whether graphs are there and none has failed yet, ``count`` how many there were.
    """

    def __init__(self, cuda: Cuda, stage: str) -> None:
        self._cuda = cuda
        self._stage = stage
        self._lock = threading.Lock()
        self.usable = cuda.has_graphs
        self.count = 0

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Any | None:
        """The graph of what ``enqueue`` puts on the stream, or None if it cannot be captured.

        Nothing runs. ``enqueue`` must have run once before: engines finish their preparations
        in their first run, and those cannot be captured.
        """
        try:
            graph = self._capture(stream, enqueue)
        except EngineRunError as error:
            with self._lock:
                first, self.usable = self.usable, False
            if first:
                reason = f"{error} (not reported again)"
                logger.warning("stage %r runs without a CUDA graph: %s", self._stage, reason)
            return None
        with self._lock:
            self.count += 1
        return graph

    def _capture(self, stream: Any, enqueue: Callable[[], None]) -> Any:
        self._cuda.begin_capture(stream)
        try:
            enqueue()
        except BaseException:
            # the capture is broken, and ending it says so; it is what sets the stream free
            with contextlib.suppress(EngineRunError):
                self._cuda.destroy_graph(self._cuda.end_capture(stream))
            raise
        return self._cuda.end_capture(stream)


class Lane:
    """A context with shapes and addresses that its graph holds.

    The first run enqueues, the second one captures a graph, later ones launch it. ``outputs`` are
    those of known size by name; ``measured`` gives memory to those whose size is known only after
    a run. A lane may be wired anew, for another batch or other addresses of the same profile.
    """

    def __init__(
        self,
        engine: OpenedEngine,
        profile: int,
        measured: Mapping[str, Callable[[int], int]],
        cuda: Cuda,
        track: Track,
    ) -> None:
        self._engine, self._cuda, self._track = engine, cuda, track
        self.profile = profile
        self.outputs: Mapping[str, TrtTensor] = {}
        self._graph: Any | None = None
        self._batch = self._runs = 0
        base = engine.library.module.IOutputAllocator
        self.measured = {name: make_allocator(base, give) for name, give in measured.items()}
        self._context = engine.new_context(profile, track.handle)
        for name, allocator in self.measured.items():
            accepted = self._context.set_output_allocator(name, allocator)
            engine.require(accepted, f"output allocator of {name!r}")

    def finish(self) -> None:
        """Let the host wait until the context does not run."""
        self._track.finish()

    def wire(
        self,
        batch: int,
        inputs: Mapping[str, int],
        outputs: Mapping[str, TrtTensor],
        scratch: Block,
        track: Track,
    ) -> None:
        """Set the batch, all addresses and the stream; a graph of others is freed when it is over.

        A context must not run on two streams at once.
        """
        if self._graph is not None or track is not self._track:
            self.finish()
            self._free_graph()
        self._track = track
        self._batch, self._runs = batch, 0
        self.outputs = {}
        engine, context = self._engine, self._context
        engine.set_memory(context, scratch)
        engine.set_shapes(context, batch)
        addresses = {**inputs, **{name: tensor.pointer for name, tensor in outputs.items()}}
        for name, pointer in addresses.items():
            engine.require(context.set_tensor_address(name, pointer), f"address of {name!r}")
        lacking = list(context.infer_shapes())
        if lacking:
            raise EngineRunError(
                f"stage {engine.name!r} cannot run: {', '.join(lacking)} are not specified"
            )
        self.outputs = outputs

    def run(self, graphs: GraphMaker) -> None:
        """Enqueue the stage, as a graph once there is one."""
        if self._graph is not None:
            self._cuda.launch(self._graph, self._track.stream)
            return
        if self._runs and graphs.usable and self._can_be_captured():
            self._graph = graphs.capture(self._track.stream, self._enqueue)
            self._engine.keep_kernels(self._batch)  # all of them are compiled now
        self._runs += 1
        if self._graph is not None:
            self._cuda.launch(self._graph, self._track.stream)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        for memory in self.measured.values():
            memory.begin()
        ran = self._context.execute_async_v3(self._track.handle)
        for memory in self.measured.values():
            if memory.failure is not None:
                raise EngineRunError(memory.failure)
        self._engine.require(ran, "run")

    def _can_be_captured(self) -> bool:
        """Whether a capture can succeed by now.

        Sizes that depend on the data make the host wait, which a graph cannot. TensorRT-RTX
        compiles kernels in the background, and says when it has done so.
        """
        if self.measured:
            return False
        tells = self._engine.library.has("IExecutionContext.is_stream_capturable")
        return not tells or self._context.is_stream_capturable(self._track.handle)

    def _free_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            self._cuda.destroy_graph(graph)

    def close(self) -> None:
        """Free the graph and the context; the stream must be idle."""
        try:
            self._free_graph()
        finally:
            del self._context
            self.outputs = {}
            self.measured.clear()
