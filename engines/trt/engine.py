"""A stage as a TensorRT engine: whole batches, pieces of them, or image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dyninfer.bundle.manifest import Stage
from dyninfer.engines.base import Engine
from dyninfer.engines.signature import BUILD_AGAIN, check_made
from dyninfer.engines.trt.cuda import Cuda
from dyninfer.engines.trt.lane import GraphMaker, Lane
from dyninfer.engines.trt.memory import TrtTensor
from dyninfer.engines.trt.opened import OpenedEngine
from dyninfer.engines.trt.workspace import TrtWorkspace
from dyninfer.errors import EngineRunError
from dyninfer.plain_text import counted

MAX_LANES = 64
"""Contexts that a caller keeps for a stage: enough for every batch size up to 32, from a tensor
as it is and from a gathered one."""


class TrtEngine(Engine[TrtTensor, TrtWorkspace]):
    """One stage on a GPU. Runs are enqueued on the workspace's stream; nothing waits."""

    def __init__(self, name: str, stage: Stage, opened: OpenedEngine, cuda: Cuda) -> None:
        super().__init__(name, stage)
        self._cuda = cuda
        self._opened = opened
        self._graphs = GraphMaker(cuda, name)

    @property
    def graph_count(self) -> int:
        """How many graphs were captured, by all callers."""
        return self._graphs.count

    def _execute(
        self, inputs: Mapping[str, TrtTensor], batch: int, workspace: TrtWorkspace
    ) -> dict[str, TrtTensor]:
        with workspace.cuda.active():
            workspace.clock.start()
            pointers = {
                spec.name: workspace.place(spec.name, inputs[spec.name])
                for spec in self.stage.inputs
            }
            if batch <= self._opened.max_batch:
                outputs = self._run(pointers, batch, "whole", workspace)
            else:
                outputs = self._run_pieces(pointers, batch, inputs, workspace)
            workspace.clock.mark(self.name)
        return outputs

    def _run(
        self, pointers: Mapping[str, int], batch: int, purpose: str, workspace: TrtWorkspace
    ) -> dict[str, TrtTensor]:
        """Run from addresses into buffers of the workspace."""
        shapes = self._opened.output_shapes(batch)
        outputs: dict[str, TrtTensor] = {}
        for spec in self.stage.outputs:
            shape = shapes[spec.name]
            if shape is not None:
                key = (self.name, spec.name, purpose)
                outputs[spec.name] = workspace.tensor(key, shape, np.dtype(spec.dtype))
        lane = self._lane(pointers, batch, outputs, workspace)
        lane.run(self._graphs)
        if lane.measured:
            workspace.finish()  # shapes are told when the run is over
            outputs |= self._measured_outputs(lane, workspace)
            check_made(self.name, self.stage.outputs, outputs, batch)
        return {spec.name: outputs[spec.name] for spec in self.stage.outputs}

    def _lane(
        self,
        pointers: Mapping[str, int],
        batch: int,
        outputs: Mapping[str, TrtTensor],
        workspace: TrtWorkspace,
    ) -> Lane:
        """The context for exactly these addresses, made where there is none yet."""
        opened, lanes = self._opened, workspace.lanes(self.name)
        scratch = workspace.scratch(opened.scratch_size)
        addresses = {**pointers, **{name: tensor.pointer for name, tensor in outputs.items()}}
        wiring = (batch, *addresses.items(), scratch.pointer)
        lane = lanes.get(wiring)
        if lane is None:
            if len(lanes) >= MAX_LANES:
                workspace.finish()
                lanes.popitem(last=False)[1].close()
            measured = {
                spec.name: self._reserve(spec.name, workspace)
                for spec in self.stage.outputs
                if spec.name not in outputs
            }
            cuda, stream = workspace.cuda, workspace.stream
            lane = lanes[wiring] = Lane(opened, batch, addresses, scratch, measured, cuda, stream)
        lanes.move_to_end(wiring)
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
                tensor = workspace.tensor(key, shape, dtype)
                if tensor.pointer != pointer:
                    raise EngineRunError(
                        f"stage {self.name!r} made {spec.name} {shape} in memory that is too small "
                        f"for it, or not its own any more; {BUILD_AGAIN}"
                    )
                outputs[spec.name] = tensor
        return outputs

    def _run_pieces(
        self,
        pointers: Mapping[str, int],
        batch: int,
        inputs: Mapping[str, TrtTensor],
        workspace: TrtWorkspace,
    ) -> dict[str, TrtTensor]:
        """Run a batch that the engine does not take whole, through buffers of a piece's size.

        Rows are copied in and out on the device: an address within a batch need not be aligned
        as TensorRT asks, and the same addresses every time need one context only.
        """
        most = self._opened.max_batch
        whole: dict[str, TrtTensor] = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            if shape is None:
                raise EngineRunError(
                    f"stage {self.name!r} got {counted(batch, 'image')} and takes {most} at once, "
                    f"which its output {spec} does not allow; lower max_batch to {most}"
                )
            key = (self.name, spec.name, "whole")
            whole[spec.name] = workspace.tensor(key, shape, np.dtype(spec.dtype))
        for start in range(0, batch, most):
            piece = min(most, batch - start)
            sources = self._piece_inputs(pointers, inputs, start, piece, workspace)
            made = self._run(sources, piece, "piece", workspace)
            for name, tensor in made.items():
                size, target = tensor.row_bytes, whole[name].pointer
                workspace.cuda.copy(
                    target + start * size, tensor.pointer, piece * size, workspace.stream
                )
        return whole

    def _piece_inputs(
        self,
        pointers: Mapping[str, int],
        inputs: Mapping[str, TrtTensor],
        start: int,
        piece: int,
        workspace: TrtWorkspace,
    ) -> dict[str, int]:
        sources = {}
        for name, pointer in pointers.items():
            size = inputs[name].row_bytes
            block = workspace.device_block((self.name, name, "piece"), piece * size)
            source = pointer + start * size
            workspace.cuda.copy(block.pointer, source, piece * size, workspace.stream)
            sources[name] = block.pointer
        return sources

    def close(self) -> None:
        """Let go of the engine; contexts of it must be gone before."""
        with self._cuda.active():
            self._opened.close()
