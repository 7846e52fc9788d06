"""ONNX Runtime's process-wide thread pool, providers, session options and sessions."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Stage
from dyninfer.engines.ort.gpu import add_providers, available_providers
from dyninfer.engines.ort.library import ort, ort_errors
from dyninfer.engines.ort.memory import limited_tensors, open_limited, tensor_memory
from dyninfer.engines.shared_weights import read_shared
from dyninfer.engines.signature import FileTensor, check_made, check_signature
from dyninfer.engines.threads import SHARED, Threads
from dyninfer.errors import BackendUnavailable, EngineBuildError, EngineRunError
from dyninfer.forks import Opening, check_parent, never_free_in_child
from dyninfer.installing import pip_install

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

_OPTIONS: dict[str, dict[str, str]] = {
    "tensorrt": {},
    # the default tries every algorithm of cuDNN for every new shape of every convolution
    "cuda": {"cudnn_conv_algo_search": "HEURISTIC"},
}
"""Of providers on a GPU, beside :func:`dyninfer.engines.ort.gpu.tensorrt_options`; not run."""


@dataclass(frozen=True)
class OrtDevice:
    """A device as ONNX Runtime knows it, and the execution provider to use there."""

    device_type: str
    device_id: int
    provider: str

    @cached_property
    def is_cpu(self) -> bool:
        """Whether its memory is the host's."""
        return self.device_type == "cpu"

    @property
    def name(self) -> str:
        """``cpu`` or ``cuda:N``."""
        return "cpu" if self.is_cpu else f"{self.device_type}:{self.device_id}"

    @property
    def place(self) -> tuple[str, int]:
        """Type and number, as bindings take them."""
        return self.device_type, self.device_id

    @property
    def pinning(self) -> tuple[str, int] | None:
        """The provider that may give pinned memory, and the number of its device."""
        return None if self.is_cpu else (PROVIDERS["cuda"], self.device_id)

    @property
    def providers(self) -> list[Any]:
        """The provider list of a session: what was asked for, then what it may lean on.

        CUDA after TensorRT and the CPU after both take single operators that the one before
        lacks; that the first one is really there is checked on every session.
        """
        if self.is_cpu:
            return [PROVIDERS["cpu"]]
        chain = ["tensorrt", "cuda"] if self.provider == "tensorrt" else ["cuda"]
        number = {"device_id": str(self.device_id)}
        return [*((PROVIDERS[name], number | _OPTIONS[name]) for name in chain), PROVIDERS["cpu"]]


def parse_device(device: str, provider: str | None) -> OrtDevice:
    """Which device and provider are meant.

    Raises:
        BackendUnavailable: they are unknown, contradict each other, or are not installed.
    """
    match = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", str(device))
    if match is None or (match[1] == "cpu" and match[2]):
        raise BackendUnavailable(f"device {device!r} is unknown, expected 'cpu' or 'cuda:0'")
    provider = provider or match[1]
    if provider not in PROVIDERS:
        raise BackendUnavailable(
            f"provider {provider!r} is unknown, expected one of {', '.join(PROVIDERS)}"
        )
    if (provider == "cpu") != (match[1] == "cpu"):
        raise BackendUnavailable(
            f"provider {provider!r} does not run on device {device!r}; "
            "the cpu provider goes with device 'cpu', cuda and tensorrt with 'cuda:0'"
        )
    available = available_providers()
    if PROVIDERS[provider] not in available:
        raise BackendUnavailable(
            f"this ONNX Runtime {ort.__version__} has no {PROVIDERS[provider]} "
            f"(it has {', '.join(available)}); uninstall onnxruntime and "
            f"install the GPU build with {pip_install('cuda')}"
        )
    return OrtDevice(match[1], int(match[2] or 0), provider)


SPIN_US = 100
SMALL_MACS = 1_000_000_000
LARGE_MACS = 10_000_000_000
"""Multiply-accumulates of an image from which a processor runs a batch row by row: eight images at
once took 0.72 to 1.01 of one by one in stages of 0.02 to 2 billion, and 1.13 with full-size
Dy-YOLOv7, whose stages have 19 billion and more. Nothing between was measured."""

_pool_lock = threading.Lock()
_pool_ready = False


def share_thread_pool() -> None:
    """Give the process one thread pool, once; all later sessions must use it."""
    global _pool_ready
    with _pool_lock:
        if not _pool_ready:
            ort.set_global_thread_pool_sizes(0, 1)
            _pool_ready = True


