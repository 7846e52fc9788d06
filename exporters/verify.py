"""Comparing every exported stage and every route with the source model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dyninfer.detector import Detector
from dyninfer.exporters.parity import Errors, Parity, Tolerance, count_flips
from dyninfer.manifest import Manifest
from dyninfer.policy import AlwaysEasy, AlwaysHard, Policy
from dyninfer.types import Float32Array, ImageArray

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[int], None]
BATCH = 2
TOLERANCE = Tolerance()
ROUTES: Mapping[str, Policy] = {"easy route": AlwaysEasy(), "hard route": AlwaysHard()}


def verify(
    detector: Detector,
    source: Mapping[str, nn.Module],
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
        source: the unfolded PyTorch stages by name.
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
        _check_stages(detector, tensors, errors)
        found += _check_routes(detector, images, tensors, errors)
        expected += np.ravel(tensors.get("router/easiness", np.empty(0))).tolist()
        progress(len(images))
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
    )


def _samples(
    manifest: Manifest, photos: Sequence[ImageArray], random_tensors: int
) -> Iterable[Float32Array]:
    """Prepared photos, then noise, in batches of at most two: enough to try the batch axis."""
    spec = manifest.image_inputs["images"]
    for start in range(0, len(photos), BATCH):
        yield np.stack([spec.prepare(photo) for photo in photos[start : start + BATCH]])
    rng = np.random.default_rng(0)
    for start in range(0, random_tensors, BATCH):
        count = min(BATCH, random_tensors - start)
        yield rng.random((count, 3, spec.height, spec.width), np.float32)


def _run_source(
    manifest: Manifest, source: Mapping[str, nn.Module], images: npt.NDArray[Any]
) -> Arrays:
    """Everything the source computes: features by name, final outputs as ``stage/name``."""
    tensors: Arrays = {"images": images}
    for name, stage in manifest.stages.items():
        inputs = [tensors[spec.name] for spec in stage.inputs]
        for spec, output in zip(stage.outputs, _run_stage(source[name], inputs), strict=True):
            tensors[f"{name}/{spec.name}"] = tensors[spec.name] = output
    return tensors


def _run_stage(module: nn.Module, inputs: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    with torch.inference_mode():
        produced = module(*(torch.from_numpy(array) for array in inputs))
    outputs = [produced] if isinstance(produced, torch.Tensor) else produced
    return [output.numpy() for output in outputs]


def _check_stages(detector: Detector, tensors: Arrays, errors: Errors) -> None:
    for name, stage in detector.manifest.stages.items():
        inputs = {spec.name: tensors[spec.name] for spec in stage.inputs}
        for output, array in detector.run_stage(name, inputs).items():
            errors.add(name, output, array, tensors[f"{name}/{output}"])


def _check_routes(
    detector: Detector, images: Float32Array, tensors: Arrays, errors: Errors
) -> list[float]:
    """Compare both routes from the images on; returns the easiness found, if any."""
    before = detector.policy
    easiness: list[float] = []
    try:
        for route_name, policy in ROUTES.items():
            detector.policy = policy
            raw = detector.infer({"images": images})
            exit_ = detector.manifest.exits[raw[0].exit_index]
            for name in detector.manifest.task.outputs:
                found = np.stack([output.outputs[name] for output in raw])
                errors.add(route_name, name, found, tensors[f"{exit_.head or exit_.body}/{name}"])
            easiness = [output.easiness for output in raw if output.easiness is not None]
            if easiness:
                expected = tensors["router/easiness"]
                errors.add(route_name, "easiness", np.array(easiness), expected)
    finally:
        detector.policy = before
    return easiness


def _rounding(
    manifest: Manifest, source: Mapping[str, nn.Module], samples: Iterable[Float32Array]
) -> Errors:
    """How far the source in float32 is from itself in float64, at every place that is checked."""
    rounding = Errors()
    for images in samples:
        single = _run_source(manifest, source, images)
        with _in_double(source):
            double = _run_source(manifest, source, images.astype(np.float64))
            for name, stage in manifest.stages.items():
                inputs = [single[spec.name].astype(np.float64) for spec in stage.inputs]
                for spec, array in zip(
                    stage.outputs, _run_stage(source[name], inputs), strict=True
                ):
                    rounding.add(name, spec.name, array, single[f"{name}/{spec.name}"])
        for route_name, exit_ in zip(ROUTES, (manifest.exits[0], manifest.exits[-1]), strict=True):
            ends = [f"{exit_.head or exit_.body}/{name}" for name in manifest.task.outputs]
            for key in [*ends, *(["router/easiness"] if manifest.has_routers else [])]:
                rounding.add(route_name, key.split("/")[1], double[key], single[key])
    return rounding


@contextmanager
def _in_double(source: Mapping[str, nn.Module]) -> Iterator[None]:
    """The source's weights in float64, and afterwards back, without loss."""
    try:
        for module in source.values():
            module.double()
        yield
    finally:
        for module in source.values():
            module.float()
