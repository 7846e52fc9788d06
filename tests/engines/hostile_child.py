"""Reads paths of bundles from its input and uses each in a process of its own, which may crash.

Its argument is the backend to open them with.

For each it prints what came of it, as JSON: ``right`` where every answer is what plain ONNX Runtime
makes of the same files, ``refused`` where the project's own error says why, or what went wrong.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import dyninfer
from dyninfer.engines.ort.tensor import OrtTensor  # noqa: F401  # imported once, before any fork

SECRET = np.float32(-1234567.0)
BATCHES = (1, 4, 2)
LIMIT_S = 20
BACKEND = sys.argv[1] if __name__ == "__main__" else "onnxruntime"
TOLERANCE = 0 if BACKEND == "onnxruntime" else 1e-5  # others add up in another order
MEMORY = 4 << 30


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(in_a_process_of_its_own(Path(line.strip()))), flush=True)


def in_a_process_of_its_own(path: Path) -> dict[str, str]:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        logging.disable()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.write(writer, json.dumps(attempt(path)).encode())
        os._exit(0)
    os.close(writer)
    said = b""
    while select.select([reader], [], [], LIMIT_S)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            break
        said += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or not said:
        return {"verdict": "crashed", "why": f"exit status {status}"}
    found: dict[str, str] = json.loads(said)
    return found


def attempt(path: Path) -> dict[str, str]:
    leave_secrets()
    try:
        answered = use(path)
    except dyninfer.DyninferError as error:
        lines = str(error).splitlines()
        verdict = "refused" if len(lines) == 1 else "said in several lines"
        return {"verdict": verdict, "error": type(error).__name__, "why": str(error)[:300]}
    except WrongAnswer as error:
        return {"verdict": "wrong", "why": str(error)}
    except BaseException:
        return {"verdict": "another error", "why": traceback.format_exc()[-1500:]}
    return {"verdict": "right", "why": f"{answered} images"}


def leave_secrets() -> None:
    """Fill the heap that ONNX Runtime and NumPy will take, so that foreign bytes are known."""
    for size in (16, 64, 256, 1024, 4096, 65536):
        kept = [np.full(size, SECRET) for _ in range(64)]
        del kept[::2]


class WrongAnswer(Exception):  # noqa: N818  # it is not the project's error
    """An answer that is not what the files make of the images."""


def use(path: Path) -> int:
    answered = 0
    policies = (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard(), dyninfer.Threshold(0.5))
    with dyninfer.load(path, max_batch=8, backend=BACKEND) as detector:
        for batch in BATCHES:
            images = coded(batch)
            for policy in policies:
                found = detector.infer({"images": images}, policy=policy)
                compare(found, Reference(path).answers(images, policy))
                answered += len(found)
        detector([np.full((5, 7, 3), shade, np.uint8) for shade in (20, 230, 20)])
    return answered


def coded(batch: int) -> np.ndarray:
    """Images of which every other one is easy, and no two are the same."""
    images = np.random.default_rng(batch).uniform(0, 0.01, (batch, 3, 4, 4)).astype(np.float32)
    images[:, 0] += np.array([(0.9, 0.1)[row % 2] for row in range(batch)])[:, None, None]
    images[:, 2] += np.arange(batch, dtype=np.float32)[:, None, None]
    return images


class Reference:
    """The same files on plain ONNX Runtime, whatever the manifest says of their tensors."""

    def __init__(self, path: Path) -> None:
        manifest = json.loads((path / "bundle.json").read_text())
        self.stages, self.route = manifest["stages"], manifest["route"]
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        self.sessions = {
            name: ort.InferenceSession(str(path / entry["file"]), options)
            for name, entry in self.stages.items()
        }

    def run(self, stage: str, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        session, entry = self.sessions[stage], self.stages[stage]
        inputs = {value.name: tensors[value.name] for value in session.get_inputs()}
        names = [value.name for value in session.get_outputs()]
        sizes = [size for spec in entry["outputs"] for size in spec["shape"][1:]]
        one_by_one = BACKEND == "openvino" and not any(isinstance(size, str) for size in sizes)
        if not (entry.get("rows_per_run") or one_by_one):
            return dict(zip(names, session.run(names, inputs), strict=True))
        rows = range(len(next(iter(inputs.values()))))
        made = [session.run(names, {n: a[r : r + 1] for n, a in inputs.items()}) for r in rows]
        # a scalar fits where a row of one value is expected
        rows_of_each = zip(names, *made, strict=True)
        return {n: np.concatenate([np.atleast_1d(a) for a in p]) for n, *p in rows_of_each}

    def answers(self, images: np.ndarray, policy: Any) -> list[dict[str, np.ndarray]]:
        tensors = {"images": images}
        if self.route["kind"] == "static":
            for stage in (self.route["body"], self.route.get("head")):
                tensors |= self.run(stage, tensors) if stage else {}
            return rows_of(tensors, len(images))
        tensors |= self.run("first", tensors)
        easiness = self.run("router", tensors)["easiness"].reshape(-1)
        easy = {
            dyninfer.AlwaysEasy: np.ones(len(images), bool),
            dyninfer.AlwaysHard: np.zeros(len(images), bool),
        }.get(type(policy), (easiness >= 0.5) & (easiness <= 1))  # what is no easiness is hard
        found: list[dict[str, np.ndarray]] = [{} for _ in images]
        for stage, chosen in (("head", easy), ("second", ~easy)):
            if chosen.any():
                made = self.run(stage, {n: a[chosen] for n, a in tensors.items()})
                for place, row in zip(
                    np.flatnonzero(chosen), rows_of(made, chosen.sum()), strict=True
                ):
                    found[place] = row
        return found


def rows_of(tensors: Mapping[str, np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    ends = {name: tensors[name] for name in ("boxes_xyxy", "class_scores")}
    if any(len(array) != count for array in ends.values()):
        raise WrongAnswer(
            f"answers of {count} images from { {n: a.shape for n, a in ends.items()} }"
        )
    return [{name: array[row] for name, array in ends.items()} for row in range(count)]


def compare(found: Sequence[Any], expected: Sequence[Mapping[str, np.ndarray]]) -> None:
    if len(found) != len(expected):
        raise WrongAnswer(f"{len(found)} answers, expected {len(expected)}")
    for answer, wanted in zip(found, expected, strict=True):
        for name, array in wanted.items():
            given = answer.outputs[name]
            same = given.shape == array.shape and given.dtype == array.dtype
            if not same or not np.allclose(given, array, TOLERANCE, TOLERANCE, equal_nan=True):
                secret = " with foreign bytes" if (given == SECRET).any() else ""
                raise WrongAnswer(
                    f"{name} {given.dtype} {given.shape}{secret}, expected {array.shape}"
                )


if __name__ == "__main__":
    main()
