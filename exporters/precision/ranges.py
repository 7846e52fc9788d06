"""What the tensors inside a stage hold, seen on real inputs and without holding them all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.errors import ExportError, InputError
from dyninfer.exporters.graphs import GraphBuilder, editable
from dyninfer.exporters.precision.clipping import BINS, Observed
from dyninfer.exporters.probe import Probe, open_model
from dyninfer.types import AnyArray, Int64Array

StageInputs = Mapping[str, AnyArray]
Feed = Callable[[], Iterable[StageInputs]]
"""Gives a stage's real inputs by name, (1, ...) each, anew at every call."""
Tick = Callable[[], None]

_BYTES = 4  # of a float32
_MIB = 1 << 20


def open_session(model: ModelProto) -> Any:
    """An ONNX Runtime session on the CPU for a model in memory.

    Raises:
        ExportError: ONNX Runtime refuses the model.
    """
    try:
        return open_model(model)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"ONNX Runtime cannot run a stage during conversion: {reason}") from error


def observe(
    model: ModelProto,
    tensors: Collection[str],
    feed: Feed,
    *,
    histograms: bool,
    memory_mib: int = 512,
    tick: Tick = lambda: None,
) -> dict[str, Observed]:
    """What every tensor holds over all inputs.

    A first pass takes the extremes, computed inside the graph. Where histograms are wanted, the
    stage is run again for every group of tensors that fits into ``memory_mib``. A tensor may hold
    infinity, as what is padded for a maximum does: it has no histogram.

    Args:
        model: the stage in float32, types inferred.
        tensors: names of float32 tensors that are computed or fed.
        feed: the stage's inputs.
        histograms: whether magnitudes are counted.
        memory_mib: for the tensors that are looked at at once.
        tick: called after every run.

    Raises:
        InputError: the feed gives nothing.
        ExportError: a tensor holds NaN.
    """
    if not tensors:
        return {}
    extremes, sizes = _extremes(model, sorted(tensors), feed, tick)
    if not histograms:
        return {name: Observed(low, high) for name, (low, high) in extremes.items()}
    sizes = {name: size for name, size in sizes.items() if np.isfinite(extremes[name]).all()}
    counted: dict[str, Int64Array] = {}
    for group in grouped(sizes, memory_mib * _MIB // _BYTES):
        counted |= _magnitudes(model, group, extremes, feed, tick)
    return {name: Observed(low, high, counted.get(name)) for name, (low, high) in extremes.items()}


def grouped(sizes: Mapping[str, int], budget: int) -> list[list[str]]:
    """Names in groups whose sizes add up to at most ``budget``; a larger one stands alone."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = budget
        groups[-1].append(name)
        room -= size
    return groups


def _extremes(
    model: ModelProto, tensors: Sequence[str], feed: Feed, tick: Tick
) -> tuple[dict[str, tuple[float, float]], dict[str, int]]:
    """(lowest, highest) of every tensor, and how many elements it has at most."""
    watched, names = _with_extremes(model, tensors)
    session = open_session(watched)
    extremes: dict[str, tuple[float, float]] = {}
    sizes: dict[str, int] = {}
    for inputs in feed():
        for name, (low, high, size) in zip(
            tensors, np.reshape(session.run(names, dict(inputs)), (-1, 3)), strict=True
        ):
            if np.isnan([low, high]).any():
                raise ExportError(
                    f"tensor {name!r} held NaN on a calibration picture, expected numbers; "
                    "keep this stage in fp32"
                )
            before = extremes.get(name, (low, high))
            extremes[name] = (min(float(low), before[0]), max(float(high), before[1]))
            sizes[name] = max(int(size), sizes.get(name, 0))
        tick()
    if not extremes:
        raise InputError("there are no calibration pictures, expected at least one")
    return extremes, sizes


def _with_extremes(model: ModelProto, tensors: Sequence[str]) -> tuple[ModelProto, list[str]]:
    """The model with lowest, highest and size of every tensor as further outputs, and their names.

    The size is a float32 like the others, exact up to 2**24 and close enough beyond.
    """
    stage = editable(model)
    values = ir.convenience.create_value_mapping(stage.graph, include_subgraphs=False)
    builder = GraphBuilder(stage.graph, "seen")
    seen = []
    for name in tensors:
        flat = builder.reshape(values[name], [-1])
        ends = [builder.apply(f"Reduce{end}", flat, keepdims=0) for end in ("Min", "Max")]
        seen += [*ends, builder.cast(builder.apply("Size", flat), ir.DataType.FLOAT)]
    stage.graph.outputs[:] = seen
    return ir.to_proto(stage), [str(value.name) for value in seen]


def _magnitudes(
    model: ModelProto,
    tensors: Sequence[str],
    extremes: Mapping[str, tuple[float, float]],
    feed: Feed,
    tick: Tick,
) -> dict[str, Int64Array]:
    probe = Probe(model, tensors)
    counts = {name: np.zeros(BINS, np.int64) for name in tensors}
    for inputs in feed():
        for name, array in probe.read(inputs).items():
            counts[name] += count_magnitudes(array, max(map(abs, extremes[name])))
        tick()
    return counts


def count_magnitudes(array: AnyArray, largest: float) -> Int64Array:
    """(BINS,) how many values have their magnitude in each equal part of [0, largest]."""
    if not largest:
        counts = np.zeros(BINS, np.int64)
        counts[0] = array.size
        return counts
    parts = np.abs(array.reshape(-1)) / np.float32(largest) * np.float32(BINS)
    return np.bincount(np.minimum(parts.astype(np.int32), BINS - 1), minlength=BINS)
