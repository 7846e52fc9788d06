"""From a batch of pictures, or of prepared tensors, to one result per image."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.manifest import Manifest
from dyninfer.engines.base import check_tensor
from dyninfer.engines.deadline import Deadline
from dyninfer.engines.device_array import DeviceArray, device_array, is_device_array
from dyninfer.errors import BrokenOutputError, InputError
from dyninfer.images.inputs import Picture
from dyninfer.images.prepare import Scratch
from dyninfer.results.answers import Answer, RawOutput
from dyninfer.results.tasks import Options
from dyninfer.routing.policy import Policy
from dyninfer.runtime.session import ImageFeed, Session
from dyninfer.runtime.stage_runner import Arrays, BatchResult, Group, Trace
from dyninfer.spans import DECODE, POSTPROCESS, PREPARE, share_out
from dyninfer.types import AnyArray, Int64Array

_Broken = tuple[Group, list[int], BrokenOutputError]
"""An image of a group whose outputs are of no use, and why."""


def answer_batch(
    session: Session,
    pictures: Sequence[Picture],
    policy: Policy,
    options: Options,
    first_image: int = 0,
    deadline: Deadline | None = None,
    prepared: Prepared | None = None,
    *,
    lone: bool = False,
) -> list[Answer]:
    """Prepare, run and postprocess pictures, at least one, as one batch.

    Args:
        session: runs them.
        pictures: with what each took to decode.
        policy: decides their ways.
        options: of the bundle's task.
        first_image: position of the first among those of the call.
        deadline: of the call.
        prepared: what is there already of the only picture.
        lone: the call keeps to its own thread, beside others.
    """
    timings = [{} if ms is None else {DECODE: ms} for _, ms in pictures]
    found: dict[int, Answer] = {}
    with session.workspace() as workspace:
        workspace.deadline, workspace.lone = deadline, lone
        feed = _picture_feed(session, pictures, timings, prepared)
        result = session.run(feed, len(pictures), policy, workspace, first_image)
        share_out(result.spans, timings)
        easiness = _easiness(result)
        broken: list[_Broken] = []
        groups = list(result.groups)
        while groups:
            for group in groups:
                broken += _answer_group(session, group, easiness, pictures, options, timings, found)
            groups = []
            if broken:  # one by one: a retreat writes over the outputs of the one before
                assert result.retreat is not None
                groups = list(result.retreat(*broken.pop()))
    if result.failures:
        for row in session.failures.degraded(result.failures):
            found[row].degraded = True
    return list(map(found.__getitem__, range(len(pictures))))


def _answer_group(
    session: Session,
    group: Group,
    easiness: Sequence[float | None],
    pictures: Sequence[Picture],
    options: Options,
    timings: Sequence[dict[str, float]],
    found: dict[int, Answer],
) -> list[_Broken]:
    """Add the answers of the images of one way; returns those whose outputs are broken."""
    spec = session.way_specs[group.way]
    broken = []
    for position, row in enumerate(group.rows):
        start = time.perf_counter_ns()
        own = timings[row]
        height, width, _ = pictures[row].image.shape
        try:
            found[row] = session.task.answer(
                {name: array[position] for name, array in group.outputs.items()},
                spec.place(width, height),
                options,
                session.class_names,
                session.note_broken,
                easiness=easiness[row],
                exit_index=group.way,
                timings_ms=own,
            )
        except BrokenOutputError as error:
            session.note_broken(str(error))
            broken.append((group, [position], error))
        own[POSTPROCESS] = (time.perf_counter_ns() - start) / 1e6
    return broken


class Prepared(NamedTuple):
    """Image inputs of a single picture that are there already, and the milliseconds they took."""

    tensors: Mapping[str, AnyArray | DeviceArray]
    ms: float


def _picture_feed(
    session: Session,
    pictures: Sequence[Picture],
    timings: Sequence[dict[str, float]],
    prepared: Prepared | None = None,
) -> ImageFeed:
    """Prepares pictures when a stage asks for them; what each takes is added to its timings."""
    if prepared is not None:
        timings[0][PREPARE] = prepared.ms

    def feed(name: str, rows: Int64Array, workspace: Any) -> AnyArray | DeviceArray:
        if prepared is not None and name in prepared.tensors:
            return prepared.tensors[name]
        spec = session.image_specs[name]
        scratch = workspace.kept.get(name)
        if scratch is None:
            scratch = workspace.kept[name] = Scratch()
        shape = (len(rows), 3, spec.height, spec.width)
        batch: AnyArray = workspace.host_array(name, shape, session.image_types[name])
        for position, row in enumerate(rows.tolist()):
            start = time.perf_counter_ns()
            spec.prepare(pictures[row].image, batch[position], scratch)
            own, spent_ms = timings[row], (time.perf_counter_ns() - start) / 1e6
            own[PREPARE] = own.get(PREPARE, 0.0) + spent_ms
        return batch

    return feed


PreparedInput = npt.NDArray[Any] | DeviceArray
"""A prepared image input, (N, 3, H, W) of the engines' type, on the host or on a GPU."""


