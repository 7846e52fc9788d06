"""The host's time for a single image on the stand-in, beside that of another checkout, in turns.

    python -m tests.engines.trt.host_time OTHER_CHECKOUT RECORD.json

"Hollow" is the stand-in whose calls of CUDA only return: what is left is this project's own time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from dyninfer import Threshold
from tests import support
from tests.engines.trt.rig import make_rig
from tests.engines.trt.standin.runtime import Error

IMAGES, ROUNDS = 100, 25
CALLS = (
    *("cudaEventRecord", "cudaEventSynchronize", "cudaStreamSynchronize", "cudaGraphLaunch"),
    *("cudaMemcpyAsync", "cudaMemcpyBatchAsync", "cudaStreamWaitEvent", "cudaSetDevice"),
)


def work(kind: str) -> None:
    """Answer every line of standard input with microseconds for an image."""
    rig = make_rig()
    path = support.write_two_exits(Path(tempfile.mkdtemp()) / "two.dyn")
    session = rig.detector(path)
    detector = session.__enter__()
    detector.policy = Threshold(0.5)
    images = {"images": support.coded_images([(0.9, 0.9, 0.0)])}
    picture = np.zeros((9, 9, 3), np.uint8)
    runs = {"infer": lambda: detector.infer(images), "picture": lambda: detector(picture)}
    for run in (*runs.values(),) * 30:
        run()
    if kind == "hollow":
        hollow_out(rig.cuda)
    print("ready", flush=True)
    for line in sys.stdin:
        run, start = runs[line.strip()], time.perf_counter_ns()
        for _ in range(IMAGES):
            run()
        print((time.perf_counter_ns() - start) / 1e3 / IMAGES, flush=True)
    os._exit(0)  # the stand-in's books do not balance any more


def hollow_out(cuda: Any) -> None:
    """Let every call of the steady state only return."""
    done = (Error.cudaSuccess,)
    answers = dict.fromkeys(CALLS, done)
    answers |= {"cudaEventElapsedTime": (*done, 0.1), "cudaGetDevice": (*done, 0)}
    for name, answer in answers.items():
        setattr(cuda._api, name, returning(name, answer))
    for name in ("cuCtxPushCurrent", "cuCtxPopCurrent"):
        setattr(getattr(cuda, "_contexts", cuda._api), name, returning(name, done))


def returning(name: str, answer: Any) -> Any:
    def function(*_arguments: Any) -> Any:
        return answer

    function.__name__ = name
    return function


def compare(other: Path, kind: str) -> dict[str, Any]:
    """Medians of both checkouts, and that of the ratio of each round."""
    workers = []
    for tree in (other, support.ROOT):
        environment = os.environ | {"PYTHONPATH": str(tree)}
        command = [sys.executable, __file__, "--work", kind]
        pipe = subprocess.PIPE
        worker = subprocess.Popen(
            command, cwd=tree, env=environment, stdin=pipe, stdout=pipe, text=True
        )
        assert worker.stdout.readline() == "ready\n"
        workers.append(worker)
    found = {}
    for what in ("infer", "picture"):
        rounds = [[asked(worker, what) for worker in workers] for _ in range(ROUNDS)]
        before, now = (round(median(column), 1) for column in zip(*rounds, strict=True))
        ratio = round(median(b / a for a, b in rounds), 3)
        found[what] = {"before_us": before, "now_us": now, "ratio": ratio}
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    return found


def asked(worker: subprocess.Popen[str], what: str) -> float:
    worker.stdin.write(f"{what}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def main(other: Path, output: Path) -> None:
    from dyninfer.benchmarks.machine.describe import describe_machine

    log = ["git", "-C", str(other), "log", "-1", "--format=%h %s"]
    record = {
        "what": "The host's time for a single image on TensorRT's stand-in, microseconds.",
        "command": f"python -m tests.engines.trt.host_time OTHER_CHECKOUT {output.name}",
        "before": subprocess.check_output(log, text=True).strip(),
        "machine": asdict(describe_machine()),
        "rounds": ROUNDS,
        "images": IMAGES,
        **{kind: compare(other.resolve(), kind) for kind in ("stand-in", "hollow")},
    }
    output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(sys.argv[2])
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
