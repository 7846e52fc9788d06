"""The published evaluation of DynamicDet: its preparation of pictures, on the source model.

A picture is resized so that its longer side is the model's (sizes cut off, averaged over areas when
it shrinks), and centred in a rectangle of its own shape with half a stride to spare. A bundle's
engines have one size, so the source model runs, in PyTorch and float32; every picture is a batch of
its own, since in a larger one the rectangle depends on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import InputError
from dyninfer.evaluation.outcomes import PictureTrace, picture_of
from dyninfer.exporters.dynamicdet.export import DYNAMICDET
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model
from dyninfer.exporters.dynamicdet.stages import IMAGES, build_stages
from dyninfer.exporters.family import SourceStage, TorchStage
from dyninfer.exporters.sources import find_sources
from dyninfer.images.spec import Placement
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.executor import trace
from dyninfer.runtime.plan import plan
from dyninfer.runtime.stage_runner import Arrays
from dyninfer.types import Float32Array, Float64Array, ImageArray

_LEAST_STRIDE = 32
_PAD = 114
_SHAPES = 16  # of which the stages are kept


class Prepared(NamedTuple):
    """A picture as a batch of one, (1, 3, H, W) float32, and where it lies there."""

    images: Float32Array
    placement: Placement


@dataclass(frozen=True)
class _Rectangle(Placement):
    """As the published evaluation goes back: one scale for both axes, halves of pixels of padding.

    ``height`` and ``width`` of the tensor are ``tensor_size``.
    """

    tensor_size: tuple[int, int] = (0, 0)

    @cached_property
    def _way_back(self) -> tuple[Float64Array, Float64Array, Float64Array]:
        height, width = self.tensor_size
        offset = ((width - self.resized_width) / 2, (height - self.resized_height) / 2)
        scale = (self.scale_y, self.scale_y)
        ways = (offset, scale, (self.width, self.height))
        back, scales, limit = (np.array(way * 2, np.float64) for way in ways)
        return back, scales, limit


def rectangle(height: int, width: int, side: int, stride: int) -> tuple[int, int]:
    """Height and width of the tensor for a picture, multiples of the stride."""
    ratio = height / width
    shares = (ratio, 1.0) if ratio < 1 else (1.0, 1 / ratio)
    tall, wide = (math.ceil(share * side / stride + 0.5) * stride for share in shares)
    return tall, wide


def prepare(image: ImageArray, side: int, stride: int) -> Prepared:
    """Prepare a picture (h, w, 3) uint8 BGR; ``side`` is the longer one in pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    new_width, new_height = max(1, int(width * scale)), max(1, int(height * scale))
    if scale != 1:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, (new_width, new_height), interpolation=how), np.uint8)
    size = rectangle(height, width, side, stride)
    top, left = (size[0] - new_height) // 2, (size[1] - new_width) // 2
    padded = np.full((*size, 3), _PAD, np.uint8)
    padded[top : top + new_height, left : left + new_width] = image
    levels = np.ascontiguousarray(padded[:, :, ::-1].transpose(2, 0, 1))
    tensor = np.divide(levels, np.float32(255), dtype=np.float32)
    place = _Rectangle(width, height, new_width, new_height, left, top, tensor_size=size)
    return Prepared(tensor[None], place)


def published_evaluation(
    bundle: Bundle, sources: Sequence[Path], config: Path | None
) -> PublishedEvaluation:
    """The evaluation of a bundle's source; ``sources`` and ``config`` as for a verification.

    Raises:
        InputError: the bundle is of another family, or its router is not its source's.
        DyninferError: a subclass; the source is not found, or cannot be read.
    """
    manifest = bundle.manifest
    if manifest.family != DYNAMICDET.name:
        raise InputError(
            f"protocol dynamicdet is for what export dynamicdet wrote, and {manifest.name} is of "
            f"the family {manifest.family}; use dyninfer eval without --protocol"
        )
    if manifest.deciders and bundle.router_record() is not None:
        raise InputError(
            f"stage {manifest.deciders[0]!r} was fitted to the bundle and is not in its source, so "
            "it cannot run on images of other sizes; use dyninfer eval without --protocol"
        )
    (checkpoint,) = find_sources(manifest, bundle.path, sources)
    return PublishedEvaluation(load_model(checkpoint, config), manifest)


class PublishedEvaluation:
    """Runs pictures as the published evaluation does.

    Args:
        model: the source of the bundle, unfolded.
        manifest: of the bundle; the longer side of its images is the evaluation's.
    """

    def __init__(self, model: DynamicDetector, manifest: Manifest) -> None:
        self._folded = fold(model)
        self._manifest = manifest
        self._plan = plan(manifest)
        spec = manifest.image_inputs[IMAGES]
        self.side = max(spec.height, spec.width)
        self.stride = max(model.plan.largest_stride, _LEAST_STRIDE)
        self._stages_for = lru_cache(_SHAPES)(self._build)

    def _build(self, size: tuple[int, int]) -> dict[str, SourceStage]:
        return {name: TorchStage(stage) for name, stage in build_stages(self._folded, size).items()}

    def trace(self, image: ImageArray) -> PictureTrace:
        """A picture (h, w, 3) uint8 BGR along every way."""
        images, placement = prepare(image, self.side, self.stride)
        stages = self._stages_for(images.shape[2:])
        entries = self._manifest.stages

        def run(name: str, tensors: Arrays) -> Arrays:
            made = stages[name].run([tensors[spec.name] for spec in entries[name].inputs])
            return dict(zip((spec.name for spec in entries[name].outputs), made, strict=True))

        found = trace(self._plan, ArrayRunner({IMAGES: images}, run), 1)
        picture = picture_of(self._manifest, found, image)
        return replace(
            picture, ways=tuple(replace(way, placement=placement) for way in picture.ways)
        )
