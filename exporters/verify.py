"""Comparing every exported stage and every route with the source model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from dyninfer.bundle.manifest import Manifest
from dyninfer.exporters.parity import Errors, Parity, Tolerance, count_flips
from dyninfer.exporters.source_stage import Array, SourceStage
from dyninfer.images.spec import ImageSpec
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.runtime.detector import Detector
from dyninfer.types import ImageArray

Arrays = dict[str, Array]
Progress = Callable[[int], None]
BATCH = 2
TOLERANCE = Tolerance()
ROUTES: Mapping[str, Policy] = {"easy route": AlwaysEasy(), "hard route": AlwaysHard()}


def verify(
    detector: Detector,
    source: Mapping[str, SourceStage],
    photos: Sequence[ImageArray],
    random_tensors: int = 4,
    tolerance: Tolerance = TOLERANCE,
    progress: Progress = lambda _samples: None,
) -> Parity:
    """Compare an opened bundle with its source.

    Every stage is fed what the source's stages before it produced, so that an error is seen
    where it arises; both routes are then run from the images on.

    Args:
        detector: the opened bundle. Its policy is changed and put back.
        source: the source model's stages by name. A stage of the bundle that is not among them,
            such as a router that was trained afterwards, is named as not compared.
        photos: (h, w, 3) uint8 BGR pictures.
        random_tensors: so many inputs of uniform noise in [0, 1] are added.
        tolerance: what counts as agreement.
        progress: called after every batch with the number of its samples.
    """
    errors = Errors()
    expected: list[float] = []
    found: list[float] = []
    for images in _samples(detector.manifest, photos, random_tensors):
        tensors = _run_source(detector.manifest, source, images)
        _check_stages(detector, source, images, tensors, errors)
        found += _check_routes(detector, images, tensors, errors)
        expected += np.ravel(tensors.get("router/easiness", np.empty(0))).tolist()
        progress(len(next(iter(images.values()))))
    checks = errors.checks(tolerance)
    if not all(check.passed for check in checks):
        samples = _samples(detector.manifest, photos, random_tensors)
        checks = errors.checks(tolerance, _rounding(detector.manifest, source, samples))
    return Parity(
        checks=checks,
        flips=count_flips(np.array(expected, np.float32), np.array(found, np.float32)),
        photos=len(photos),
        random_tensors=random_tensors,
        backend=detector.backend,
        device=detector.device,
        tolerance=tolerance,
        not_compared=tuple(name for name in detector.manifest.stages if name not in source),
    )


def _samples(
    manifest: Manifest, photos: Sequence[ImageArray], random_tensors: int
) -> Iterable[Arrays]:
    """Every image input for photos, then for noise between black and white.

    They come in batches of at most two: enough to try the batch axis.
    """
    specs = manifest.image_inputs
    for start in range(0, len(photos), BATCH):
        chosen = photos[start : start + BATCH]
        yield {
            name: np.stack([spec.prepare(photo) for photo in chosen])
            for name, spec in specs.items()
        }
    rng = np.random.default_rng(0)
    for start in range(0, random_tensors, BATCH):
        count = min(BATCH, random_tensors - start)
        yield {name: _noise(spec, count, rng) for name, spec in specs.items()}


def _noise(spec: ImageSpec, count: int, rng: np.random.Generator) -> Array:
    """Uniform noise (count, 3, H, W) float32 over what a pixel can become."""
    mean, std = (np.array(n, np.float32).reshape(3, 1, 1) for n in (spec.mean, spec.std))
    black, white = -mean / std, (255 - mean) / std
    noise = rng.random((count, 3, spec.height, spec.width), np.float32)
    return black + noise * (white - black)


def _run_source(
    manifest: Manifest, source: Mapping[str, SourceStage], images: Mapping[str, Array]
) -> Arrays:
    """Everything the source computes: features by name, final outputs as ``stage/name``."""
    tensors: Arrays = dict(images)
    for name, stage in manifest.stages.items():
        if name not in source:
            continue
        outputs = source[name].run([tensors[spec.name] for spec in stage.inputs])
        for spec, output in zip(stage.outputs, outputs, strict=True):
            tensors[f"{name}/{spec.name}"] = tensors[spec.name] = output
    return tensors


def _check_stages(
    detector: Detector,
    source: Mapping[str, SourceStage],
    images: Arrays,
    tensors: Arrays,
    errors: Errors,
) -> None:
    """Feed every stage what the source's stages before it produced."""
    available = dict(images)
    for name, stage in detector.manifest.stages.items():
        if name not in source:
            continue
        inputs = {spec.name: available[spec.name] for spec in stage.inputs}
        for output, array in detector.run_stage(name, inputs).items():
            errors.add(name, output, array, tensors[f"{name}/{output}"])
        available |= {spec.name: tensors[f"{name}/{spec.name}"] for spec in stage.outputs}


def _check_routes(
    detector: Detector, images: Arrays, tensors: Arrays, errors: Errors
) -> list[float]:
    """Compare both routes from the images on; returns the easiness found, if any."""
    easiness: list[float] = []
    with detector.kept_policy():
        for route_name, policy in ROUTES.items():
            detector.policy = policy
            raw = detector.infer(images)
            exit_ = detector.manifest.ways[raw[0].exit_index]
            for name in detector.manifest.task.outputs:
                found = np.stack([output.outputs[name] for output in raw])
                errors.add(route_name, name, found, tensors[f"{exit_.head or exit_.body}/{name}"])
            easiness = [output.easiness for output in raw if output.easiness is not None]
            expected = tensors.get("router/easiness")
            if easiness and expected is not None:
                errors.add(route_name, "easiness", np.array(easiness), expected)
    return easiness


def _rounding(
    manifest: Manifest, source: Mapping[str, SourceStage], samples: Iterable[Arrays]
) -> Errors | None:
    """How far the source in float32 is from itself in float64, at every place that is checked.

    None where the source cannot compute in float64.
    """
    if not all(stage.has_double for stage in source.values()):
        return None
    rounding = Errors()
    for images in samples:
        single = _run_source(manifest, source, images)
        with ExitStack() as stack:
            for stage in source.values():
                stack.enter_context(stage.in_double())
            doubled = {name: array.astype(np.float64) for name, array in images.items()}
            _add_rounding(
                manifest, source, single, _run_source(manifest, source, doubled), rounding
            )
    return rounding


def _add_rounding(
    manifest: Manifest,
    source: Mapping[str, SourceStage],
    single: Arrays,
    double: Arrays,
    rounding: Errors,
) -> None:
    """Note both at every stage, fed alike, and at the end of both routes."""
    for name, entry in manifest.stages.items():
        if name not in source:
            continue
        inputs = [single[spec.name].astype(np.float64) for spec in entry.inputs]
        for spec, array in zip(entry.outputs, source[name].run(inputs), strict=True):
            rounding.add(name, spec.name, array, single[f"{name}/{spec.name}"])
    for route_name, exit_ in zip(ROUTES, (manifest.ways[0], manifest.ways[-1]), strict=True):
        ends = [f"{exit_.head or exit_.body}/{name}" for name in manifest.task.outputs]
        for key in [*ends, *(["router/easiness"] if "router/easiness" in single else [])]:
            rounding.add(route_name, key.split("/")[1], double[key], single[key])
