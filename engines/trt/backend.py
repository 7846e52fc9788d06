"""TensorRT and TensorRT-RTX engines on one GPU.

One code path serves TensorRT 8.6 to 11 and TensorRT-RTX, through cuda-python or PyCUDA. What of it
was run where stands in docs/where-this-has-been-run.md.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest, Stage, TensorSpec
from dyninfer.engines.base import Backend, HostRead
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.trt.ahead import SendingAhead, Shaped
from dyninfer.engines.trt.cuda import Cuda, open_cuda
from dyninfer.engines.trt.engine import TrtEngine
from dyninfer.engines.trt.freeing import Freeing
from dyninfer.engines.trt.library import Flavour, Library, load_library, make_logger, start
from dyninfer.engines.trt.memory import Pool, TrtTensor
from dyninfer.engines.trt.opened import OpenedEngine, read_engine
from dyninfer.engines.trt.workspace import TrtWorkspace
from dyninfer.errors import BackendUnavailable, EngineBuildError, EngineRunError, InputError
from dyninfer.hardware import gpu_title
from dyninfer.plain_text import one_line
from dyninfer.types import Int64Array

logger = logging.getLogger("dyninfer")


@dataclass(frozen=True)
class Platform:
    """What the backend stands on: an imported TensorRT, and a GPU through CUDA."""

    library: Library
    cuda: Cuda


def find_platform(flavour: Flavour, device: str) -> Platform:
    """Import TensorRT and open the GPU.

    Raises:
        BackendUnavailable: something is missing; the message names all of it in one line.
    """
    match = re.fullmatch(r"cuda(?::(\d+))?", device)
    if match is None:
        raise BackendUnavailable(
            f"backend {flavour.value!r} does not run on device {device!r}, expected 'cuda:0'"
        )
    found: list[Any] = []
    missing = []
    for find in (partial(load_library, flavour), partial(open_cuda, int(match[1] or 0))):
        try:
            found.append(find())
        except BackendUnavailable as error:
            missing.append(str(error))
    if missing:
        raise BackendUnavailable(f"backend {flavour.value!r} cannot be used: {'; '.join(missing)}")
    return Platform(*found)


class TrtBackend(Backend[TrtTensor, TrtWorkspace]):
    """TensorRT on one GPU; ``platform`` is what to stand on, if it was found already.

    Raises:
        BackendUnavailable: the library, CUDA for Python, the driver or the GPU is missing.
    """

    warm_rounds = 3  # the second captures graphs, the third launches them

    def __init__(
        self, flavour: Flavour, device: str = "cuda:0", platform: Platform | None = None
    ) -> None:
        self.platform = platform or find_platform(flavour, device)
        self._library, self._cuda = self.platform.library, self.platform.cuda
        self.name = flavour.value
        self.provider = flavour.value
        self.version = self._library.version
        self.device = f"cuda:{self._cuda.device}"
        gpu = self._cuda.properties
        self.device_name = gpu_title(gpu.name, gpu.multiprocessors)
        self._device_pool = Pool(self._cuda, pinned=False)
        self._pinned_pool = Pool(self._cuda, pinned=True)
        self._workspaces: list[TrtWorkspace] = []
        self._scratch_size, self._batch = 0, 1
        self._opened: list[TrtEngine] = []
        self._places: list[tuple[str, TensorSpec]] = []
        self._ready: TrtWorkspace | None = None
        self._lock = threading.Lock()
        self._logger, self._log = make_logger(self._library)
        self._runtime: Any = None
        self._host_code = False

    @contextmanager
    def opening(self, manifest: Manifest, batch: int, host_code: bool = False) -> Iterator[None]:
        """See :meth:`dyninfer.engines.base.Backend.opening`.

        Buffers for the largest batch are allocated at the end, for the first caller.
        """
        self._host_code, self._batch = host_code, batch
        self._places, self._opened = [], []
        try:
            yield
        finally:
            self._host_code = False
        self._ready = self._new_workspace()
        try:
            with self._cuda.active():
                self._reserve(self._ready, manifest)
        except EngineRunError as error:
            raise EngineBuildError(str(error)) from error

    def _reserve(self, workspace: TrtWorkspace, manifest: Manifest) -> None:
        if self._scratch_size:
            workspace.scratch(self._scratch_size)
        for spec in manifest.image_tensors.values():
            workspace.reserve_input(spec)
        for engine in self._opened:
            tensors = engine.reserve(workspace, self._batch)
            ends = {name: tensors[name] for name in manifest.task.outputs if name in tensors}
            if len(ends) == len(manifest.task.outputs):
                workspace.reserve_read(ends)
            elif engine.name in manifest.deciders and tensors:
                workspace.reserve_read(tensors)
        for place, spec in self._places:
            workspace.reserve_gathered(place, spec)

    def reserve(self, places: Sequence[tuple[str, TensorSpec]]) -> None:
        """See :meth:`dyninfer.engines.base.Backend.reserve`."""
        self._places = list(places)

    def open(self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]) -> TrtEngine:
        """See :meth:`dyninfer.engines.base.Backend.open`; ``path`` is an engine."""
        del host_outputs  # whoever reads a tensor fetches it
        with self._lock, self._cuda.active():
            if self._runtime is None:
                self._runtime = start(self._library, "Runtime", self._logger, self._log)
            self._runtime.engine_host_code_allowed = self._host_code
            found, data = read_engine(path, name, self._runtime, self._log)
            kept_as = ""
            if self._library.has("IRuntimeConfig.create_runtime_cache"):
                capability = self._cuda.properties.capability
                kept_as = f"{hashlib.sha256(data).hexdigest()}-{self.version}-{capability}.bin"
            opened = OpenedEngine(
                name, stage, found, kept_as, self._runtime, self._library, self._log
            )
            self._scratch_size = max(self._scratch_size, opened.scratch_size)
        engine = TrtEngine(name, stage, opened, self._cuda)
        self._opened.append(engine)
        return engine

    def workspace(self) -> TrtWorkspace:
        """A stream and buffers for one concurrent caller."""
        ready, self._ready = self._ready, None
        if ready is not None:
            return ready
        return self._new_workspace()

    def _new_workspace(self) -> TrtWorkspace:
        workspace = TrtWorkspace(
            self._cuda, self._device_pool, self._pinned_pool, self._batch, self._scratch_size
        )
        with self._lock:
            self._workspaces = [known for known in self._workspaces if not known.closed]
            self._workspaces.append(workspace)
        return workspace

    def from_host(self, array: npt.NDArray[Any], _workspace: TrtWorkspace) -> TrtTensor:
        """A tensor over a host array, sent to the device when a stage first reads it."""
        return TrtTensor.over_array(array)

    def from_device(self, name: str, array: DeviceArray, workspace: TrtWorkspace) -> TrtTensor:
        """See :meth:`dyninfer.engines.base.Backend.from_device`; copied within the device."""
        if array.device not in (None, self._cuda.device):
            raise InputError(
                f"{name} is on 'cuda:{array.device}', expected this detector's {self.device!r}"
            )
        return workspace.adopt(name, array)

    def gather(
        self, name: str, tensor: TrtTensor, rows: Int64Array, workspace: TrtWorkspace
    ) -> TrtTensor:
        """The given rows, copied within the device."""
        return workspace.gather(name, {"": tensor}, rows)[""]

    def gather_all(
        self,
        place: str,
        tensors: Mapping[str, TrtTensor],
        rows: Int64Array,
        workspace: TrtWorkspace,
    ) -> dict[str, TrtTensor]:
        """See :meth:`dyninfer.engines.base.Backend.gather_all`; one set of copies for all."""
        return workspace.gather(place, tensors, rows)

    def read(
        self, tensors: Mapping[str, TrtTensor], rows: Int64Array | None, workspace: TrtWorkspace
    ) -> dict[str, HostRead]:
        """See :meth:`dyninfer.engines.base.Backend.read`; all arrive together."""
        return workspace.read(tensors, rows)

    def active(self) -> AbstractContextManager[None]:
        """See :meth:`dyninfer.engines.base.Backend.active`: the GPU is current within it."""
        return self._cuda.active()

    def sending_ahead(self, inputs: Shaped) -> SendingAhead:
        """See :meth:`dyninfer.engines.base.Backend.sending_ahead`."""
        return SendingAhead(self._cuda, self._device_pool, self._pinned_pool, inputs)

    def aside(self, workspace: TrtWorkspace) -> AbstractContextManager[None]:
        """See :meth:`dyninfer.engines.base.Backend.aside`: on a stream of its own."""
        return workspace.aside()

    @property
    def allocated_bytes(self) -> int:
        """Device memory and page-locked host memory that this backend holds."""
        return self._device_pool.allocated_bytes + self._pinned_pool.allocated_bytes

    def after_fork(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.after_fork`."""
        raise BackendUnavailable(
            "CUDA does not survive a fork: load the bundle in the child process, or start "
            "processes with multiprocessing's 'spawn'"
        )

    def close(self) -> None:
        """Free all workspaces and pools; engines are closed by whoever opened them."""
        with self._lock:
            workspaces, self._workspaces = self._workspaces, []
        for workspace in workspaces:
            workspace.close()
        self._ready, self._opened = None, []
        try:
            with Freeing(self._cuda.active()) as freeing:
                freeing.run(self._device_pool.close)
                freeing.run(self._pinned_pool.close)
                self._runtime = None
        except EngineRunError as error:  # the GPU is lost, and its memory is the process's
            logger.warning("memory of the GPU could not be freed: %s", one_line(str(error)))
