"""Stages as ONNX Runtime sessions whose tensors travel without a copy."""

from __future__ import annotations

import threading
from collections.abc import Callable
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
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.ort.bound import BoundEngine, check_one_row
from dyninfer.engines.ort.gpu import open_with, tensorrt_options, why_not_loaded
from dyninfer.engines.ort.library import is_ort_error, ort, ort_errors, told
from dyninfer.engines.ort.memory import (
    IMAGES_AT_ONCE,
    check_declared,
    limited_tensors,
    tensor_memory,
)
from dyninfer.engines.ort.runtime import (
    LARGE_MACS,
    PROVIDERS,
    SMALL_MACS,
    OrtDevice,
    check_session,
    open_session,
    parse_device,
)
from dyninfer.engines.ort.tensor import HOST, Bound, OrtTensor, OrtWorkspace
from dyninfer.engines.shared_weights import read_shared
from dyninfer.engines.threads import SHARED, Threads, is_tiny
from dyninfer.errors import BackendUnavailable, EngineBuildError, InputError
from dyninfer.forks import never_free_in_child
from dyninfer.hardware import cpu_name, gpu_name
from dyninfer.types import Int64Array


class OrtEngine(BoundEngine):
    """One stage as an inference session."""

    library = "ONNX Runtime"

    def __init__(
        self, name: str, stage: Stage, session: Any, device: OrtDevice, host_outputs: frozenset[str]
    ) -> None:
        super().__init__(name, stage, session, host_outputs)
        self.lone_session: Any = None  # of a single thread, once OrtBackend.open_lone made it
        self._device = device
        self.on_host = device.is_cpu
        self._options: Any = None

    def _session_for(self, workspace: OrtWorkspace) -> Any:
        lone = self.lone_session
        return lone if workspace.lone and lone is not None else self._session

    def _new_binding(self, session: Any) -> Any:
        return session.io_binding()

    def _bind_input(self, binding: Any, name: str, tensor: OrtTensor) -> None:
        # where ONNX Runtime placed the operator that reads it on another device than the tensor's,
        # binding is what copies it there
        _bind(binding.bind_input, name, tensor.on(self._device))

    def _bind_output(self, binding: Any, name: str, tensor: OrtTensor) -> None:
        _bind(binding.bind_output, name, tensor)

    def _bind_unknown(self, binding: Any, name: str, on_host: bool) -> None:
        binding.bind_output(name, *(HOST if on_host else self._device.place))

    def _made(self, binding: Any) -> dict[str, OrtTensor]:
        values = [never_free_in_child(value) for value in binding.get_outputs()]
        return {
            spec.name: OrtTensor.over_value(value, self._device)
            for spec, value in zip(self.stage.outputs, values, strict=True)
        }

    def _own(self, tensor: OrtTensor) -> OrtTensor:
        return tensor.on(self._device)

    def _infer(self, bound: Bound, workspace: OrtWorkspace) -> None:
        session, binding, deadline = bound.session, bound.binding, workspace.deadline
        if deadline is None or deadline.passed:
            run_binding(session, binding, self.on_host, self._options)
            return
        options = ort.RunOptions()
        with deadline.interrupting(partial(setattr, options, "terminate", True)):
            run_binding(session, binding, self.on_host, options)

    def _reason(self, error: Exception) -> str | None:
        return told(error) if is_ort_error(error) else None

    def spare_memory(self) -> None:
        """On a CPU, shrink the arena of tensors after every run without a deadline."""
        if self._device.is_cpu:
            self._options = ort.RunOptions()
            self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def close(self) -> None:
        """Free the sessions; the engine cannot run afterwards."""
        super().close()
        self.lone_session = None


