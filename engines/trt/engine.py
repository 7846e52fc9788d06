"""A stage as a TensorRT engine: whole batches, pieces of them, or image by image."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Mapping

import numpy as np

from dyninfer.bundle.manifest import Stage
from dyninfer.engines.base import Engine
from dyninfer.engines.signature import BUILD_AGAIN, check_made
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.engines.trt.lane import GraphMaker, Lane
from dyninfer.engines.trt.memory import DevicePlace, TrtTensor
from dyninfer.engines.trt.opened import OpenedEngine
from dyninfer.engines.trt.workspace import TrtWorkspace
from dyninfer.errors import EngineRunError
from dyninfer.plain_text import counted, one_line

logger = logging.getLogger("dyninfer")


class TrtEngine(Engine[TrtTensor, TrtWorkspace]):
    """One stage on a GPU. Runs are enqueued on the workspace's stream; nothing waits."""

    def __init__(self, name: str, stage: Stage, opened: OpenedEngine, cuda: Cuda) -> None:
        super().__init__(name, stage)
        self._cuda = cuda
        self._opened = opened
        self._graphs = GraphMaker(cuda, name)
        self._inputs = [spec.name for spec in stage.inputs]

    @property
    def graph_count(self) -> int:
        """How many graphs were captured, by all callers."""
        return self._graphs.count

    def reserve(self, workspace: TrtWorkspace, batch: int) -> dict[str, TrtTensor]:
        """Allocate the outputs of a batch whose sizes are known before it runs."""
        known = {
            spec.name: (shape, np.dtype(spec.dtype))
            for spec in self.stage.outputs
            if (shape := spec.shape_for(batch)) is not None
        }
        return workspace.tensors((self.name, "whole"), known) if known else {}

    def _execute(
        self, inputs: Mapping[str, TrtTensor], batch: int, workspace: TrtWorkspace
    ) -> dict[str, TrtTensor]:
        with self._cuda.active():
            pointers = tuple([workspace.place(name, inputs[name]) for name in self._inputs])
            if batch <= self._opened.max_batch:
                outputs = self._run(pointers, batch, "whole", workspace)
            else:
                outputs = self._run_pieces(pointers, batch, inputs, workspace)
            workspace.track.mark(self.name)
        return outputs

    def _run(
        self, pointers: tuple[int, ...], batch: int, purpose: str, workspace: TrtWorkspace
    ) -> dict[str, TrtTensor]:
        """Run from addresses into buffers of the workspace."""
        track = workspace.track
        key = (batch, track, pointers)
        lane = workspace.lanes(self.name).find(key)
        if lane is None:
            lane = self._wired(key, pointers, batch, purpose, workspace)
        track.begin()
        lane.run(self._graphs)
        if not lane.measured:
            return dict(lane.outputs)
        track.finish()  # shapes are told when the run is over
        outputs = {**lane.outputs, **self._measured_outputs(lane, workspace)}
        check_made(self.name, self.stage.outputs, outputs, batch)
        return {spec.name: outputs[spec.name] for spec in self.stage.outputs}

    def _wired(
        self,
        key: Hashable,
        pointers: tuple[int, ...],
        batch: int,
        purpose: str,
        workspace: TrtWorkspace,
    ) -> Lane:
        """A context for exactly these addresses: a new one, or one that served others."""
        opened, track = self._opened, workspace.track
        shapes = opened.output_shapes(batch, track.handle)
        dtypes = {spec.name: np.dtype(spec.dtype) for spec in self.stage.outputs}
        known = {name: (shape, dtypes[name]) for name, shape in shapes.items() if shape is not None}
        outputs = workspace.tensors((self.name, purpose), known) if known else {}
        scratch = workspace.scratch(opened.scratch_size)
        measured = {name: self._reserve(name, workspace) for name in shapes.keys() - known.keys()}
        lanes, profile = workspace.lanes(self.name), opened.profile_for(batch)

        def make() -> Lane:
            return Lane(opened, profile, measured, workspace.cuda, track)

        lane = lanes.room(key, profile, workspace.warming, make)
        wired: Hashable = lane  # for nothing, if this fails; it may still run for others
        try:
            inputs = dict(zip(self._inputs, pointers, strict=True))
            lane.wire(batch, inputs, outputs, scratch, track)
            wired = key
        finally:
            lanes.keep(wired, lane)
        return lane

    def _reserve(self, name: str, workspace: TrtWorkspace) -> Callable[[int], int]:
        key = (self.name, name, "measured")
        return lambda size: workspace.device_block(key, size).pointer

    def _measured_outputs(self, lane: Lane, workspace: TrtWorkspace) -> dict[str, TrtTensor]:
        outputs = {}
        for spec in self.stage.outputs:
            memory = lane.measured.get(spec.name)
            if memory is not None:
                pointer, shape = memory.result(spec.name)
                key, dtype = (self.name, spec.name, "measured"), np.dtype(spec.dtype)
                block = workspace.device_block(key, math.prod(shape) * dtype.itemsize)
                if block.pointer != pointer:
                    raise EngineRunError(
                        f"stage {self.name!r} made {spec.name} {shape} in memory that is too small "
                        f"for it, or not its own any more; {BUILD_AGAIN}"
                    )
                place = DevicePlace(pointer, workspace, key, block)
                outputs[spec.name] = TrtTensor(shape, dtype, place)
        return outputs

    def _run_pieces(
        self,
        pointers: tuple[int, ...],
        batch: int,
        inputs: Mapping[str, TrtTensor],
        workspace: TrtWorkspace,
    ) -> dict[str, TrtTensor]:
        """Run a batch that the engine does not take whole, through buffers of a piece's size.

        Rows are copied in and out on the device: an address within a batch need not be aligned
        as TensorRT asks, and the same addresses every time need one context only.
        """
        most, cuda = self._opened.max_batch, workspace.cuda
        shapes = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            if shape is None:
                raise EngineRunError(
                    f"stage {self.name!r} got {counted(batch, 'image')} and takes {most} at once, "
                    f"which its output {spec} does not allow; lower max_batch to {most}"
                )
            shapes[spec.name] = shape, np.dtype(spec.dtype)
        whole = workspace.tensors((self.name, "whole"), shapes)
        for start in range(0, batch, most):
            piece = min(most, batch - start)
            copies, sources = [], []
            for name, pointer in zip(self._inputs, pointers, strict=True):
                size = inputs[name].row_bytes
                block = workspace.device_block((self.name, name, "piece"), most * size)
                copies.append((block.pointer, pointer + start * size, piece * size))
                sources.append(block.pointer)
            workspace.track.begin()
            cuda.copy_all(copies, workspace.track.stream)
            made = self._run(tuple(sources), piece, "piece", workspace)
            copies = [
                (whole[name].pointer + start * t.row_bytes, t.pointer, piece * t.row_bytes)
                for name, t in made.items()
            ]
            workspace.track.begin()
            cuda.copy_all(copies, workspace.track.stream)
        return whole

    def close(self) -> None:
        """Let go of the engine; contexts of it must be gone before."""
        try:
            with Freeing(self._cuda.active()):
                self._opened.close()
        except EngineRunError as error:  # the GPU is lost
            logger.warning("an engine could not be freed: %s", one_line(str(error)))
