"""Stages whose inputs and outputs are bound to memory once and then run as often as is wanted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from dyninfer.bundle.manifest import Stage, TensorSpec
from dyninfer.engines.base import Engine
from dyninfer.engines.ort.tensor import Bound, OrtTensor, OrtWorkspace
from dyninfer.engines.signature import EXPORT_AGAIN, check_made
from dyninfer.errors import DeadlineError, EngineBuildError, EngineRunError
from dyninfer.foreign_errors import let_through
from dyninfer.forks import Opening, never_free_in_child

_ROWS = 0
"""In place of a batch: what is bound anew for every row."""


class BoundEngine(Engine[OrtTensor, OrtWorkspace]):
    """One stage that a library runs between tensors of :class:`OrtTensor`.

    A subclass says how its library is told of them, and how it runs.
    """

    library: str
    on_host = True
    """Whether tensors are read where they are: memory that is bound already stays so."""

    def __init__(self, name: str, stage: Stage, session: Any, host_outputs: frozenset[str]) -> None:
        super().__init__(name, stage)
        self._session = session
        self._host_outputs = host_outputs
        self._inputs = tuple(spec.name for spec in stage.inputs)
        self._output_count = len(stage.outputs)
        self._started: tuple[Any, ...] = ()

    def _session_for(self, workspace: OrtWorkspace) -> Any:  # noqa: ARG002  # not all have several
        """What the library has opened the stage as, for a caller."""
        return self._session

    @abstractmethod
    def _new_binding(self, session: Any) -> Any:
        """What inputs and outputs are bound to, for one caller at a time."""

    @abstractmethod
    def _bind_input(self, binding: Any, name: str, tensor: OrtTensor) -> None:
        """Let a binding read a tensor."""

    @abstractmethod
    def _bind_output(self, binding: Any, name: str, tensor: OrtTensor) -> None:
        """Let a binding write to a tensor."""

    @abstractmethod
    def _bind_unknown(self, binding: Any, name: str, on_host: bool) -> None:
        """Let the library itself find memory for an output whose shape only a run tells."""

    @abstractmethod
    def _infer(self, bound: Bound, workspace: OrtWorkspace) -> None:
        """Run, and wait for the outputs; until the deadline, if that has not passed before."""

    @abstractmethod
    def _made(self, binding: Any) -> Mapping[str, OrtTensor]:
        """Outputs by name as the last run has left them; at least those of unknown shape."""

    @abstractmethod
    def _reason(self, error: Exception) -> str | None:
        """What the library says in its own error; None for an error that is not the library's."""

    def _execute(
        self, inputs: Mapping[str, OrtTensor], batch: int, workspace: OrtWorkspace
    ) -> Mapping[str, OrtTensor]:
        if self._row_by_row and batch > 1:
            return self._execute_rows(inputs, batch, workspace)
        session = self._session_for(workspace)
        bound = workspace.bound(self.name, batch)
        if bound is None or bound.session is not session:
            bound = Bound(session, never_free_in_child(self._new_binding(session)))
            bound.outputs = self._bind_outputs(bound.binding, batch, workspace)
            if len(bound.outputs) == self._output_count:
                workspace.keep_bound(self.name, batch, bound)
            # outputs whose shape is known only after a run are bound again for each
        self._bind_inputs(bound, inputs)
        self._run(bound, workspace)
        outputs = bound.outputs
        if not self.on_host:
            for tensor in outputs.values():
                tensor.renewed()
        if len(outputs) < self._output_count:
            outputs = {**self._made(bound.binding), **outputs}
            # of those that were bound with a shape, the library refuses to make another one
            check_made(self.name, self.stage.outputs, outputs, batch)
        return outputs

    def _execute_rows(
        self, inputs: Mapping[str, OrtTensor], batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        """Run once for each row, from rows of the inputs into rows of the outputs: no copy."""
        outputs = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            assert shape is not None  # check_one_row has refused others
            outputs[spec.name] = self._tensor(spec, shape, workspace)
            outputs[spec.name].renewed()
        session = self._session_for(workspace)
        bound = workspace.bound(self.name, _ROWS)
        if bound is None or bound.session is not session:
            bound = Bound(session, never_free_in_child(self._new_binding(session)))
            workspace.keep_bound(self.name, _ROWS, bound)
        for row in range(batch):
            self._bind_inputs(
                bound, {name: self._own(inputs[name]).run_of_rows(row, 1) for name in self._inputs}
            )
            for name, tensor in outputs.items():
                self._bind_output(bound.binding, name, tensor.run_of_rows(row, 1))
            self._run(bound, workspace)
        return outputs

    def _bind_inputs(self, bound: Bound, inputs: Mapping[str, OrtTensor]) -> None:
        """Let a binding read tensors, but for those in memory that it reads already."""
        for name in self._inputs:
            tensor = inputs[name]
            place = tensor.pointer, tensor.shape
            if not self.on_host or bound.inputs.get(name) != place:
                self._bind_input(bound.binding, name, tensor)
                bound.inputs[name] = place

    def _own(self, tensor: OrtTensor) -> OrtTensor:
        """The tensor where the engine reads it."""
        return tensor

    def _run(self, bound: Bound, workspace: OrtWorkspace) -> None:
        if bound.session not in self._started:  # a first run sets up what is behind locks, too
            self._started += (bound.session,)
            with Opening():
                return self._run(bound, workspace)
        deadline = workspace.deadline
        try:
            self._infer(bound, workspace)
        except Exception as error:
            let_through(error)
            reason = self._reason(error)
            if reason is None:
                raise
            if deadline is not None and deadline.passed:
                raise DeadlineError(f"stage {self.name!r} was stopped: {deadline}") from error
            raise EngineRunError(
                f"{self.library} failed in stage {self.name!r}: {reason}"
            ) from error

    def close(self) -> None:
        """Free what was opened; the engine cannot run afterwards."""
        self._session = None
        self._started = ()

    def _bind_outputs(
        self, binding: Any, batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        """Bind every output; returns those whose shape is known, as tensors in the workspace."""
        outputs = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            if shape is None:
                self._bind_unknown(binding, spec.name, spec.name in self._host_outputs)
                continue
            outputs[spec.name] = self._tensor(spec, shape, workspace)
            self._bind_output(binding, spec.name, outputs[spec.name])
        return outputs

    def _tensor(
        self, spec: TensorSpec, shape: tuple[int, ...], workspace: OrtWorkspace
    ) -> OrtTensor:
        on_host = spec.name in self._host_outputs
        return workspace.tensor((self.name, spec.name), shape, np.dtype(spec.dtype), on_host)


def check_one_row(name: str, stage: Stage) -> None:
    """Refuse a stage for single images whose rows' place in a batch is not known beforehand.

    Raises:
        EngineBuildError: an axis of an output, but for the batch, is known in a run only.
    """
    if stage.rows_per_run is None:
        return
    for spec in stage.outputs:
        if spec.shape_for(1) is None:
            raise EngineBuildError(
                f"stage {name!r} takes one image at a time and ends in {spec}; expected all axes "
                f"but the batch fixed; {EXPORT_AGAIN}"
            )