def session_options(threads: Threads = None, small: bool = False, lone: bool = False) -> Any:
    """Options of a session.

    A stage that is tiny (:func:`dyninfer.engines.threads.is_tiny`) has a single thread, so that a
    route wakes nobody for its router. One graph of a body and its router would save the few
    microseconds that a run of so little takes, and no thread that is to be woken.

    Sessions that take turns slow each other down by 5 to 20 % if the threads of the idle ones
    keep spinning. Either all share one pool, or each has its own whose threads stop spinning
    when a run ends; both are as fast. The shared one is not the default, because afterwards
    ONNX Runtime refuses every session of the application's own that has default options.

    Within a run, threads that wait for others spin for :data:`SPIN_US` microseconds and then sleep:
    as fast as without a limit where cores are free (never to spin takes a third longer), and
    faster where other processes want them. Also tried, and none was better: no arena, a lower
    optimisation level, no prepacking, parallel execution, as many threads as
    there are cores, by their number.

    Memory patterns reserve a run's tensors as one block. Small stages have them, and take 0.95 of
    the time without. Large ones do not: every stage would keep such a block, for the largest batch
    it has seen, which made a cascade's peak memory half as large again for no time.

    Args:
        threads: how many the session has, by itself or, where they are shared, with others.
        small: the stage makes at most :data:`SMALL_MACS` multiply-accumulates an image.
        lone: run on the caller's thread alone, for callers side by side.
    """
    options = ort.SessionOptions()
    if threads == SHARED:
        options.use_per_session_threads = False
    else:
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # versions of ONNX Runtime that do not know this entry ignore it
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.enable_mem_pattern = small
    if lone:
        options.intra_op_num_threads = 1
    elif isinstance(threads, int):
        options.intra_op_num_threads = threads
    # whatever the file is called: its own format is read without a look at where weights are
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.log_severity_level = 4  # what fails is raised, in one line
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def open_session(
    path: Path,
    device: OrtDevice,
    threads: Threads = None,
    *,
    small: bool = False,
    lone: bool = False,
    weights: Mapping[str, npt.NDArray[Any]] | None = None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """An inference session on the device; whatever ONNX Runtime raises passes through.

    ``weights`` are those that the file does not hold itself, by name; ``more`` are further options
    of the device's own provider.

    Raises:
        EngineBuildError: nothing tells how much memory it takes to open the file.
        BackendUnavailable: this is a forked child, in which opening it may never end.
    """
    check_parent()
    weights = weights or {}
    with limited_tensors(tensor_memory(0)), Opening():
        if threads == SHARED:
            share_thread_pool()
        try:
            options = session_options(threads, small, lone)
            return _session(path, device, options, weights, more)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            if threads == SHARED or "use_per_session_threads" not in str(error):
                raise
        # the application has set up a shared pool itself
        return _session(path, device, session_options(SHARED, small), weights, more)


def _session(
    path: Path,
    device: OrtDevice,
    options: Any,
    weights: Mapping[str, npt.NDArray[Any]],
    more: Mapping[str, str],
) -> Any:
    providers = device.providers
    if more:
        (name, own), *others = providers
        providers = [(name, own | more), *others]
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
    options.add_external_initializers([*weights], values)
    session = open_limited(
        path,
        options,
        add_providers(options, providers, device.device_id),
        beside=sum(array.nbytes for array in weights.values()),
        enable_fallback=0,  # or it prints, and tries again with other providers
    )
    session.weights_in_use = values  # it reads them where they are
    return never_free_in_child(session)


_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
}


def check_session(path: Path, stage: Stage, session: Any) -> None:
    """Compare a session with what the manifest says of its stage.

    Sequences and sparse tensors are of no type that a stage may have, and so refused.

    Raises:
        EngineBuildError: they differ.
    """

    def declared(values: Any) -> list[FileTensor]:
        # [] is what ONNX Runtime says of a scalar, and of a tensor with any number of axes
        return [
            FileTensor(
                value.name,
                _DTYPES.get(value.type, value.type),
                tuple(size if isinstance(size, int) else None for size in value.shape) or None,
            )
            for value in values
        ]

    with ort_errors(EngineBuildError, f"ONNX Runtime cannot describe {path}"):
        inputs, outputs = declared(session.get_inputs()), declared(session.get_outputs())
    check_signature(str(path), stage, inputs, outputs)


IMAGES = 8
"""The largest batch of what opens bundles to measure or to convert them."""


class PlainStages:
    """Sessions of a bundle's stages, opened when they are first asked for and then kept.

    Args:
        bundle: whose stages they are.
        files: stage -> another file to run it from, such as a conversion's.
    """

    def __init__(self, bundle: Bundle, files: Mapping[str, Path] | None = None) -> None:
        self.bundle = bundle
        self._files = dict(files or {})
        self._sessions: dict[str, Any] = {}

    def run(
        self, stage: str, tensors: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """The stage's outputs by name for its inputs, which ``tensors`` hold among others.

        Raises:
            EngineBuildError: ONNX Runtime cannot open the stage, or it is not what the manifest
                says.
            EngineRunError: ONNX Runtime failed, or made what the manifest does not say.
        """
        entry = self.bundle.manifest.stages[stage]
        if stage not in self._sessions:
            self._sessions[stage] = self._open(stage, entry)
        names = [spec.name for spec in entry.outputs]
        given = {spec.name: tensors[spec.name] for spec in entry.inputs}
        with ort_errors(EngineRunError, f"ONNX Runtime failed in stage {stage!r}"):
            found = self._sessions[stage].run(names, given)
        made = dict(zip(names, found, strict=True))
        check_made(stage, entry.outputs, made, len(given[entry.inputs[0].name]))
        return made

    def _open(self, stage: str, entry: Stage) -> Any:
        given = self._files.get(stage)
        with nullcontext(given) if given else self.bundle.opening(stage) as path:
            weights = read_shared(path, f"stage {stage!r}", entry.weights)
            with (
                ort_errors(EngineBuildError, f"ONNX Runtime cannot open stage {stage!r} ({path})"),
                limited_tensors(tensor_memory(IMAGES * self.bundle.manifest.pixels)),
            ):
                session = open_session(path, parse_device("cpu", None), weights=weights)
            check_session(path, entry, session)
        return session
