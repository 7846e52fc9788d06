"""Stages as ONNX Runtime sessions whose tensors travel without a copy."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest, Stage
from dyninfer.engines.base import Backend, Engine, check_rows
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.ort.gpu import open_with, tensorrt_options, why_not_loaded
from dyninfer.engines.ort.library import is_ort_error, ort, ort_errors, told
from dyninfer.engines.ort.memory import (
    IMAGES_AT_ONCE,
    check_declared,
    limited_tensors,
    tensor_memory,
)
from dyninfer.engines.ort.runtime import (
    PROVIDERS,
    SMALL_MACS,
    OrtDevice,
    check_session,
    open_session,
    parse_device,
)
from dyninfer.engines.ort.tensor import HOST, Bound, OrtTensor, OrtWorkspace
from dyninfer.engines.shared_weights import read_shared
from dyninfer.engines.signature import EXPORT_AGAIN, check_made
from dyninfer.errors import (
    BackendUnavailable,
    DeadlineError,
    EngineBuildError,
    EngineRunError,
    InputError,
)
from dyninfer.foreign_errors import let_through
from dyninfer.forks import Opening, never_free_in_child
from dyninfer.hardware import cpu_name, gpu_name
from dyninfer.types import Int64Array


class OrtEngine(Engine[OrtTensor, OrtWorkspace]):
    """One stage as an inference session."""

    def __init__(
        self, name: str, stage: Stage, session: Any, device: OrtDevice, host_outputs: frozenset[str]
    ) -> None:
        super().__init__(name, stage)
        self._session = session
        self.lone_session: Any = None  # of a single thread, once OrtBackend.open_lone made it
        self._device = device
        self._host_outputs = host_outputs
        self._inputs = tuple(spec.name for spec in stage.inputs)
        self._started: tuple[Any, ...] = ()
        self._options: Any = None

    def _execute(
        self, inputs: Mapping[str, OrtTensor], batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        if self.stage.rows_per_run is not None:
            return self._execute_rows(inputs, batch, workspace)
        session = self._session_for(workspace)
        bound = workspace.bound(self.name, batch)
        if bound is None or bound.session is not session:
            bound = Bound(session, never_free_in_child(session.io_binding()))
            bound.outputs = self._bind_outputs(bound.binding, batch, workspace)
            if len(bound.outputs) == len(self.stage.outputs):
                workspace.keep_bound(self.name, batch, bound)
            # outputs whose shape is known only after a run are bound again for each
        for name in self._inputs:
            _bind_input(bound, name, inputs[name], self._device)
        self._run(bound, workspace.deadline)
        outputs = dict(bound.outputs)
        for tensor in outputs.values():
            tensor.renewed()
        if len(outputs) < len(self.stage.outputs):
            values = [never_free_in_child(value) for value in bound.binding.get_outputs()]
            for spec, value in zip(self.stage.outputs, values, strict=True):
                outputs.setdefault(spec.name, OrtTensor.over_value(value, self._device))
            # of those that were bound with a shape, ONNX Runtime refuses to make another one
            check_made(self.name, self.stage.outputs, outputs, batch)
        return outputs

    def _execute_rows(
        self, inputs: Mapping[str, OrtTensor], batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        """Run once for each row, from rows of the inputs into rows of the outputs: no copy."""
        outputs = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            assert shape is not None  # _check_one_row has refused others
            key, on_host = (self.name, spec.name), spec.name in self._host_outputs
            outputs[spec.name] = workspace.tensor(key, shape, np.dtype(spec.dtype), on_host)
            outputs[spec.name].renewed()
        session = self._session_for(workspace)
        bound = workspace.bound(self.name, 1)
        if bound is None or bound.session is not session:
            bound = Bound(session, never_free_in_child(session.io_binding()))
            workspace.keep_bound(self.name, 1, bound)
        for row in range(batch):
            for spec in self.stage.inputs:
                whole = inputs[spec.name].on(self._device)
                _bind_input(bound, spec.name, whole.run_of_rows(row, 1), self._device)
            for name, tensor in outputs.items():
                _bind_output(bound.binding, name, tensor.run_of_rows(row, 1))
            self._run(bound, workspace.deadline)
        return outputs

    def _session_for(self, workspace: OrtWorkspace) -> Any:
        lone = self.lone_session
        return lone if workspace.lone and lone is not None else self._session

    def _run(self, bound: Bound, deadline: Deadline | None) -> None:
        session, binding = bound.session, bound.binding
        if session not in self._started:  # a first run sets up what is behind locks, too
            self._started += (session,)
            with Opening():
                return self._run(bound, deadline)
        try:
            if deadline is None or deadline.passed:
                run_binding(session, binding, self._device, self._options)
            else:
                options = ort.RunOptions()
                with deadline.interrupting(partial(setattr, options, "terminate", True)):
                    run_binding(session, binding, self._device, options)
        except Exception as error:
            let_through(error)
            if not is_ort_error(error):
                raise
            if deadline is not None and deadline.passed:
                raise DeadlineError(f"stage {self.name!r} was stopped: {deadline}") from error
            raise EngineRunError(
                f"ONNX Runtime failed in stage {self.name!r}: {told(error)}"
            ) from error

    def _bind_outputs(
        self, binding: Any, batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        """Bind every output; returns those whose shape is known, as tensors in the workspace."""
        outputs = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            on_host = spec.name in self._host_outputs
            if shape is None:
                binding.bind_output(spec.name, *(HOST if on_host else self._device.place))
                continue
            key, dtype = (self.name, spec.name), np.dtype(spec.dtype)
            outputs[spec.name] = workspace.tensor(key, shape, dtype, on_host)
            _bind_output(binding, spec.name, outputs[spec.name])
        return outputs

    def spare_memory(self) -> None:
        """On a CPU, shrink the arena of tensors after every run without a deadline."""
        if self._device.device_type == "cpu":
            self._options = ort.RunOptions()
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def close(self) -> None:
        """Free the sessions; the engine cannot run afterwards."""
        self._session = self.lone_session = None
        self._started = ()


class OrtBackend(Backend[OrtTensor, OrtWorkspace]):
    """ONNX Runtime on one device."""

    name = "onnxruntime"

    def __init__(
        self, device: str = "cpu", provider: str | None = None, shared_threads: bool = False
    ) -> None:
        self._device = parse_device(device, provider)
        self._shared_threads = shared_threads
        self.device = self._device.name
        number = self._device.device_id
        self.device_name = cpu_name() if self.device == "cpu" else gpu_name(number)
        self.version = str(ort.__version__)
        self.provider = self._device.provider
        self._gather_sessions: dict[str, Any] = {}
        self._gather_lock = threading.Lock()
        self._batch = IMAGES_AT_ONCE

    def opening(
        self, manifest: Manifest, batch: int, host_code: bool = False
    ) -> AbstractContextManager[None]:
        """Limits the memory of their tensors together."""
        del host_code
        check_declared(manifest, batch)
        self._batch = batch
        return limited_tensors(tensor_memory(max(batch, IMAGES_AT_ONCE) * manifest.pixels))

    def open(self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]) -> OrtEngine:
        """See :meth:`dyninfer.engines.base.Backend.open`."""
        session = self._stage_session(name, stage, path)
        if stage.rows_per_run is not None:
            _check_one_row(name, stage)
        return OrtEngine(name, stage, session, self._device, host_outputs)

    def _stage_session(self, name: str, stage: Stage, path: Path, **options: Any) -> Any:
        weights = read_shared(path, f"stage {name!r}", stage.weights)
        options |= {"small": stage.macs <= SMALL_MACS, "weights": weights}
        opened = partial(self._session, path, f"stage {name!r}", **options)
        if self.provider == "tensorrt":
            more = tensorrt_options(stage, path, self._batch, self.device_name)
            session = open_with(lambda more: opened(more=more), more)
        else:
            session = opened()
        check_session(path, stage, session)
        return session

    def open_lone(self, engine: Engine[OrtTensor, OrtWorkspace], path: Path) -> bool:
        """On a CPU, make the engine's second session, of one thread; it holds its own weights."""
        if self.device != "cpu" or self._shared_threads or not isinstance(engine, OrtEngine):
            return False
        lone = self._stage_session(engine.name, engine.stage, path, lone=True)
        engine.lone_session = lone
        return True

    def workspace(self) -> OrtWorkspace:
        """New buffers for one concurrent caller."""
        return OrtWorkspace(self._device)

    def from_host(self, array: npt.NDArray[Any]) -> OrtTensor:
        """A tensor over a host array, copied to a GPU once, when a stage first reads it."""
        return OrtTensor.over_array(array)

    def from_device(self, name: str, array: DeviceArray, _workspace: OrtWorkspace) -> OrtTensor:
        """A tensor over another library's memory, without a copy.

        ONNX Runtime works on streams of its own, which cannot be made to wait: whatever writes
        the values must be over.
        """
        device_type, number = self._device.place
        if device_type == "cpu" or array.device not in (None, number):
            place = "a GPU" if array.device is None else f"'cuda:{array.device}'"
            raise InputError(f"{name} is on {place}, expected this detector's {self.device!r}")
        return OrtTensor(array.owner, array.pointer, array.shape, array.dtype, self._device.place)

    def gather(
        self, name: str, tensor: OrtTensor, rows: Int64Array, workspace: OrtWorkspace
    ) -> OrtTensor:
        """The given rows, gathered on the tensor's device.

        On a CPU, rows that follow each other are not even copied; others are copied by NumPy,
        which takes as long as the memory does.
        """
        if self._device.device_type != "cpu":
            return self.gather_by_session(name, tensor, rows, workspace)
        start, count = int(rows[0]), len(rows)
        if count == 1 or (rows[-1] - start == count - 1 and bool((np.diff(rows) == 1).all())):
            return tensor.run_of_rows(start, count)
        shape = (count, *tensor.shape[1:])
        result = workspace.tensor(("gather", name), shape, tensor.dtype, on_host=True)
        check_rows(rows, tensor.shape)
        # "clip" because NumPy would buffer the result if it had to raise
        np.take(tensor.numpy(), rows, axis=0, out=result.numpy(), mode="clip")
        return result

    def gather_by_session(
        self, name: str, tensor: OrtTensor, rows: Int64Array, workspace: OrtWorkspace
    ) -> OrtTensor:
        """The given rows, gathered by a session of one operator, as a GPU does."""
        session = self._gather_session(tensor.dtype)
        key = f"gather_{tensor.dtype}"
        bound = workspace.bound(key, 0)
        if bound is None:
            bound = Bound(session, never_free_in_child(session.io_binding()))
            workspace.keep_bound(key, 0, bound)
        on_host = self._device.device_type == "cpu"
        shape = (len(rows), *tensor.shape[1:])
        result = workspace.tensor(("gather", name), shape, tensor.dtype, on_host)
        result.renewed()
        _bind_input(bound, "data", tensor.on(self._device).as_matrix(), self._device)
        chosen = OrtTensor.over_array(rows)  # kept alive until the run is over
        _bind_input(bound, "rows", chosen, self._device)
        _bind_output(bound.binding, "gathered", result.as_matrix())
        run_binding(session, bound.binding, self._device)
        return result

    def close(self) -> None:
        """Free the gathering sessions; engines are closed by whoever opened them."""
        with self._gather_lock:
            self._gather_sessions.clear()

    def after_fork(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.after_fork`."""
        if self._device.device_type != "cpu":
            raise BackendUnavailable(
                "CUDA does not survive a fork: load the bundle in the child process, or start "
                "processes with multiprocessing's 'spawn'"
            )
        if self._shared_threads:
            raise BackendUnavailable(
                "the threads that sessions share do not survive a fork: load bundles with "
                "shared_threads=True after it, in the child process, or leave that out"
            )

    def _gather_session(self, dtype: np.dtype[Any]) -> Any:
        key = str(dtype)
        with self._gather_lock:  # a second session would free the one that others are bound to
            if key not in self._gather_sessions:
                file = resources.files("dyninfer.engines.ort") / f"gather_rows_{key}.onnx"
                # TensorRT would build an engine for every shape that it meets
                plain = replace(self._device, provider=self._device.device_type)
                with resources.as_file(file) as path:
                    self._gather_sessions[key] = self._session(path, f"gather of {key}", on=plain)
            return self._gather_sessions[key]

    def _session(self, path: Path, what: str, on: OrtDevice | None = None, **options: Any) -> Any:
        device = on or self._device
        try:
            with ort_errors(EngineBuildError, f"ONNX Runtime cannot open {what} ({path})"):
                session = open_session(path, device, self._shared_threads, **options)
        except EngineBuildError as error:
            if self.device != "cpu" and (reason := why_not_loaded(device.provider)):
                raise _lacking(device.provider, f"cannot be loaded: {reason}") from error
            raise
        if PROVIDERS[device.provider] not in session.get_providers():
            others = ", ".join(session.get_providers())
            reason = why_not_loaded(device.provider)
            raise _lacking(
                device.provider,
                f"was asked for but ONNX Runtime fell back to {others} for {what}"
                + f": {reason}" * bool(reason),
            )
        return session


def _lacking(provider: str, what: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{PROVIDERS[provider]} {what}; check the driver and the CUDA, cuDNN and TensorRT "
        f"libraries that ONNX Runtime {ort.__version__} needs"
    )


def _check_one_row(name: str, stage: Stage) -> None:
    """Refuse a stage for single images whose rows' place in a batch is not known beforehand."""
    for spec in stage.outputs:
        if spec.shape_for(1) is None:
            raise EngineBuildError(
                f"stage {name!r} takes one image at a time and ends in {spec}; expected all axes "
                f"but the batch fixed; {EXPORT_AGAIN}"
            )


def run_binding(session: Any, binding: Any, device: OrtDevice, options: Any = None) -> None:
    """Run a session whose inputs and outputs are bound, and wait for its outputs."""
    if device.device_type != "cpu":
        binding.synchronize_inputs()
    session.run_with_iobinding(binding, options)
    if device.device_type != "cpu":
        binding.synchronize_outputs()


def _bind_input(bound: Bound, name: str, tensor: OrtTensor, device: OrtDevice) -> None:
    """Bind an input, unless the binding has the same host memory already.

    On a GPU it is always bound: where ONNX Runtime placed the reading operator on another device
    than the tensor's, binding is what copies it there.
    """
    tensor = tensor.on(device)
    place = (tensor.pointer, tensor.shape)
    if bound.inputs.get(name) == place and device.device_type == "cpu":
        return
    where = (tensor.dtype.type, tensor.shape, tensor.pointer)
    bound.binding.bind_input(name, *tensor.place, *where)
    bound.inputs[name] = place


def _bind_output(binding: Any, name: str, tensor: OrtTensor) -> None:
    where = (tensor.dtype.type, tensor.shape, tensor.pointer)
    binding.bind_output(name, *tensor.place, *where)