def infer_batch(
    session: Session,
    arrays: Mapping[str, PreparedInput],
    policy: Policy,
    first_image: int = 0,
    deadline: Deadline | None = None,
) -> list[RawOutput]:
    """Run prepared tensors that were checked, each (N, 3, H, W), as one batch."""
    batch = len(next(iter(arrays.values())))
    found: dict[int, RawOutput] = {}
    with session.workspace() as workspace:
        workspace.deadline, workspace.timed = deadline, False
        result = session.run(_tensor_feed(arrays), batch, policy, workspace, first_image)
        early = session.failures.degraded(result.failures) if result.failures else ()
        easiness = _easiness(result)
        for group in result.groups:
            for position, row in enumerate(group.rows):
                outputs = {name: array[position].copy() for name, array in group.outputs.items()}
                found[row] = RawOutput(easiness[row], group.way, outputs, row in early)
    return [found[row] for row in range(batch)]


def trace_batch(
    session: Session, arrays: Mapping[str, PreparedInput], keep: Collection[str]
) -> Trace:
    """Every way of prepared tensors that were checked, as arrays of the caller's own."""
    batch = len(next(iter(arrays.values())))
    with session.workspace() as workspace:
        found = session.trace(_tensor_feed(arrays), batch, workspace, keep)
        ways = tuple({name: array.copy() for name, array in way.items()} for way in found.ways)
    return replace(found, ways=ways)


def join_traces(parts: Sequence[Trace]) -> Trace:
    """The traces of successive batches as one."""

    def joined(every: Sequence[Arrays]) -> Arrays:
        return {name: np.concatenate([arrays[name] for arrays in every]) for name in every[0]}

    first = parts[0]
    return Trace(
        tuple(
            None if signal is None else np.concatenate([part.signals[index] for part in parts])
            for index, signal in enumerate(first.signals)
        ),
        tuple(joined([part.ways[way] for part in parts]) for way in range(len(first.ways))),
        {stage: joined([part.stages[stage] for part in parts]) for stage in first.stages},
    )


def _tensor_feed(arrays: Mapping[str, PreparedInput]) -> ImageFeed:
    def feed(name: str, rows: Int64Array, _workspace: Any) -> AnyArray | DeviceArray:
        array = arrays[name]
        if isinstance(array, DeviceArray) or len(rows) == len(array):
            return array
        return array[rows]

    return feed


def check_inputs(manifest: Manifest, inputs: Mapping[str, Any]) -> dict[str, PreparedInput]:
    """Prepared tensors, on the host C-contiguous, that fit what the bundle reads.

    Values on a GPU are not looked at: a NaN there is noticed only if it reaches the easiness.

    Raises:
        InputError: an input is missing, unknown, of another shape or dtype, or holds NaN; or
            there is no image.
    """
    specs = manifest.image_tensors
    if not isinstance(inputs, Mapping) or inputs.keys() != specs.keys():
        got = sorted(map(str, inputs)) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise InputError(
            f"inputs are {got}, expected a mapping of {sorted(specs)} "
            f"({'; '.join(map(str, specs.values()))})"
            + f"; write infer({{{next(iter(specs))!r}: batch}})"
            * (not isinstance(inputs, Mapping))
        )
    checked: dict[str, PreparedInput] = {}
    for name, value in inputs.items():
        array = device_array(value, name) if is_device_array(value) else value
        if not isinstance(array, (np.ndarray, DeviceArray)) or not array.shape:
            hint = (
                "write tensor.cpu().numpy()" if hasattr(array, "cpu") else "numpy.asarray makes one"
            )
            raise InputError(
                f"{name} is {type(array).__name__}, expected an array: {specs[name]}; {hint}"
            )
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


def _easiness(result: BatchResult) -> list[float | None]:
    """Of every image; None where no router ran, or what it gave was none."""
    return [None if math.isnan(value) else value for value in result.easiness.tolist()]
