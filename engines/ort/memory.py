"""How much memory the tensors of ONNX Runtime's sessions may take on a CPU, weights apart.

A small file may ask for gigabytes with one operator, and how many may be known in a run only. ONNX
Runtime limits what it allocates for tensors through the arena that it takes them from.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dyninfer.bundle.manifest import Manifest, TensorSpec
from dyninfer.engines.onnx_growth import computed_when_opened, reading
from dyninfer.engines.onnx_guards import with_guards
from dyninfer.engines.ort.library import ort, ort_errors
from dyninfer.errors import EngineBuildError
from dyninfer.forks import Opening
from dyninfer.hardware import usable_cores

LEAST = 3 << 29
"""Bytes that any bundle's tensors may take together."""
PER_PIXEL = 2048
"""Bytes beside that for a pixel of an image input: Dy-YOLOv7 takes up to 1,000, features and
outputs included. Other families were not measured at full size."""
IMAGES_AT_ONCE = 16
"""There is room for as many at least: threads may share a detector opened for single images."""
CORES_PER_CALL = 4
"""Larger machines have more calls at once: a batch may run for every four cores."""
BESIDE = 4
"""An operator may take this part of the limit beside its tensors, for as long as it runs."""
_SHARE = 0.75  # of what the process may have
_FOLDED = 2 << 30
_FOLDING = "optimization.constant_folding_max_output_size_in_bytes"
_FOLDED_OF_FILE = 4  # weights in 8 bits become four times as large in float32
FOLDING_IS_LIMITED = tuple(map(int, ort.__version__.split(".")[:2])) >= (1, 27)
"""Earlier versions of ONNX Runtime do not know the limit on each value."""
_GROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

_lock = threading.RLock()  # a signal's handler may open a bundle, too
_limits: list[int] = []


def tensor_memory(pixels: int) -> int:
    """Bytes that a bundle's tensors may take; ``pixels`` are of all image inputs of a batch."""
    calls = max(1, usable_cores() // CORES_PER_CALL)
    return min(LEAST + PER_PIXEL * pixels * calls, int(_SHARE * _memory_of_process()))


def open_limited(
    model: Path | bytes,
    options: Any,
    providers: list[Any] | None,
    *,
    beside: int = 0,
    **settings: Any,
) -> Any:
    """A session, within :func:`limited_tensors`; whatever ONNX Runtime raises passes through.

    What it computes from constants is limited too: values that need too much are computed in every
    run instead. On a CPU, so is what an operator keeps beside its tensors.

    Args:
        model: a file or its bytes.
        options: to which is added what limits memory.
        providers: as ONNX Runtime takes them; None where ``options`` has them.
        beside: bytes of weights that are not in the model.
        settings: passed on.

    Raises:
        EngineBuildError: nothing tells how much memory it takes to open the file.
        ValueError: the same of bytes.
    """
    with nullcontext(model) if isinstance(model, bytes) else reading(model) as data:
        folded = _FOLDED + _FOLDED_OF_FILE * (len(data) + beside)
        values = computed_when_opened(data)
        on_cpu = providers == ["CPUExecutionProvider"]
        guarded = with_guards(data, _limits[-1] // BESIDE) if on_cpu else None
    options.add_session_config_entry(_FOLDING, str(folded // max(1, values)))
    options.add_session_config_entry("session.use_env_allocators", "1")
    whole = model if isinstance(model, bytes) else str(model)
    with _limited_folding(folded):
        return ort.InferenceSession(guarded or whole, options, providers, **settings)


@contextmanager
def _limited_folding(limit: int) -> Iterator[None]:
    """Give the process at most so many bytes more while a session is made.

    Only for versions of ONNX Runtime that cannot limit it themselves, and on Linux. Not to fold
    constants at all costs half as much time again in every run, and ends version 1.23 with an
    assertion that fails.
    """
    if FOLDING_IS_LIMITED or sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = re.findall(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    most = (int(used[0]) << 10) + limit
    lower = most if soft == resource.RLIM_INFINITY else min(soft, most)
    resource.setrlimit(resource.RLIMIT_DATA, (lower, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def check_declared(manifest: Manifest, batch: int) -> None:
    """Refuse stages whose outputs, as the manifest describes them, need too much memory.

    They are written to buffers of the caller's, which no arena limits.

    Raises:
        EngineBuildError: they do, for a batch of ``batch`` images.
    """
    specs = [spec for stage in manifest.stages.values() for spec in stage.outputs]
    image = sum(np.dtype(spec.dtype).itemsize * _fixed_values(spec) for spec in specs)
    limit = LEAST + PER_PIXEL * manifest.pixels * batch
    if image * batch > limit:
        raise EngineBuildError(
            f"the stages of {manifest.name!r} make {image * batch / 2**30:.3g} GB for a batch of "
            f"{batch}, expected at most {limit / 2**30:.3g} GB; lower max_batch, or export the "
            "bundle again"
        )


def _fixed_values(spec: TensorSpec) -> int:
    return math.prod(axis for axis in spec.shape if not isinstance(axis, str))


@contextmanager
def limited_tensors(limit: int) -> Iterator[None]:
    """The tensors of sessions opened within take at most ``limit`` bytes together, now and later.

    They take them from one arena, freed with the last of these sessions. Those that are opened
    within another such block share the outer one's. Only one thread is in here at a time: an arena
    is handed to a session by way of ONNX Runtime's environment. One that the application has put
    there itself is replaced, by one without a limit in the end.

    Raises:
        EngineBuildError: ONNX Runtime takes no limit.
    """
    with _lock:
        if _limits:
            yield
            return
        _limits.append(limit)
        try:
            _hand_over(limit)
            yield
        finally:
            _limits.clear()
            _hand_over(0)  # or the environment would keep the arena


def _hand_over(limit: int) -> None:
    with Opening(), ort_errors(EngineBuildError, "ONNX Runtime takes no limit on memory"):
        place = ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        )
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({"max_mem": limit}))


@lru_cache(maxsize=1)
def _memory_of_process() -> float:
    """Bytes that the machine, its control group or ``ulimit`` leave to this process."""
    known = [float("inf")]
    with suppress(AttributeError, ValueError, OSError):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in _GROUPS:
        with suppress(OSError, ValueError):  # not there, or "max"
            known.append(int(file.read_text(encoding="ascii")))
    if sys.platform != "win32":
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            known += [soft] if soft != resource.RLIM_INFINITY else []
    return min(known)


def _in_child() -> None:
    global _lock  # another thread may have held it
    _lock = threading.RLock()
    _limits.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
