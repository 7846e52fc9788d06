"""From a batch of pictures, or of prepared tensors, to one result per image."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest
from dyninfer.engines.base import check_tensor
from dyninfer.engines.device_array import DeviceArray, device_array, is_device_array
from dyninfer.errors import InputError
from dyninfer.images.prepare import Scratch
from dyninfer.images.spec import Placement
from dyninfer.results.detections import Detections, RawOutput
from dyninfer.results.postprocess import Postprocess
from dyninfer.routing.policy import Policy
from dyninfer.runtime.executor import BatchResult, ExitGroup
from dyninfer.runtime.session import CascadePipeline
from dyninfer.spans import DECODE, POSTPROCESS, PREPARE, shares
from dyninfer.types import Float32Array, ImageArray, Int64Array


def detect_batch(
    pipeline: CascadePipeline,
    images: Sequence[ImageArray],
    policy: Policy,
    options: Postprocess,
    decode_ms: Sequence[float | None] | None = None,
) -> list[Detections]:
    """Prepare, run and postprocess pictures (h, w, 3) uint8 BGR, at least one, as one batch.

    ``decode_ms`` is what each took to decode, None for those that came decoded.
    """
    timings = [{} if ms is None else {DECODE: ms} for ms in decode_ms or [None] * len(images)]

    def feed(name: str, rows: Int64Array, workspace: Any) -> Float32Array:
        spec = pipeline.image_specs[name]
        scratch = workspace.kept.get(name)
        if scratch is None:
            scratch = workspace.kept[name] = Scratch()
        batch: Float32Array = workspace.host_array(name, (len(rows), 3, spec.height, spec.width))
        for position, row in enumerate(rows):
            start = time.perf_counter_ns()
            spec.prepare(images[row], batch[position], scratch)
            spent_ms = (time.perf_counter_ns() - start) / 1e6
            timings[row][PREPARE] = timings[row].get(PREPARE, 0.0) + spent_ms
        return batch

    found: dict[int, Detections] = {}
    with pipeline.workspace() as workspace:
        result = pipeline.run(feed, len(images), policy, workspace)
        shared = shares(result.spans, len(images))
        for group in result.groups:
            spec = pipeline.image_spec(group.exit_index)
            for position, row in enumerate(group.rows):
                start = time.perf_counter_ns()
                placement = spec.place(images[row].shape[1], images[row].shape[0])
                own = timings[row] | shared[row]
                names = pipeline.class_names
                found[row] = _detections(result, group, position, placement, options, names, own)
                own[POSTPROCESS] = (time.perf_counter_ns() - start) / 1e6
    return [found[row] for row in range(len(images))]


def _detections(
    result: BatchResult,
    group: ExitGroup,
    position: int,
    placement: Placement,
    options: Postprocess,
    names: Sequence[str],
    timings: dict[str, float],
) -> Detections:
    boxes, confidences, class_ids = options(
        group.outputs["boxes_xyxy"][position], group.outputs["class_scores"][position]
    )
    return Detections(
        boxes_xyxy=placement.to_image(boxes),
        confidences=confidences.astype(np.float32, copy=False),
        class_ids=class_ids.astype(np.int64, copy=False),
        class_names=tuple(names[class_id] for class_id in class_ids.tolist()),
        easiness=_easiness(result, group.rows[position]),
        exit_index=group.exit_index,
        timings_ms=timings,
    )


PreparedInput = npt.NDArray[Any] | DeviceArray
"""A prepared image input, (N, 3, H, W) float32, on the host or on a GPU."""


def infer_batch(
    pipeline: CascadePipeline, arrays: Mapping[str, PreparedInput], policy: Policy
) -> list[RawOutput]:
    """Run prepared tensors that were checked, each (N, 3, H, W) float32, as one batch."""
    batch = len(next(iter(arrays.values())))

    def feed(name: str, rows: Int64Array, _workspace: Any) -> Float32Array | DeviceArray:
        array = arrays[name]
        if isinstance(array, DeviceArray) or len(rows) == batch:
            return array
        return array[rows]

    found: dict[int, RawOutput] = {}
    with pipeline.workspace() as workspace:
        result = pipeline.run(feed, batch, policy, workspace)
        for group in result.groups:
            for position, row in enumerate(group.rows):
                outputs = {name: array[position].copy() for name, array in group.outputs.items()}
                found[row] = RawOutput(_easiness(result, row), group.exit_index, outputs)
    return [found[row] for row in range(batch)]


def check_inputs(manifest: Manifest, inputs: Mapping[str, Any]) -> dict[str, PreparedInput]:
    """Prepared tensors, on the host C-contiguous, that fit what the bundle reads.

    Values on a GPU are not looked at: a NaN there is noticed only if it reaches the easiness.

    Raises:
        InputError: an input is missing, unknown, of another shape or dtype, or holds NaN; or
            there is no image.
    """
    specs = {
        spec.name: spec
        for stage in manifest.stages.values()
        for spec in stage.inputs
        if spec.name in manifest.image_inputs
    }
    if not isinstance(inputs, Mapping) or set(inputs) != set(specs):
        got = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputError(
            f"inputs are {got}, expected a mapping of {sorted(specs)} "
            f"({'; '.join(map(str, specs.values()))})"
        )
    checked: dict[str, PreparedInput] = {}
    for name, value in inputs.items():
        array = device_array(value, name) if is_device_array(value) else value
        if not isinstance(array, (np.ndarray, DeviceArray)) or not array.shape:
            raise InputError(f"{name} is {type(array).__name__}, expected an array: {specs[name]}")
        batch = len(next(iter(checked.values()), array))
        check_tensor(array.shape, array.dtype, specs[name], batch, manifest.name)
        if not len(array):
            raise InputError("the batch is empty, expected at least one image")
        if isinstance(array, np.ndarray):
            if not np.isfinite(array).all():
                raise InputError(f"{name} holds NaN or infinity; check the preprocessing")
            array = np.ascontiguousarray(array)
        checked[name] = array
    return checked


def chunk_of(array: PreparedInput, start: int, stop: int) -> PreparedInput:
    """Images from ``start`` up to ``stop``, or up to the last, without a copy."""
    return array.rows(start, stop) if isinstance(array, DeviceArray) else array[start:stop]


def _easiness(result: BatchResult, row: int) -> float | None:
    value = float(result.easiness[row])
    return None if math.isnan(value) else value
