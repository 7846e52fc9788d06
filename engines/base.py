"""What every backend offers: engines that run stages, and tensors that stay on their device.

The base class does every check; a backend only acts.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest, Precision, Stage, TensorSpec
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.threads import Threads
from dyninfer.errors import EngineRunError, InputError
from dyninfer.spans import DeviceSpan
from dyninfer.types import Int64Array

_NOTHING = nullcontext()


class HostRead(Protocol):
    """Values on their way from the device to the host."""

    def numpy(self) -> npt.NDArray[Any]:
        """The values, once they are there; in a buffer that the workspace will use again."""


class Tensor(Protocol):
    """A tensor on a backend's device. The first axis is the batch."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of all axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""

    def numpy(self) -> npt.NDArray[Any]:
        """The values on the host; a view where the memory is the host's already."""

    def to_host(self, rows: Int64Array | None = None) -> HostRead:
        """Send the values, or those of some rows, to the host; whoever reads them waits for them.

        One read of a tensor at a time: the next one uses the same buffer.
        """


class OnHost:
    """Values that are on the host already: what :meth:`Tensor.to_host` of a CPU gives."""

    __slots__ = ("values",)

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self.values = values

    def numpy(self) -> npt.NDArray[Any]:
        """The values."""
        return self.values


class Workspace(Protocol):
    """Buffers of one call at a time, kept between calls so that a steady state allocates nothing.

    What an engine returns lives in the workspace and is valid until its next use. ``kept`` is
    free for whoever borrows it: what belongs beside the buffers and goes when they go, by name.
    ``deadline`` is that of the call, which an engine that can be interrupted keeps, and who waits
    for a device. ``lone`` is whether the call is one of several side by side, which are faster
    together where each keeps to its own thread. ``timed`` is whether the call wants
    :meth:`device_spans`, and ``warming`` whether it only prepares for others like it. ``busy`` is
    whether a device still works there that was not waited for any longer: nobody may have the
    workspace until that is over.
    """

    kept: dict[str, Any]
    deadline: Deadline | None
    lone: bool
    timed: bool
    warming: bool

    @property
    def busy(self) -> bool: ...  # noqa: D102  # see above

    def host_array(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """An array of this shape on the host, from a buffer that is used again."""

    def device_spans(self) -> Sequence[DeviceSpan]:
        """What was done since this was asked last, in order, by the device's own clock.

        Empty where the host waits for every stage, so that its clock is right.
        """

    def close(self) -> None:
        """Free the buffers; nothing that lives in them may be used afterwards."""


TensorT = TypeVar("TensorT", bound=Tensor)
WorkspaceT = TypeVar("WorkspaceT", bound=Workspace)


class SendsAhead(Protocol):
    """Images of one thread on their way to a device; see :meth:`Backend.sending_ahead`."""

    def arrays(self) -> Mapping[str, npt.NDArray[Any]]:
        """Where to put the next images, by image input."""
        ...

    def send(self) -> Mapping[str, DeviceArray]:
        """Start to send them; a call that reads them waits on the device."""
        ...


class Engine(ABC, Generic[TensorT, WorkspaceT]):
    """One stage, opened on a backend. Safe to run from several threads, each with a workspace.

    ``run_count`` is how often the backend was started, ``row_count`` how many images it has seen.
    A stage that takes one image at a time (``Stage.rows_per_run``) is started once for each row,
    so that both counters agree there.
    """

    def __init__(self, name: str, stage: Stage) -> None:
        self.name = name
        self.stage = stage
        self.run_count = 0
        self.row_count = 0
        self._row_by_row = stage.rows_per_run is not None
        self._count_lock = threading.Lock()
        self._expected = tuple(  # inputs as they usually come, quick to compare
            (spec, spec.name, spec.shape[1:], np.dtype(spec.dtype)) for spec in stage.inputs
        )

    def run(self, inputs: Mapping[str, TensorT], workspace: WorkspaceT) -> Mapping[str, TensorT]:
        """Run the stage.

        Args:
            inputs: at least the stage's inputs, by name; others are ignored.
            workspace: the buffers that outputs are written to.

        Returns:
            The stage's outputs by name, valid until the workspace is used again.

        Raises:
            InputError: an input is missing or has another shape or dtype than the stage's, or
                there is no image.
        """
        batch = None
        for spec, name, row_shape, expected in self._expected:
            if name not in inputs:
                raise InputError(f"stage {self.name!r} got no {name!r}; it expects {spec}")
            tensor = inputs[name]
            shape, dtype = tensor.shape, tensor.dtype
            batch = shape[0] if batch is None else batch
            as_ever = dtype is expected and shape[0] == batch and shape[1:] == row_shape
            if not as_ever:
                check_tensor(shape, dtype, spec, batch, f"stage {self.name!r}")
        if not batch:
            raise InputError(f"stage {self.name!r} got no images, expected at least one")
        with self._count_lock:
            self.run_count += batch if self._row_by_row else 1
            self.row_count += batch
        return self._execute(inputs, batch, workspace)

    @abstractmethod
    def _execute(
        self, inputs: Mapping[str, TensorT], batch: int, workspace: WorkspaceT
    ) -> Mapping[str, TensorT]:
        """Run with inputs that were checked."""

    def spare_memory(self) -> None:  # not every backend can
        """Give back after every run what only that needed, where the backend can do so."""

    @abstractmethod
    def close(self) -> None:
        """Free the engine and its device memory."""


class Backend(ABC, Generic[TensorT, WorkspaceT]):
    """Opens engines on one device and moves rows between them.

    ``device_name`` is what the device calls itself, ``version`` the backend library's version and
    ``provider`` which of its execution providers runs the stages: what measurements are tied to.
    ``precision`` is that of every stage, once :meth:`configure` was called, and ``threads`` what
    the caller said of them.
    """

    name: str
    version: str
    provider: str
    device: str
    device_name: str
    warm_rounds = 1  # runs of a batch size after which the next are as quick as they get
    precision: Mapping[str, Precision] = {}
    threads: Threads = None

    def configure(self, manifest: Manifest, precision: Mapping[str, Precision]) -> None:
        """Say which stages will be opened, and in which precision each.

        Raises:
            InputError: this backend, or its device, cannot.
        """
        del manifest
        if Precision.BF16 in precision.values():
            raise InputError(
                f"{self.name} was asked for bf16, which OpenVINO alone computes; add --backend "
                "openvino (in Python backend='openvino')"
            )
        self.precision = dict(precision)

    def backend_of(self, stage: str) -> str:  # noqa: ARG002  # for those that are several
        """The name of the backend that opens a stage."""
        return self.name

    def reserve(self, places: Sequence[tuple[str, TensorSpec]]) -> None:
        """Within :meth:`opening`: what :meth:`gather_all` will be asked for, and where."""

    def opening(
        self,
        manifest: Manifest,  # noqa: ARG002  # for backends that limit memory
        batch: int,  # noqa: ARG002
        host_code: bool = False,  # noqa: ARG002  # for those whose files may hold code
    ) -> AbstractContextManager[None]:
        """A context in which a bundle's engines are opened, for at most ``batch`` images at once.

        ``host_code`` says that the files, whose hashes were checked, may hold code of their own.

        Raises:
            EngineBuildError: its tensors would need too much memory.
        """
        return nullcontext()

    @abstractmethod
    def open(
        self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]
    ) -> Engine[TensorT, WorkspaceT]:
        """Open a stage.

        Args:
            name: the stage's.
            stage: its description.
            path: the file to run, of the kind that this backend reads.
            host_outputs: outputs that the host reads; all others stay on the device.

        Raises:
            EngineBuildError: the backend cannot run this file.
        """

    def open_lone(
        self,
        engine: Engine[TensorT, WorkspaceT],  # noqa: ARG002  # for backends that run on a CPU
        path: Path,  # noqa: ARG002
    ) -> bool:
        """Open a stage's file once more, for runs on the caller's thread alone.

        Returns:
            Whether that was done; it is not where calls side by side would gain nothing by it.

        Raises:
            EngineBuildError: the file cannot be opened any more.
        """
        return False

    @abstractmethod
    def close(self) -> None:
        """Free what the backend holds besides its engines."""

    @abstractmethod
    def after_fork(self) -> None:
        """In a child process: be ready to open engines again, and free nothing of the parent's.

        Raises:
            BackendUnavailable: what the parent opened does not let the child open its own.
        """

    @abstractmethod
    def workspace(self) -> WorkspaceT:
        """New buffers for one concurrent caller."""

    @abstractmethod
    def from_host(self, array: npt.NDArray[Any], workspace: WorkspaceT) -> TensorT:
        """A tensor over a C-contiguous host array, which must stay alive and unchanged.

        ``array`` may be one of the workspace's own, with new values in it.
        """

    @abstractmethod
    def from_device(self, name: str, array: DeviceArray, workspace: WorkspaceT) -> TensorT:
        """A tensor of values that another library has on this backend's GPU.

        Raises:
            InputError: they are on another device.
        """

    @abstractmethod
    def gather(
        self, name: str, tensor: TensorT, rows: Int64Array, workspace: WorkspaceT
    ) -> TensorT:
        """The given rows of a tensor, as a new and smaller batch on the same device."""

    def gather_all(
        self,
        place: str,
        tensors: Mapping[str, TensorT],
        rows: Int64Array,
        workspace: WorkspaceT,
    ) -> dict[str, TensorT]:
        """The given rows of each tensor; ``place`` differs at every place of a plan."""
        return {
            name: self.gather(f"{name} {place}", tensor, rows, workspace)
            for name, tensor in tensors.items()
        }

    def read(
        self,
        tensors: Mapping[str, TensorT],
        rows: Int64Array | None,
        workspace: WorkspaceT,  # noqa: ARG002  # for backends that read them together
    ) -> dict[str, HostRead]:
        """Send tensors, or some rows of each, to the host; see :meth:`Tensor.to_host`."""
        return {name: tensor.to_host(rows) for name, tensor in tensors.items()}

    def active(self) -> AbstractContextManager[None]:
        """A context around all of a call, for what a device needs once and not at every step."""
        return _NOTHING

    def sending_ahead(
        self,
        inputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],  # noqa: ARG002
    ) -> AbstractContextManager[SendsAhead] | None:
        """Sends images of one thread to the device before the call that runs them.

        ``inputs`` are image inputs with their shapes and element types. None where nothing travels.
        """
        return None

    def aside(self, workspace: WorkspaceT) -> AbstractContextManager[None]:  # noqa: ARG002
        """A context whose work may run beside what follows it; nothing that follows needs it."""
        return _NOTHING


