"""Samples the machine in a thread of its own while a benchmark runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from dyninfer.benchmarks.machine.counters import increased, read_counters
from dyninfer.benchmarks.machine.gpu_sampler import GpuSampler
from dyninfer.benchmarks.machine.jetson import gpu_folder
from dyninfer.benchmarks.machine.kernel_samplers import (
    Family,
    LoadSampler,
    clock_sampler,
    jetson_sampler,
)
from dyninfer.benchmarks.machine.log import MachineLog, drift_of, ranges_of
from dyninfer.benchmarks.machine.nvml import LoadNvml, NvmlModule, find_handle, load_nvml

_MS_PER_S = 1000


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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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
