"""Stages as ONNX Runtime sessions whose tensors travel without a copy."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.engines.base import Backend, Engine
from dyninfer.engines.ort.runtime import PROVIDERS, Target, ort, parse_target, session_options
from dyninfer.engines.ort.tensor import OrtTensor, OrtWorkspace
from dyninfer.errors import BackendUnavailable, EngineBuildError
from dyninfer.manifest import Stage
from dyninfer.types import Int64Array


class OrtEngine(Engine[OrtTensor, OrtWorkspace]):
    """One stage as an inference session."""

    def __init__(
        self, name: str, stage: Stage, session: Any, target: Target, host_outputs: frozenset[str]
    ) -> None:
        super().__init__(name, stage)
        self._session = session
        self._target = target
        self._host_outputs = host_outputs

    def _execute(
        self, inputs: Mapping[str, OrtTensor], batch: int, workspace: OrtWorkspace
    ) -> dict[str, OrtTensor]:
        binding = workspace.bindings.get(self.name)
        if binding is None:
            binding = workspace.bindings[self.name] = self._session.io_binding()
        for spec in self.stage.inputs:
            _bind_input(binding, spec.name, inputs[spec.name])
        outputs = {}
        for spec in self.stage.outputs:
            shape = spec.shape_for(batch)
            on_host = spec.name in self._host_outputs
            if shape is None:
                binding.bind_output(spec.name, *self._place(on_host))
                continue
            key, dtype = (self.name, spec.name), np.dtype(spec.dtype)
            outputs[spec.name] = workspace.tensor(key, shape, dtype, on_host)
            _bind_output(binding, spec.name, outputs[spec.name])
        run_binding(self._session, binding, self._target)
        if len(outputs) < len(self.stage.outputs):
            values = binding.get_outputs()
            for spec, value in zip(self.stage.outputs, values, strict=True):
                outputs.setdefault(spec.name, OrtTensor.over_value(value, np.dtype(spec.dtype)))
        return outputs

    def _place(self, on_host: bool) -> tuple[str, int]:
        return ("cpu", 0) if on_host else (self._target.device_type, self._target.device_id)

    def close(self) -> None:
        """Free the session; the engine cannot run afterwards."""
        self._session = None


class OrtBackend(Backend[OrtTensor, OrtWorkspace]):
    """ONNX Runtime on one device.

    What was run where: the CPU provider runs in the project's tests. The CUDA and TensorRT
    providers follow the same code and have not been run on a GPU by this project.
    """

    name = "onnxruntime"

    def __init__(self, device: str = "cpu", provider: str | None = None) -> None:
        self._target = parse_target(device, provider)
        self.device = self._target.name
        self._gather_sessions: dict[str, Any] = {}

    def open(self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]) -> OrtEngine:
        """See :meth:`dyninfer.engines.base.Backend.open`."""
        session = self._session(path, f"stage {name!r}")
        found = [value.name for value in session.get_outputs()]
        expected = [spec.name for spec in stage.outputs]
        if found != expected:
            raise EngineBuildError(f"{path} has outputs {found}, the manifest says {expected}")
        return OrtEngine(name, stage, session, self._target, host_outputs)

    def workspace(self) -> OrtWorkspace:
        """New buffers for one concurrent caller."""
        return OrtWorkspace(self._target)

    def from_host(self, array: npt.NDArray[Any]) -> OrtTensor:
        """A tensor over a host array; ONNX Runtime copies it to the device where it must."""
        return OrtTensor.over_array(array)

    def gather(
        self, name: str, tensor: OrtTensor, rows: Int64Array, workspace: OrtWorkspace
    ) -> OrtTensor:
        """The given rows, gathered on the tensor's device by a one-operator session."""
        session = self._gather_session(tensor.dtype)
        key = f"gather_{tensor.dtype}"
        binding = workspace.bindings.get(key)
        if binding is None:
            binding = workspace.bindings[key] = session.io_binding()
        on_host = self._target.device_type == "cpu"
        shape = (len(rows), *tensor.shape[1:])
        result = workspace.tensor(("gather", name), shape, tensor.dtype, on_host)
        _bind_input(binding, "data", tensor)
        _bind_input(binding, "rows", OrtTensor.over_array(rows))
        _bind_output(binding, "gathered", result)
        run_binding(session, binding, self._target)
        return result

    def _gather_session(self, dtype: np.dtype[Any]) -> Any:
        key = str(dtype)
        if key not in self._gather_sessions:
            file = resources.files("dyninfer.engines.ort") / f"gather_rows_{key}.onnx"
            with resources.as_file(file) as path:
                self._gather_sessions[key] = self._session(path, f"gather of {key}")
        return self._gather_sessions[key]

    def _session(self, path: Path, what: str) -> Any:
        try:
            session = ort.InferenceSession(
                str(path), session_options(), providers=self._target.providers
            )
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = str(error).splitlines()[0]
            raise EngineBuildError(f"ONNX Runtime cannot open {what} ({path}): {reason}") from error
        wanted = PROVIDERS[self._target.provider]
        if wanted not in session.get_providers():
            raise BackendUnavailable(
                f"{wanted} was asked for but ONNX Runtime fell back to "
                f"{', '.join(session.get_providers())} for {what}; check the driver and the "
                f"CUDA and TensorRT libraries that ONNX Runtime {ort.__version__} needs"
            )
        return session


def run_binding(session: Any, binding: Any, target: Target) -> None:
    """Run a session whose inputs and outputs are bound, and wait for its outputs."""
    if target.device_type != "cpu":
        binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    if target.device_type != "cpu":
        binding.synchronize_outputs()


def _bind_input(binding: Any, name: str, tensor: OrtTensor) -> None:
    binding.bind_input(
        name, tensor.device_type, tensor.device_id, tensor.dtype.type, tensor.shape, tensor.pointer
    )


def _bind_output(binding: Any, name: str, tensor: OrtTensor) -> None:
    binding.bind_output(
        name, tensor.device_type, tensor.device_id, tensor.dtype.type, tensor.shape, tensor.pointer
    )