def check_tensor(
    shape: tuple[int, ...], dtype: np.dtype[Any], spec: TensorSpec, batch: int, owner: str
) -> None:
    """Compare a tensor with what was promised.

    Raises:
        InputError: the dtype or a fixed axis differs; the message shows both.
    """
    # as most are, and quicker; the first axis is the batch's in every stage
    if shape == (batch, *spec.shape[1:]) and dtype == spec.dtype:
        return
    fits = len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or found == wanted
        for found, wanted in zip(shape, spec.shape, strict=True)
    )
    if not fits or dtype != spec.dtype or shape[0] != batch:
        lacks_batch = len(shape) == len(spec.shape) - 1
        hint = "; add a batch axis, for example array[None]" if lacks_batch else ""
        if shape and not lacks_batch and shape[0] != batch:
            hint = f"; the other inputs have {batch} in the batch"
        raise InputError(
            f"{owner} got {spec.name} {dtype} {shape}, expected {spec.dtype} "
            f"({', '.join(map(str, spec.shape))}){hint}"
        )


def check_rows(rows: Int64Array, shape: tuple[int, ...]) -> None:
    """Refuse rows (K,) that a tensor of this shape does not have.

    Raises:
        EngineRunError: they would be read beside its memory.
    """
    if len(rows) and not (rows.min() >= 0 and rows.max() < shape[0]):
        raise no_such_rows(int(rows.min()), int(rows.max()), shape)


def no_such_rows(first: int, last: int, shape: tuple[int, ...]) -> EngineRunError:
    """What to raise where rows were asked of a tensor that has fewer."""
    return EngineRunError(f"rows {first} to {last} were asked of a tensor {shape} of {shape[0]}")
