"""Comparing every exported stage and every route with the source model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from dyninfer import __version__
from dyninfer.detector import DEFAULT_THRESHOLD, Detector
from dyninfer.manifest import Manifest
from dyninfer.policy import AlwaysEasy, AlwaysHard, route
from dyninfer.types import Float32Array, ImageArray

Arrays = dict[str, npt.NDArray[Any]]
Progress = Callable[[int], None]
BATCH = 2


@dataclass(frozen=True)
class Tolerance:
    """How far a tensor may be from its source.

    Boxes, easiness and class scores have absolute bounds. That of the boxes grows beyond 1,000
    pixels, where float32 itself cannot do better: ``boxes_relative`` times the largest value.
    Features are compared with their largest value.
    """

    boxes_px: float = 1e-3
    easiness: float = 1e-5
    class_scores: float = 1e-4
    boxes_relative: float = 1e-6
    features_relative: float = 1e-4

    def passes(self, tensor: str, max_abs: float, largest: float) -> bool:
        """Whether an error of ``max_abs`` in a tensor of this name is small enough."""
        bounds = {
            "boxes_xyxy": max(self.boxes_px, self.boxes_relative * largest),
            "easiness": self.easiness,
            "class_scores": self.class_scores,
        }
        return max_abs <= bounds.get(tensor, self.features_relative * largest)


@dataclass(frozen=True)
class Check:
    """One tensor of one stage, or of one route, over all samples.

    ``max_rel`` is the largest error divided by the largest value of the source's tensor.
    """

    where: str
    tensor: str
    max_abs: float
    max_rel: float
    passed: bool


@dataclass(frozen=True)
class Flips:
    """Route decisions: how many of (threshold, image) pairs fall on the other side."""

    decisions: int
    flips: int

    @property
    def share(self) -> float:
        """Share of decisions that differ from the source's."""
        return self.flips / self.decisions if self.decisions else 0.0


@dataclass(frozen=True)
class Parity:
    """The outcome of a verification."""

    checks: tuple[Check, ...]
    flips: Flips
    photos: int
    random_tensors: int
    backend: str
    device: str
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether every tensor is within its tolerance."""
        return all(check.passed for check in self.checks)

    def to_dict(self, manifest: Manifest) -> dict[str, Any]:
        """What ``parity.json`` holds."""
        return {
            "written_by": f"dyninfer {__version__}",
            "passed": self.passed,
            "source_sha256": manifest.source.sha256,
            "stages_sha256": {name: stage.sha256 for name, stage in manifest.stages.items()},
            "backend": self.backend,
            "device": self.device,
            "photos": self.photos,
            "random_tensors": self.random_tensors,
            "tolerance": asdict(self.tolerance),
            "checks": [asdict(check) for check in self.checks],
            "decisions": self.flips.decisions,
            "flips": self.flips.flips,
            "flip_share": self.flips.share,
        }


class _Errors:
    """Largest error and largest value of every tensor, over all samples."""

    def __init__(self) -> None:
        self._largest: dict[tuple[str, str], tuple[float, float]] = {}

    def add(
        self, where: str, tensor: str, found: npt.NDArray[Any], source: npt.NDArray[Any]
    ) -> None:
        error = np.abs(found.astype(np.float64) - source.astype(np.float64))
        old_error, old_value = self._largest.get((where, tensor), (0.0, 0.0))
        # max() would lose a NaN, which must fail the check
        self._largest[where, tensor] = (
            float(np.fmax(old_error, np.where(np.isnan(error), np.inf, error).max())),
            max(old_value, float(np.nanmax(np.abs(source)))),
        )

    def checks(self, tolerance: Tolerance) -> tuple[Check, ...]:
        return tuple(
            Check(where, tensor, error, error / value if value else error, passed)
            for (where, tensor), (error, value) in self._largest.items()
            for passed in (tolerance.passes(tensor, error, value),)
        )


def verify(
    detector: Detector,
    source: Mapping[str, nn.Module],
    photos: Sequence[ImageArray],
    random_tensors: int = 4,
    tolerance: Tolerance = Tolerance(),
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
    errors = _Errors()
    expected: list[float] = []
    found: list[float] = []
    for images in _samples(detector.manifest, photos, random_tensors):
        tensors = _run_source(detector.manifest, source, images)
        _check_stages(detector, tensors, errors)
        found += _check_routes(detector, images, tensors, errors)
        expected += np.ravel(tensors.get("router/easiness", np.empty(0))).tolist()
        progress(len(images))
    return Parity(
        checks=errors.checks(tolerance),
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
    manifest: Manifest, source: Mapping[str, nn.Module], images: Float32Array
) -> Arrays:
    """Everything the source computes: features by name, final outputs as ``stage/name``."""
    tensors: Arrays = {"images": images}
    for name, stage in manifest.stages.items():
        inputs = [torch.from_numpy(tensors[spec.name]) for spec in stage.inputs]
        with torch.inference_mode():
            produced = source[name](*inputs)
        outputs = [produced] if isinstance(produced, torch.Tensor) else produced
        for spec, output in zip(stage.outputs, outputs, strict=True):
            tensors[f"{name}/{spec.name}"] = tensors[spec.name] = output.numpy()
    return tensors


def _check_stages(detector: Detector, tensors: Arrays, errors: _Errors) -> None:
    for name, stage in detector.manifest.stages.items():
        inputs = {spec.name: tensors[spec.name] for spec in stage.inputs}
        for output, array in detector.run_stage(name, inputs).items():
            errors.add(name, output, array, tensors[f"{name}/{output}"])


def _check_routes(
    detector: Detector, images: Float32Array, tensors: Arrays, errors: _Errors
) -> list[float]:
    """Compare both routes from the images on; returns the easiness found, if any."""
    before = detector.policy
    easiness: list[float] = []
    try:
        for route_name, policy in (("easy route", AlwaysEasy()), ("hard route", AlwaysHard())):
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


def count_flips(expected: Float32Array, found: Float32Array) -> Flips:
    """Decisions that differ, at the default threshold and between all neighbouring values.

    Args:
        expected: (N,) easiness of the source.
        found: (N,) easiness of the engines, in the same order.
    """
    if not len(expected):
        return Flips(0, 0)
    ordered = np.unique(expected)
    thresholds = [DEFAULT_THRESHOLD, *((ordered[1:] + ordered[:-1]) / 2)]
    flips = sum(int((route(expected, t) != route(found, t)).sum()) for t in thresholds)
    return Flips(len(thresholds) * len(expected), flips)