class OrtBackend(Backend[OrtTensor, OrtWorkspace]):
    """ONNX Runtime on one device."""

    name = "onnxruntime"

    def __init__(
        self, device: str = "cpu", provider: str | None = None, threads: Threads = None
    ) -> None:
        self._device = parse_device(device, provider)
        self.threads = threads
        self.device = self._device.name
        number = self._device.device_id
        self.device_name = cpu_name() if self._device.is_cpu else gpu_name(number)
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
        if self.device == "cpu":
            stage = _alone_if_large(stage)
        check_one_row(name, stage)
        return OrtEngine(name, stage, session, self._device, host_outputs)

    def _stage_session(self, name: str, stage: Stage, path: Path, **options: Any) -> Any:
        weights = read_shared(path, f"stage {name!r}", stage.weights)
        options |= {"small": stage.macs <= SMALL_MACS, "weights": weights}
        if self.threads != SHARED and (self.threads == 1 or is_tiny(stage)):
            options["lone"] = True
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
        if not self._device.is_cpu or self.threads == SHARED or not isinstance(engine, OrtEngine):
            return False
        lone = self._stage_session(engine.name, engine.stage, path, lone=True)
        engine.lone_session = lone
        return True

    def workspace(self) -> OrtWorkspace:
        """New buffers for one concurrent caller."""
        return OrtWorkspace(self._device)

    def from_host(self, array: npt.NDArray[Any], workspace: OrtWorkspace) -> OrtTensor:
        """A tensor over a host array, copied to a GPU once, when a stage first reads it."""
        return workspace.over_array(array)

    def from_device(self, name: str, array: DeviceArray, _workspace: OrtWorkspace) -> OrtTensor:
        """A tensor over another library's memory, without a copy.

        ONNX Runtime works on streams of its own, which cannot be made to wait: whatever writes
        the values must be over.
        """
        if self._device.is_cpu or array.device not in (None, self._device.device_id):
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
        if not self._device.is_cpu:
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
        on_host = self._device.is_cpu
        shape = (len(rows), *tensor.shape[1:])
        result = workspace.tensor(("gather", name), shape, tensor.dtype, on_host)
        result.renewed()
        binding = bound.binding
        _bind(binding.bind_input, "data", tensor.on(self._device).as_matrix())
        chosen = OrtTensor.over_array(rows)  # kept alive until the run is over
        _bind(binding.bind_input, "rows", chosen.on(self._device))
        _bind(binding.bind_output, "gathered", result.as_matrix())
        run_binding(session, binding, self._device.is_cpu)
        return result

    def close(self) -> None:
        """Free the gathering sessions; engines are closed by whoever opened them."""
        with self._gather_lock:
            self._gather_sessions.clear()

    def after_fork(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.after_fork`."""
        if not self._device.is_cpu:
            raise BackendUnavailable(
                "CUDA does not survive a fork: load the bundle in the child process, or start "
                "processes with multiprocessing's 'spawn'"
            )
        if self.threads == SHARED:
            raise BackendUnavailable(
                "the threads that sessions share do not survive a fork: load bundles with "
                "threads='shared' after it, in the child process, or leave that out"
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
                session = open_session(path, device, self.threads, **options)
        except EngineBuildError as error:
            if not self._device.is_cpu and (reason := why_not_loaded(device.provider)):
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


def _alone_if_large(stage: Stage) -> Stage:
    """Run a large stage row by row on a processor, where all sizes but the batch are known.

    There is enough in one image for all cores, and what it makes stays in their caches: eight
    at once take longer than one by one.
    """
    known = all(spec.shape_for(1) is not None for spec in stage.outputs)
    if stage.macs < LARGE_MACS or not known:
        return stage
    return stage.model_copy(update={"rows_per_run": 1})


def _lacking(provider: str, what: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{PROVIDERS[provider]} {what}; check the driver and the CUDA, cuDNN and TensorRT "
        f"libraries that ONNX Runtime {ort.__version__} needs"
    )


def run_binding(session: Any, binding: Any, on_host: bool, options: Any = None) -> None:
    """Run a session whose inputs and outputs are bound, and wait for its outputs."""
    if on_host:
        session.run_with_iobinding(binding, options)
        return
    binding.synchronize_inputs()
    session.run_with_iobinding(binding, options)
    binding.synchronize_outputs()


def _bind(bind: Callable[..., None], name: str, tensor: OrtTensor) -> None:
    """Tell a binding's method where a tensor is."""
    bind(name, *tensor.place, tensor.dtype.type, tensor.shape, tensor.pointer)
