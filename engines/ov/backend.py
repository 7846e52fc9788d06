"""Stages compiled by OpenVINO, between tensors in the memory of ONNX Runtime's CPU backend."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest, Precision, Stage
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.ort.bound import BoundEngine, check_one_row
from dyninfer.engines.ort.host import HostBackend
from dyninfer.engines.ort.memory import check_declared
from dyninfer.engines.ort.tensor import Bound, OrtTensor, OrtWorkspace
from dyninfer.engines.ov.library import VERSION, is_ov_error, open_core, ov, ov_errors, told
from dyninfer.engines.shared_weights import read_shared, with_weights
from dyninfer.engines.signature import EXPORT_AGAIN, FileTensor, check_signature
from dyninfer.engines.threads import SHARED, Threads
from dyninfer.errors import (
    BackendUnavailable,
    DeadlineError,
    EngineBuildError,
    EngineRunError,
    InputError,
)
from dyninfer.forks import Opening, check_parent, never_free_in_child
from dyninfer.hardware import cpu_name, usable_cores

_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8"}
_BF16 = "BF16"
_GRACE_MS = 20
"""How long a request that was told to stop is waited for."""


class OvEngine(BoundEngine):
    """One stage as a compiled model; a binding is a request and the tensors it writes to."""

    library = "OpenVINO"

    def __init__(
        self, name: str, stage: Stage, compiled: Any, host_outputs: frozenset[str]
    ) -> None:
        super().__init__(name, stage, compiled, host_outputs)
        read = {port.any_name for port in compiled.inputs}
        self._inputs = tuple(name for name in self._inputs if name in read)

    def _new_binding(self, session: Any) -> _Request:
        return _Request(never_free_in_child(session.create_infer_request()))

    def _bind_input(self, binding: _Request, name: str, tensor: OrtTensor) -> None:
        self._set(binding, name, _over(tensor.numpy()))

    def _bind_output(self, binding: _Request, name: str, tensor: OrtTensor) -> None:
        value = _over(tensor.numpy())
        self._set(binding, name, value)
        binding.written[name] = (value, tensor.shape)

    def _set(self, binding: _Request, name: str, value: Any) -> None:
        with ov_errors(EngineRunError, f"OpenVINO failed in stage {self.name!r}"):
            binding.request.set_tensor(name, value)

    def _bind_unknown(self, binding: _Request, name: str, on_host: bool) -> None:
        """Nothing: what is not bound lies in the request's own memory."""

    def _made(self, binding: _Request) -> dict[str, OrtTensor]:
        unbound = (spec.name for spec in self.stage.outputs if spec.name not in binding.written)
        return {
            name: OrtTensor.over_array(binding.request.get_tensor(name).data) for name in unbound
        }

    def _infer(self, bound: Bound, workspace: OrtWorkspace) -> None:
        request, deadline = bound.binding.request, workspace.deadline
        if deadline is None or deadline.passed:
            request.infer(share_outputs=True)
        else:
            request.start_async()
            _wait_until(deadline, request, workspace)
        for name, (value, shape) in bound.binding.written.items():
            if tuple(value.shape) != shape:  # a smaller one fits into the memory, and is written
                raise EngineRunError(
                    f"stage {self.name!r} made {name} {tuple(value.shape)}, expected {shape}; "
                    f"{EXPORT_AGAIN}"
                )

    def _reason(self, error: Exception) -> str | None:
        return told(error) if is_ov_error(error) else None


def _wait_until(deadline: Deadline, request: Any, workspace: OrtWorkspace) -> None:
    """Wait for a request; at the deadline stop it, which it heeds between two of its operators.

    Raises:
        DeadlineError: it works on all the same, and so the workspace stays busy.
        RuntimeError: it was stopped.
    """
    while not request.wait_for(max(1, round(1e3 * (deadline.at - time.monotonic())))):
        if time.monotonic() < deadline.at:
            continue
        deadline.passed = True
        request.cancel()
        if not request.wait_for(_GRACE_MS):
            workspace.abandoned = partial(_is_over, request)
            raise DeadlineError(str(deadline))


def _is_over(request: Any) -> bool:
    try:
        return bool(request.wait_for(0))
    except RuntimeError:  # it was stopped
        return True


class _Request:
    """A request, and its outputs that are bound: each with the shape that it must keep."""

    __slots__ = ("__weakref__", "request", "written")

    def __init__(self, request: Any) -> None:
        self.request = request
        self.written: dict[str, tuple[Any, tuple[int, ...]]] = {}


