"""Limits of the full-size bundle: opening it, its memory, its engines, and all but its engines."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import dyninfer
from dyninfer.benchmarks.baselines.contest import SETTLE_MS, Entry, measure_memory
from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.run import ROUNDS, run_baselines
from dyninfer.benchmarks.baselines.setup import DYNINFER, SINGLE_GRAPH, CallKind, Kind, Setup
from dyninfer.benchmarks.lab.limits.preprocessing import HEIGHT, WIDTH, noise_picture
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare, run_rounds, warm_up
from dyninfer.plain_text import counted
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.types import ImageArray

OURS, THEIRS = "dyninfer.load", "sessions"

_CHILD = """
import sys, time
from pathlib import Path
import dyninfer.runtime.opening
from dyninfer.engines.ort.runtime import OrtDevice, open_session

what, bundle, *files = sys.argv[1:]
start = time.perf_counter_ns()
if what == "dyninfer.load":
    opened = dyninfer.runtime.opening.load(bundle)
else:
    opened = [open_session(Path(file), OrtDevice("cpu", 0, "cpu")) for file in files]
print((time.perf_counter_ns() - start) / 1e6)
"""


def measure_loading(bundle: Path, rounds: int) -> list[LimitResult]:
    """Time opening a bundle and creating its sessions, in fresh processes, in turns.

    Imports are not counted. The files are in the page cache, as they are after an installation
    or an earlier start; from a disk both wait for the same bytes. Every session has the options
    that dyninfer gives it, and they are created one after the other.

    Raises:
        InputError: a process failed, or there are too few rounds.
    """
    opened = Bundle.open(bundle)  # reads every file
    files = [str(opened.stage_path(name)) for name in opened.manifest.roles]
    runs = {what: partial(_opened_ms, what, bundle, files) for what in (OURS, THEIRS)}
    times = run_rounds(runs, rounds)
    return [
        LimitResult(
            key="loading",
            what="dyninfer.load, hashes checked, over creating the same sessions",
            limit=1.05,
            measured=compare(times[OURS], times[THEIRS]),
            times_ms=times,
            note=(
                "a fresh process each, files in the page cache; hashes are computed in a second "
                "thread, which needs a second core that has nothing else to do"
            ),
        )
    ]


def _opened_ms(what: str, bundle: Path, files: list[str]) -> float:
    command = [sys.executable, "-c", _CHILD, what, str(bundle), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{bundle} could not be opened in a process of its own: {reason}")
    return float(done.stdout)


def measure_memory_of_graph(bundle: Path, rounds: int) -> list[LimitResult]:
    """Peak memory of dyninfer over that of the single graph, in fresh processes, in turns.

    A process opens its contender and runs every way three times in turns; its largest resident
    set counts, Python and libraries included.

    Raises:
        DyninferError: the graph cannot be built from this bundle, or a process failed.
    """
    with scratch_folder() as folder:
        manifest = Bundle.open(bundle).manifest
        plan = Contestants(bundle.resolve(), manifest, EngineChoice(), folder)
        plan.write_inputs()
        setups = [plan.setup(Kind.DYNINFER), plan.setup_of(SINGLE_GRAPH)]
        runs = {setup.kind.value: partial(_peak_mib, setup, len(manifest.ways)) for setup in setups}
        mib = run_rounds(runs, rounds)
    return [
        LimitResult(
            key="memory",
            what="peak memory over that of the same stages in one ONNX graph with If",
            limit=1.0,
            measured=compare(mib[DYNINFER], mib[SINGLE_GRAPH]),
            times_ms=mib,
            note="MiB in place of milliseconds",
        )
    ]


def _peak_mib(setup: Setup, ways: int) -> float:
    return measure_memory(setup.kind.value, setup, ways).peak_mib


def measure_engines(
    bundle: Path, rounds: int = ROUNDS, settle_ms: float = SETTLE_MS
) -> list[LimitResult]:
    """Engines alone, batch 1, each way of the bundle, over those of one graph with an ``If``.

    Both leave their outputs in buffers. Meant for the full-size Dy-YOLOv7 at 640x640, whose random
    weights :mod:`dyninfer.benchmarks.lab.random_models` makes.

    Raises:
        InputError: the graph cannot be built from this bundle, or does not run.
    """
    found = run_baselines(bundle, [SINGLE_GRAPH], rounds=rounds, settle_ms=settle_ms, memory=False)
    if SINGLE_GRAPH in found.unavailable:
        raise InputError(f"{bundle} has no single graph: {found.unavailable[SINGLE_GRAPH]}")
    ours, theirs = (Entry(name, CallKind.ENGINES).name for name in (DYNINFER, SINGLE_GRAPH))
    times = {(t.name, t.side): t.times_ms for t in found.times}
    return [
        LimitResult(
            key=f"engines-{ratio.side.replace(' ', '-')}",
            what=f"engines alone, an image at {ratio.side}, over the same "
            "stages in one ONNX graph with If",
            limit=1.0,
            measured=ratio.ratio,
            times_ms={name: times[name, ratio.side] for name in (ours, theirs)},
            note="batch 1, a process each, in turns",
        )
        for ratio in found.ratios
        if ratio.baseline == theirs
    ]


def measure_end_to_end(bundle: Path, rounds: int) -> list[LimitResult]:
    """Split calls on one frame of 1280 x 720 that leaves at the first exit.

    Engines are the stages' spans of the same call; all that is left of its wall-clock time is
    preparing, reading, postprocessing and the runtime itself.

    Raises:
        InputError: there are too few rounds.
    """
    if rounds < 2:
        raise InputError(f"there are {rounds} rounds, expected at least 2")
    frame = noise_picture()
    with dyninfer.load(bundle) as detector:
        warm_up(lambda: sum(_split_ms(detector, frame)))
        splits = [_split_ms(detector, frame) for _ in range(rounds)]
        found = len(detector(frame, policy=LeaveAt(0)))
    rest, engines = zip(*splits, strict=True)
    return [
        LimitResult(
            key="end-to-end",
            what=f"a {WIDTH}x{HEIGHT} frame to detections at the first exit, without the engines, "
            "over the engines",
            limit=0.03,
            measured=compare(rest, engines),
            times_ms={"all but engines": rest, "engines": engines},
            note=(
                f"{float(np.median(rest)):.2f} ms beside the engines' "
                f"{float(np.median(engines)):.1f} ms; {counted(found, 'detection')}"
            ),
        )
    ]


def _split_ms(detector: Detector, frame: ImageArray) -> tuple[float, float]:
    """Milliseconds of one call: all but engines, and engines."""
    start = time.perf_counter_ns()
    found = detector(frame, policy=LeaveAt(0))
    elapsed_ms = (time.perf_counter_ns() - start) / 1e6
    stages = detector.manifest.stages
    engines_ms = sum(ms for name, ms in found.timings_ms.items() if name in stages)
    return elapsed_ms - engines_ms, engines_ms
