"""Opening a bundle, against creating the same ONNX Runtime sessions and nothing else."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import compare, run_rounds

LIMIT = 1.1
OURS, THEIRS = "dyninfer.load", "sessions"

_CHILD = """
import sys, time
import dyninfer.runtime.opening
from dyninfer.engines.ort.runtime import OrtDevice, open_session

what, bundle, *files = sys.argv[1:]
start = time.perf_counter_ns()
if what == "dyninfer.load":
    opened = dyninfer.runtime.opening.load(bundle)
else:
    opened = [open_session(file, OrtDevice("cpu", 0, "cpu"), False) for file in files]
print((time.perf_counter_ns() - start) / 1e6)
"""


def measure(bundle: Path, rounds: int) -> list[LimitResult]:
    """Time both in fresh processes, in turns.

    Imports are not counted. The files are in the page cache, as they are after an installation
    or an earlier start; from a disk both wait for the same bytes. Every session has the options
    that dyninfer gives it, and they are created one after the other.

    Raises:
        InputError: a process failed, or there are too few rounds.
    """
    opened = Bundle.open(bundle)  # reads every file
    files = [str(opened.stage_path(name)) for name in opened.manifest.route.stages]
    runs = {what: partial(_opened_ms, what, bundle, files) for what in (OURS, THEIRS)}
    times = run_rounds(runs, rounds)
    return [
        LimitResult(
            key="loading",
            what="dyninfer.load, hashes checked, over creating the same sessions",
            limit=LIMIT,
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