class OvBackend(HostBackend):
    """OpenVINO on a processor, or (after its documentation, not run) on Intel's GPUs.

    All threads of a model are one stream: a call uses all cores, or as many as it may, and calls at
    the same time wait for each other. Its threads are not pinned, so that other engines may run
    between them.
    Memory that stages take is not limited, as ONNX Runtime's is. A cache of compiled models is
    not kept: to read one back takes as long as to compile it.
    """

    name = "openvino"
    version = VERSION

    def __init__(
        self, device: str = "cpu", provider: str | None = None, threads: Threads = None
    ) -> None:
        super().__init__(threads)
        if threads == SHARED:
            raise InputError(
                f"threads is {threads!r}, a pool of ONNX Runtime's sessions; with backend "
                "'openvino' give a number, or leave it out"
            )
        if provider is not None:
            raise BackendUnavailable(
                f"provider {provider!r} belongs to ONNX Runtime; leave it out with backend "
                "'openvino'"
            )
        match = re.fullmatch(r"(cpu)|gpu(?::(\d{1,3}))?", str(device))
        if match is None:
            raise BackendUnavailable(
                f"device {device!r} is unknown to OpenVINO, expected 'cpu' or 'gpu:0'"
            )
        self.device = "cpu" if match[1] else f"gpu:{match[2] or 0}"
        self.provider = self.device.partition(":")[0]
        self._device = self.device.upper().replace(":", ".")
        with Opening(), ov_errors(BackendUnavailable, f"OpenVINO has no device {self._device}"):
            self._core = open_core()
            self._can = self._core.get_property(self._device, "OPTIMIZATION_CAPABILITIES")
            full_name = str(self._core.get_property(self._device, "FULL_DEVICE_NAME"))
        self.device_name = cpu_name() if self.device == "cpu" else full_name

    @property
    def has_bf16(self) -> bool:
        """Whether the device computes in bf16."""
        return _BF16 in self._can

    def configure(self, manifest: Manifest, precision: Mapping[str, Precision]) -> None:
        """See :meth:`dyninfer.engines.base.Backend.configure`."""
        del manifest
        if Precision.BF16 in precision.values() and not self.has_bf16:
            raise InputError(
                f"{self.device_name} does not compute in bf16, expected a processor with "
                "AVX512_BF16, AMX or SVE's bf16; choose fp32 or int8"
            )
        self.precision = dict(precision)

    def opening(
        self, manifest: Manifest, batch: int, host_code: bool = False
    ) -> AbstractContextManager[None]:
        """Refuses stages that say they make too much."""
        del host_code
        check_declared(manifest, batch)
        return nullcontext()

    def open(self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]) -> OvEngine:
        """See :meth:`dyninfer.engines.base.Backend.open`."""
        check_parent()
        weights = read_shared(path, f"stage {name!r}", stage.weights)
        with (
            Opening(),
            ov_errors(EngineBuildError, f"OpenVINO cannot open stage {name!r} ({path})"),
        ):
            source = with_weights(path.read_bytes(), weights) if weights else str(path)
            model = self._core.read_model(source)
            _check_model(path, stage, model)
            stage = _row_by_row(stage, model)
            options = self._options(self.precision.get(name, Precision.FP32))
            compiled = never_free_in_child(self._core.compile_model(model, self._device, options))
        check_one_row(name, stage)
        return OvEngine(name, stage, compiled, host_outputs)

    def _options(self, precision: Precision) -> dict[str, Any]:
        """Of a compiled model; without the first, OpenVINO computes in bf16 where that is fast."""
        hint = "bf16" if precision is Precision.BF16 else "f32"
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self.device == "cpu":
            options |= {
                "INFERENCE_NUM_THREADS": self.threads or usable_cores(),
                "ENABLE_CPU_PINNING": False,
            }
        return options

    def after_fork(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.after_fork`."""
        if self.device != "cpu":
            raise BackendUnavailable(
                "OpenVINO's GPUs do not survive a fork: load the bundle in the child process, or "
                "start processes with multiprocessing's 'spawn'"
            )
        self._core = open_core()


def _check_model(path: Path, stage: Stage, model: Any) -> None:
    """Compare a model with what the manifest says of its stage.

    OpenVINO drops inputs that nothing reads; whether the file has them is not known here.

    Raises:
        EngineBuildError: they differ.
    """

    def declared(ports: Any, names: frozenset[str]) -> list[FileTensor]:
        # a tensor may have several names: of an initializer, say, and of the output that it is
        return [
            FileTensor(
                min(port.get_names() & names or port.get_names(), default="?"),
                _DTYPES.get(kind := port.element_type.get_type_name(), kind),
                _sizes(port.partial_shape),
            )
            for port in ports
        ]

    wanted = [frozenset(spec.name for spec in side) for side in (stage.inputs, stage.outputs)]
    ports = (model.inputs, model.outputs)
    inputs, outputs = (declared(*each) for each in zip(ports, wanted, strict=True))
    found = {tensor.name for tensor in inputs}
    unread = (spec for spec in stage.inputs if spec.name not in found)
    inputs += [FileTensor(spec.name, spec.dtype, None) for spec in unread]
    check_signature(str(path), stage, inputs, outputs)


def _row_by_row(stage: Stage, model: Any) -> Stage:
    """Fix a model's batch at one image, where all other sizes are known: it runs row by row.

    OpenVINO compiles for the sizes that it is told. With an open batch, stages in int8 take three
    times as long and small ones a tenth longer; eight images at once take longer than one by one.
    """
    shapes = {spec.name: spec.shape_for(1) for spec in (*stage.inputs, *stage.outputs)}
    if None in shapes.values():
        return stage
    model.reshape({port.any_name: shapes[port.any_name] for port in model.inputs})
    return stage.model_copy(update={"rows_per_run": 1})


def _sizes(shape: Any) -> tuple[int | None, ...] | None:
    if shape.rank.is_dynamic:
        return None
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


class _Writable:
    """Memory that NumPy may not write to, as OpenVINO wants it; it only reads inputs."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        pointer = array.__array_interface__["data"][0]
        self.__array_interface__ = {**array.__array_interface__, "data": (pointer, False)}


def _over(array: npt.NDArray[Any]) -> Any:
    """One of OpenVINO's tensors over an array, without a copy."""
    given = array if array.flags.writeable else np.asarray(_Writable(array))
    return ov.Tensor(given, shared_memory=True)
