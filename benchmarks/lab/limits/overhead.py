"""What the runtime itself takes: calls of a cascade whose stages do next to nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import dyninfer
from dyninfer.benchmarks.lab.limits.bare_route import BareRoute
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import repeated
from dyninfer.bundle.manifest import CascadeRoute, Exit, Manifest, Source, Stage, Task, TensorSpec
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.bundle.writing import write_bundle, write_stage_file
from dyninfer.evaluation.interleaved import Run, bootstrap_median, run_rounds
from dyninfer.images.spec import ImageSpec
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector

SIZE = 32
_HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
_IMAGES = f"float[batch, 3, {SIZE}, {SIZE}] images"
_VALUE = "float[batch, 3, 1, 1] value"
_ENDS = "float[batch, 1, 4] boxes_xyxy, float[batch, 1, 2] class_scores"
_CORNER = "int64[2] start = {0, 0}, int64[2] stop = {1, 1}, int64[2] axes = {2, 3}"
_PICK = "value = Slice(images, start, stop, axes)"
_BOX = "float[1, 1, 4] corners = {4, 4, 20, 20}, float[1, 1, 2] scores = {0.25, 0.75}"
_FIND = """
    least = ReduceMin<axes = [1], keepdims = 0>(value)
    boxes_xyxy = Add(least, corners)
    class_scores = Add(least, scores)
"""
_PIXEL = "int64 zero = {0}, int64[2] pixel = {1, 2}"
_EASINESS = """
    picked = Gather<axis = 1>(value, zero)
    easiness = Squeeze(picked, pixel)
"""
STAGES = {
    "first": f"{_HEAD} idle ({_IMAGES}) => ({_VALUE}) <{_CORNER}> {{ {_PICK} }}",
    "router": f"{_HEAD} idle ({_VALUE}) => (float[batch] easiness) <{_PIXEL}> {{ {_EASINESS} }}",
    "head": f"{_HEAD} idle ({_VALUE}) => ({_ENDS}) <{_BOX}> {{ {_FIND} }}",
    "second": f"{_HEAD} idle ({_IMAGES}) => ({_ENDS}) <{_CORNER}, {_BOX}> {{ {_PICK} {_FIND} }}",
}
"""In ONNX's own notation."""
CALLS = 200
"""Calls of each contender in a round; their median counts, so that a pause does not."""
_WARM_UP = 50
_US_PER_MS = 1e3


@dataclass(frozen=True)
class _Case:
    """Images in a call, and where they leave."""

    key: str
    batch: int
    exit_index: int
    limit_us: float  # for each image

    @property
    def what(self) -> str:
        exit_ = ("first", "last")[self.exit_index]
        images = "an image" if self.batch == 1 else f"each of {self.batch} images in a call"
        return f"{images} leaving at the {exit_} exit, from decoded picture to detections"


CASES = (
    _Case("overhead-easy", 1, 0, 40.0),
    _Case("overhead-hard", 1, 1, 40.0),
    _Case("overhead-easy-batch-8", 8, 0, 20.0),
)


def measure(rounds: int) -> list[LimitResult]:
    """Time calls of a do-nothing cascade, and its sessions run by hand, in turns.

    The overhead is the difference: preparing a picture of 32 x 32, the runtime between sessions,
    postprocessing one box. Both are medians over :data:`CALLS` calls.
    """
    runs: dict[str, Run] = {}
    with scratch_folder() as folder:
        bundle = write_idle_bundle(folder / "idle.dyn")
        bare = BareRoute(bundle)
        with dyninfer.load(bundle) as detector:
            for case in CASES:
                runs[case.key] = _detector_run(detector, case)
                runs[_floor(case)] = _sessions_run(bare, case)
            times = run_rounds(runs, rounds)
            return [_result(case, times, _profile(detector, case)) for case in CASES]


def _floor(case: _Case) -> str:
    return f"{case.key}, sessions alone"


def _detector_run(detector: Detector, case: _Case) -> Run:
    call = _call(detector, case)
    return lambda: _median_ms(call) / case.batch


def _call(detector: Detector, case: _Case) -> Callable[[], Any]:
    picture, policy = np.zeros((SIZE, SIZE, 3), np.uint8), LeaveAt(case.exit_index)
    given: Any = picture if case.batch == 1 else [picture] * case.batch
    return lambda: detector(given, policy=policy)


def _profile(detector: Detector, case: _Case) -> str:
    """What the steps of an image's call take by their own clocks, "prepare 6.1, first 4.0"."""
    call = _call(detector, case)
    calls = [call() for _ in range(CALLS)]
    images = [found.timings_ms for one in calls for found in (one if case.batch > 1 else [one])]
    medians = {name: float(np.median([image[name] for image in images])) for name in images[0]}
    return ", ".join(f"{name} {_US_PER_MS * ms:.1f}" for name, ms in medians.items())


def _sessions_run(bare: BareRoute, case: _Case) -> Run:
    images = np.zeros((case.batch, 3, SIZE, SIZE), np.float32)
    bound = bare.bind({"images": images}, [case.exit_index] * case.batch)
    return lambda: _median_ms(bound.run) / case.batch


def _median_ms(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    once = repeated(call)
    return float(np.median([once() for _ in range(CALLS)]))


def _result(case: _Case, times: Mapping[str, Sequence[float]], profile: str) -> LimitResult:
    total, floor = np.array(times[case.key]), np.array(times[_floor(case)])
    microseconds = _US_PER_MS * (total - floor)
    return LimitResult(
        key=case.key,
        what=f"{case.what}, without the sessions' own runs",
        unit="microseconds",
        limit=case.limit_us,
        measured=bootstrap_median(microseconds),
        times_ms={name: times[name] for name in (case.key, _floor(case))},
        note=(
            f"{_US_PER_MS * float(np.median(total)):.0f} microseconds in all, of which the "
            f"sessions take {_US_PER_MS * float(np.median(floor)):.0f}; per image; by the steps' "
            f"own clocks {profile}"
        ),
    )


def write_idle_bundle(path: Path) -> Path:
    """Write a bundle of two exits that read one pixel of the image and find one box.

    The easiness is the pixel's first channel, the box is moved by it.

    Raises:
        ExportError: something is there already, or it cannot be written.
    """
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))

    def write(folder: Path) -> Manifest:
        return Manifest(
            name=path.name.removesuffix(".dyn"),
            family="idle",
            task=Task.DETECT,
            class_names=("left", "right"),
            route=CascadeRoute(exits=exits),
            stages={name: _write_stage(folder, name, text) for name, text in STAGES.items()},
            image_inputs={"images": ImageSpec(SIZE, SIZE)},
            source=Source(file_name="none", sha256="0" * 64),
            written_by="dyninfer.benchmarks.lab.limits.overhead",
        )

    write_bundle(path, write)
    return path


def _write_stage(folder: Path, name: str, text: str) -> Stage:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model, full_check=True)
    file = f"onnx/{name}.onnx"
    inputs, outputs = (
        tuple(
            TensorSpec(
                name=value.name,
                dtype="float32",
                shape=tuple(a.dim_param or a.dim_value for a in value.type.tensor_type.shape.dim),
            )
            for value in values
        )
        for values in (model.graph.input, model.graph.output)
    )
    sha256 = write_stage_file(folder, file, model.SerializeToString())
    return Stage(file=file, sha256=sha256, inputs=inputs, outputs=outputs, parameters=0, macs=0)
