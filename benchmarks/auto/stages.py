"""The candidates of every stage, measured in turns on what the stage really reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dyninfer.builds.auto import Place
from dyninfer.builds.search import list_builds, made_for_others, preferred_build
from dyninfer.builds.spec import (
    FOR_OPENVINO,
    IO,
    JOINED,
    BuildSpec,
    describe_plan,
    source_hashes,
    travel_of,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.engines import host_versions, open_backend
from dyninfer.evaluation.interleaved import Run, round_order
from dyninfer.exporters.parity import Recording, as_read
from dyninfer.images.pictures import read_image
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.executor import trace
from dyninfer.runtime.opening import load
from dyninfer.runtime.plan import plan
from dyninfer.runtime.stage_runner import Arrays

SECONDS = 4.0
"""How long one stage's candidates are measured, unless that is too few rounds."""
LEAST_ROUNDS, MOST_ROUNDS, WARM_ROUNDS = 5, 100, 2
Times = Mapping[Place, Sequence[float]]
"""Milliseconds of a batch, round by round, ONNX Runtime as exported first."""


@dataclass(frozen=True)
class Form:
    """A whole bundle on one backend in one precision, as :func:`dyninfer.load` takes them."""

    backend: str
    precision: str | None = None


def find_forms(bundle: Bundle) -> list[Form]:
    """What needs no calibration here, ONNX Runtime as exported first, and int8 if it was built."""
    backends = list(host_versions())
    forms = [Form(backend) for backend in backends]
    if "openvino" in backends and _has_bf16():
        forms.append(Form("openvino", Precision.BF16.value))
    built = {backend: _int8_built(bundle, backend) for backend in backends}
    return forms + [Form(*form) for form in built.items() if form[1] is not None]


def _has_bf16() -> bool:
    backend: Any = open_backend("openvino")
    try:
        return bool(backend.has_bf16)
    finally:
        backend.close()


def _int8_built(bundle: Bundle, backend: str) -> str | None:
    """The precision of a build of files in int8 that the backend opens.

    One made for it comes first, one within a gate, and that with most of it. Those that take other
    images than the bundle's do not go with the other stages.
    """
    found = []
    for path, build in list_builds(bundle)[0].items():
        spec = build.spec
        wanted = BuildSpec(
            backend="onnxruntime",
            precision=spec.precision,
            stages_sha256=source_hashes(bundle.manifest),
            options={FOR_OPENVINO: ",".join(spec.precision)} if backend == "openvino" else {},
        )
        opened = preferred_build(bundle, wanted)
        count = [*spec.precision.values()].count(Precision.INT8)
        whole = travel_of(spec) in ({}, {IO: "int8"}) and JOINED not in spec.options
        if opened is not None and opened[0] == path and whole and count:
            key = (not made_for_others(build, wanted), build.gate is not None, count)
            found.append((key, describe_plan(spec.precision, bundle.manifest)))
    return max(found, default=(None, None))[1]


@contextmanager
def opened_forms(
    bundle: Bundle, forms: Sequence[Form], max_batch: int, trusted_key: str | None
) -> Iterator[list[Detector]]:
    """All forms at once; errors as of :func:`dyninfer.load`."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                load(
                    bundle.path,
                    backend=form.backend,
                    precision=form.precision,
                    max_batch=max_batch,
                    build=False,
                    trusted_key=trusted_key,
                )
            )
            for form in forms
        ]


def places_of(detectors: Sequence[Detector], stage: str) -> dict[Place, Detector]:
    """The different places in which these run a stage."""
    found: dict[Place, Detector] = {}
    for detector in detectors:
        precision = detector.engine_record().precision[stage]
        place = Place.model_validate({"backend": detector.backend, "precision": precision})
        found.setdefault(place, detector)
    return found


def recorded_inputs(
    bundle: Bundle, reference: Detector, pictures: Sequence[Path], batch: int
) -> dict[str, Arrays]:
    """Stage -> what it reads of ``batch`` pictures, which come again where they are too few."""
    stages, segments = bundle.manifest.stages, plan(bundle.manifest)
    rows: dict[str, list[Arrays]] = {name: [] for name in stages}
    for path in pictures[:batch]:
        recording = Recording(stages, reference.run_stage)
        images = reference.prepare([read_image(path)])
        trace(segments, ArrayRunner(images, recording.run), 1)
        for name, read in recording.reads.items():
            rows[name].append(read)
    return {
        name: {
            key: np.concatenate([parts[row % len(parts)][key] for row in range(batch)])
            for key in parts[0]
        }
        for name, parts in rows.items()
        if parts
    }


def measure_stage(
    detectors: Sequence[Detector], stage: str, reads: Arrays, batches: Sequence[int]
) -> dict[int, Times]:
    """All candidates of a stage in turns, in all batches, on the first rows of what it reads.

    Where every candidate runs row by row, a batch takes as long as its images do.
    """
    places = places_of(detectors, stage)
    alone = all(d.engines[stage].stage.rows_per_run is not None for d in places.values())
    with ExitStack() as stack:
        runs = {
            (batch, place): stack.enter_context(_bound(detector, stage, reads, batch))
            for batch in (batches[:1] if alone else batches)
            for place, detector in places.items()
        }
        times = in_turns(runs)
    if alone:
        return {batch: {p: [batch * t for t in times[1, p]] for p in places} for batch in batches}
    return {batch: {place: times[batch, place] for place in places} for batch in batches}


def in_turns(runs: Mapping[Any, Run], on_round: Callable[[], object] = lambda: None) -> Any:
    """Milliseconds of every run, round by round, each round in another order."""
    names = {str(name): name for name in runs}
    times: dict[Any, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        for _ in range(WARM_ROUNDS):
            run()
    start = time.perf_counter()
    for index in count():
        for name in round_order(list(names), index):
            times[names[name]].append(runs[names[name]]())
        on_round()
        long = time.perf_counter() - start > SECONDS
        if index + 1 >= MOST_ROUNDS or (long and index + 1 >= LEAST_ROUNDS):
            break
    return times


@contextmanager
def _bound(detector: Detector, stage: str, reads: Arrays, batch: int) -> Iterator[Run]:
    """A stage of a detector with its inputs at hand."""
    engine, backend = detector.engines[stage], detector.session.backend

    def run() -> float:
        start = time.perf_counter()
        engine.run(tensors, workspace)
        return 1e3 * (time.perf_counter() - start)

    with detector.session.workspace() as workspace:
        workspace.timed = False
        arrays = as_read(detector.manifest, {name: a[:batch] for name, a in reads.items()})
        tensors = {name: backend.from_host(array, workspace) for name, array in arrays.items()}
        yield run
