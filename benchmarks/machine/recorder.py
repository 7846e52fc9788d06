"""How the machine fares while a benchmark runs: samples taken in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from dyninfer.benchmarks.machine.cpu_state import increased, read_counters
from dyninfer.benchmarks.machine.gpu import GpuSampler
from dyninfer.benchmarks.machine.jetson import gpu_folder
from dyninfer.benchmarks.machine.kernel_samplers import (
    Family,
    LoadSampler,
    clock_sampler,
    jetson_sampler,
)
from dyninfer.benchmarks.machine.nvml import LoadNvml, NvmlModule, find_handle, load_nvml

_MS_PER_S = 1000
_PARTS = 4
_FEWEST_FOR_DRIFT = 8


@dataclass(frozen=True)
class Range:
    """Smallest, median and largest of what was sampled."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class MachineLog:
    """Samples taken while a benchmark ran.

    Attributes:
        seconds: from the first to the last sample.
        samples: how many.
        readings: what was read, with its unit in the name (``cpu_mhz``, ``gpu_sm_mhz``,
            ``gpu_temperature_c``, ``gpu_watts``, ``other_load_cores``), -> its range.
            ``sampler_cpu_ms`` is the processor time that taking a sample cost.
        throttled: why the processor or GPU was slowed down, as the driver says; empty if it was
            not or if that cannot be told.
        missing: reading -> why it could not be taken.
        drift: reading -> median of the last quarter of the samples minus that of the first; empty
            with fewer than eight.
    """

    seconds: float
    samples: int
    readings: Mapping[str, Range]
    throttled: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)


def ranges_of(samples: Sequence[Mapping[str, float]]) -> dict[str, Range]:
    """The range of every reading over the samples that have it."""
    return {
        name: Range(min(values), float(median(values)), max(values))
        for name, values in _columns(samples).items()
    }


def drift_of(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far every reading moved from the first to the last quarter of its samples."""
    return {
        name: float(
            median(values[-(len(values) // _PARTS) :]) - median(values[: len(values) // _PARTS])
        )
        for name, values in _columns(samples).items()
        if len(values) >= _FEWEST_FOR_DRIFT
    }


def _columns(samples: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    columns: dict[str, list[float]] = {}
    for sample in samples:
        for name, value in sample.items():
            columns.setdefault(name, []).append(value)
    return columns


class Sampler(Protocol):
    """Takes readings; what it cannot take is in ``missing``."""

    missing: dict[str, str]

    def sample(self) -> Mapping[str, float]:
        """Reading -> value, without those that cannot be taken now."""
        ...


class MachineRecorder:
    """Samples clocks, temperatures, power and the load of others, from entering to leaving.

    Taking a sample reads some small files; in a virtual machine with two busy cores that took
    0.5 ms of processor time. What it costs is among the readings: ``sampler_cpu_ms``. A device such
    as ``cuda:0`` adds the readings of that GPU.
    """

    def __init__(
        self,
        interval_s: float = 0.5,
        *,
        device: str = "cpu",
        root: Path = Path("/"),
        load_nvml: LoadNvml = load_nvml,
    ) -> None:
        self._interval_s, self._device, self._root = interval_s, device, root
        self._load_nvml = load_nvml
        self._nvml: NvmlModule | None = None
        self._gpu: GpuSampler | None = None
        self._samplers: list[Sampler] = []
        self._missing: dict[str, str] = {}
        self._taken: list[tuple[float, dict[str, float]]] = []
        self._throttled: dict[str, None] = {}
        self._lock = threading.Lock()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="machine-recorder")

    def __enter__(self) -> MachineRecorder:
        """Take the first sample and start; a recorder is entered once."""
        load = LoadSampler(self._root)
        self._samplers = [clock_sampler(self._root), load]
        if self._device.startswith("cuda"):
            self._add_gpu(load.family)
        self._before = read_counters(self._root)
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._leave.set()
        self._thread.join()
        self._sample()
        self._throttled |= dict.fromkeys(increased(self._before, read_counters(self._root)))
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def log(self) -> MachineLog:
        """What was seen so far. What kernels count is added when it stops recording."""
        with self._lock:
            taken, missing = list(self._taken), dict(self._missing)
        samples = [readings for _, readings in taken]
        throttled = [*(self._gpu.throttled if self._gpu is not None else ()), *self._throttled]
        for sampler in self._samplers:
            missing |= sampler.missing
        return MachineLog(
            seconds=taken[-1][0] - taken[0][0] if taken else 0.0,
            samples=len(taken),
            readings=ranges_of(samples),
            throttled=tuple(throttled),
            missing=missing,
            drift=drift_of(samples),
        )

    def _add_gpu(self, family: Family) -> None:
        if gpu_folder(self._root) is not None:  # NVML starts on a Jetson and answers nothing
            self._samplers.append(jetson_sampler(self._root))
            return
        self._nvml, why = self._load_nvml()
        if self._nvml is not None:
            handle, why = find_handle(self._nvml, self._device)
            if handle is not None:
                self._gpu = GpuSampler(self._nvml, handle, family.pids)
                self._samplers.append(self._gpu)
                return
        self._missing["gpu"] = why

    def _run(self) -> None:
        while not self._leave.wait(self._interval_s):
            try:
                self._sample()
            except Exception as error:  # a recorder must not end a benchmark; the log tells of it
                with self._lock:
                    self._missing["sampling"] = f"ended early: {type(error).__name__}: {error}"
                return

    def _sample(self) -> None:
        start = time.thread_time()
        readings: dict[str, float] = {}
        for sampler in self._samplers:
            readings |= sampler.sample()
        readings["sampler_cpu_ms"] = (time.thread_time() - start) * _MS_PER_S
        with self._lock:
            self._taken.append((time.perf_counter(), readings))
