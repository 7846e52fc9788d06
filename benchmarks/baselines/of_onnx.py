"""Contenders that are ONNX files in ordinary ONNX Runtime sessions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.baselines.setup import (
    ABOVE_ALL,
    BIAS,
    FORCING_BIAS,
    THRESHOLD,
    Action,
    Arrays,
    CallKind,
    Contender,
    Setup,
    read_inputs,
)
from dyninfer.benchmarks.latency.scenarios import ForcedWay
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort.library import ort
from dyninfer.engines.ort.memory import limited_tensors, open_limited, tensor_memory
from dyninfer.engines.ort.runtime import IMAGES, parse_device
from dyninfer.errors import BackendUnavailable, InputError
from dyninfer.plain_text import counted
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.executor import execute
from dyninfer.runtime.plan import plan

INPUT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}
CHANNELS = 3


def open_ordinary(path: str, setup: Setup) -> Any:
    """A session with default options, but for limits on memory, on the device of dyninfer's own.

    On a GPU, ONNX Runtime's CUDA or TensorRT provider; not yet run there by this project.

    Raises:
        BackendUnavailable: ONNX Runtime lacks the provider, or fell back to another.
    """
    device = parse_device(setup.engine.device or "cpu", setup.engine.provider)
    pixels = IMAGES * sum(math.prod(images.shape[2:]) for images in read_inputs(setup).values())
    with limited_tensors(tensor_memory(pixels)):
        session = open_limited(Path(path), ort.SessionOptions(), device.providers)
    wanted = device.providers[0] if device.device_type == "cpu" else device.providers[0][0]
    if wanted not in session.get_providers():
        raise BackendUnavailable(
            f"{wanted} was asked for but ONNX Runtime fell back to "
            f"{', '.join(session.get_providers())}; check the driver"
        )
    return session


class SingleGraphContender(Contender):
    """One ONNX graph with an ``If``, in ONNX Runtime with its default session options.

    ``engines`` binds input and outputs, so that no array is made for a run.
    """

    def __init__(self, setup: Setup) -> None:
        self._session = open_ordinary(setup.model, setup)
        self._inputs = read_inputs(setup)
        self._bound: list[Arrays] = []

    def _feed(self, way: int) -> Arrays:
        """The images, and the graph's inputs that force a way."""
        feed = dict(self._inputs)
        for value in self._session.get_inputs():
            if value.name == BIAS:
                feed[BIAS] = np.zeros(value.shape, np.float32)
                feed[BIAS][way] = FORCING_BIAS
            elif value.name.startswith(THRESHOLD):
                leaves = way <= int(value.name.removeprefix(THRESHOLD))
                feed[value.name] = np.array(0.0 if leaves else ABOVE_ALL, np.float32)
        return feed

    def action(self, way: int, call: CallKind) -> Action:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        inputs = self._feed(way)
        if call is CallKind.API:
            return lambda: self._session.run(None, inputs)
        binding, arrays = self._session.io_binding(), []
        self._bound.append(inputs)  # a binding holds addresses: the arrays must outlive it
        for name, array in inputs.items():
            _bind(binding.bind_input, name, array)
        for name, array in self.outputs(way).items():  # whose shapes may be of this way alone
            arrays.append(np.empty_like(array))
            _bind(binding.bind_output, name, arrays[-1])

        def run_bound() -> list[npt.NDArray[np.float32]]:
            binding.synchronize_inputs()
            self._session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return arrays

        return run_bound

    def outputs(self, way: int) -> Arrays:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return _run_named(self._session, self._feed(way))


def _bind(bind: Callable[..., None], name: str, array: npt.NDArray[np.float32]) -> None:
    bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)


def _run_named(session: Any, inputs: Arrays) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


class NaiveContender(Contender):
    """A session for every stage, with default options; arrays are handed on by Python."""

    def __init__(self, setup: Setup) -> None:
        self._plan = plan(Bundle.read(setup.model).manifest)
        self._sessions = {
            name: open_ordinary(file, setup) for name, file in setup.stage_files.items()
        }
        self._read = {
            name: [value.name for value in session.get_inputs()]
            for name, session in self._sessions.items()
        }
        self._runner = ArrayRunner(read_inputs(setup), self._run_stage)

    def outputs(self, way: int) -> Arrays:
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        (group,) = execute(self._plan, self._runner, 1, ForcedWay(way)).groups
        return dict(group.outputs)

    def _run_stage(self, stage: str, tensors: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        return _run_named(
            self._sessions[stage], {name: tensors[name] for name in self._read[stage]}
        )


class ForeignContender(Contender):
    """Somebody's detector, on noise of the shape that it declares, and of its own element type."""

    def __init__(self, setup: Setup) -> None:
        self._session = open_ordinary(setup.model, setup)
        image = next(iter(read_inputs(setup).values()))
        self._inputs = {
            value.name: _noise(value.name, value.type, value.shape, image.shape[2:])
            for value in self._session.get_inputs()
        }
        shapes = ", ".join(f"{a.dtype} {a.shape}" for a in self._inputs.values())
        self.note = f"another detector, on noise, {shapes}"

    def outputs(self, way: int) -> Arrays:  # noqa: ARG002  # it has no ways
        """See :class:`dyninfer.benchmarks.baselines.setup.Contender`."""
        return _run_named(self._session, self._inputs)


def _noise(
    name: str, kind: str, declared: Sequence[int | str | None], size: tuple[int, ...]
) -> npt.NDArray[Any]:
    """One image of noise for an input; free axes are filled in from the bundle's image size.

    Raises:
        InputError: it is not an image input, or takes another number of images than one.
    """
    if kind not in INPUT_TYPES or len(declared) != 4:
        raise InputError(
            f"input {name!r} is {kind} {list(declared)}, expected one image: float32, float16 "
            "or uint8 with four axes"
        )
    fixed = [axis if isinstance(axis, int) and axis > 0 else None for axis in declared]
    channels_last = fixed[3] == CHANNELS and fixed[1] != CHANNELS
    wanted = (1, *size, CHANNELS) if channels_last else (1, CHANNELS, *size)
    shape = tuple(w if axis is None else axis for axis, w in zip(fixed, wanted, strict=True))
    if shape[0] != 1:
        raise InputError(
            f"input {name!r} takes {counted(shape[0], 'image')}, expected batches of one"
        )
    noise = np.random.default_rng(0).random(shape, np.float32)
    dtype = INPUT_TYPES[kind]
    return (noise * 255 if dtype is np.uint8 else noise).astype(dtype)
