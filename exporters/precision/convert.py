"""Every stage of a bundle in the precision that was planned for it, as files in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import ModelProto

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.errors import BundleError, ExportError, InputError
from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.fp16 import half_around_int8, to_fp16
from dyninfer.exporters.precision.graph import float_tensors, opened
from dyninfer.exporters.precision.int8 import observe_stage, prepare_int8
from dyninfer.exporters.precision.ranges import Feed, observe
from dyninfer.exporters.precision.sensitivity import Choice, quantise_within
from dyninfer.exporters.precision.settings import CALIBRATING, SEARCHING, Int8Settings
from dyninfer.images.pictures import PathOrImage, read_image
from dyninfer.runtime.plan import steps_before
from dyninfer.types import AnyArray, ImageArray

SETTINGS = Int8Settings()


@dataclass(frozen=True)
class ConvertedStage:
    """A stage's file in the precision that was asked for.

    It is the bundle's own where nothing was to be changed. ``kept_float`` are the layers that
    are not in 8 bits for accuracy.
    """

    precision: Precision
    path: Path
    sha256: str
    kept_float: tuple[str, ...] = ()


def convert_bundle_stages(
    bundle: Bundle,
    plan: Mapping[str, Precision],
    calibration_images: Sequence[PathOrImage],
    folder: Path,
    settings: Int8Settings = SETTINGS,
) -> dict[str, ConvertedStage]:
    """Convert stages and write each as ``<stage>.onnx`` into ``folder``.

    Ranges are taken from what every stage really reads: the bundle's stages before it run in
    float32 on the calibration pictures. A stage that has the planned precision already, or holds
    nothing that could be converted, keeps the bundle's own file.

    Args:
        bundle: with its stages in float32.
        plan: stage -> precision, of those of the bundle; stages left out stay as they are.
        calibration_images: files, or (h, w, 3) uint8 BGR arrays; int8 needs at least one, and some
            hundred are usual. Float16 uses them to find values beyond its range; without any, it
            uses what :func:`range_pictures` makes.
        folder: where files go; after an error it may hold some of them.
        settings: of int8.

    Returns:
        One entry for every stage of the plan, in the bundle's order.

    Raises:
        InputError: int8 is planned without pictures.
        BundleError: a stage is in another precision than float32 already.
        ExportError: a stage cannot be converted; the message says why.
    """
    _check_plan(bundle, plan, calibration_images)
    runner = PlainStages(bundle)
    converted: dict[str, ConvertedStage] = {}
    for name, entry in bundle.manifest.stages.items():
        if name not in plan:
            continue
        made = None
        if entry.precision is not plan[name]:
            made = _convert(runner, name, plan[name], calibration_images, settings)
        if made is None:
            own = bundle.stage_path(name)
            converted[name] = ConvertedStage(entry.precision, own, entry.sha256)
            continue
        path = folder / f"{name}.onnx"
        path.write_bytes(made.model.SerializeToString())
        converted[name] = ConvertedStage(plan[name], path, file_sha256(path), made.kept)
    return converted


def _check_plan(
    bundle: Bundle, plan: Mapping[str, Precision], pictures: Sequence[PathOrImage]
) -> None:
    for name, wanted in plan.items():
        found = bundle.manifest.stages[name].precision
        if found not in (wanted, Precision.FP32):
            raise BundleError(
                f"stage {name!r} of {bundle.path} is in {found.value} already, as what it was "
                f"exported from, and cannot become {wanted.value}; export from a file in fp32"
            )
        if wanted is Precision.INT8 and found is not wanted and not pictures:
            raise InputError(
                f"stage {name!r} in int8 needs calibration pictures and none were given; "
                "give some hundreds like those to be run later"
            )


def _convert(
    runner: PlainStages,
    name: str,
    precision: Precision,
    pictures: Sequence[PathOrImage],
    settings: Int8Settings,
) -> Choice | None:
    """The converted stage, or None where nothing in it could be converted."""
    with runner.bundle.opening(name) as path:
        model = onnx.load(path)
    feed = stage_feed(runner, name, pictures or range_pictures(runner.bundle.manifest))
    try:
        if precision is Precision.FP16:
            half = to_fp16(model, _largest(opened(model), feed))
            return Choice(half) if half else None
        choice = _to_int8(name, model, feed, len(pictures), settings)
    except ExportError as error:
        raise ExportError(f"stage {name!r} cannot be in {precision.value}: {error}") from error
    changed = any(node.op_type == "QuantizeLinear" for node in choice.model.graph.node)
    return choice if changed else None


def _to_int8(
    name: str, model: ModelProto, feed: Feed, steps: int, settings: Int8Settings
) -> Choice:
    prepared = prepare_int8(model)
    done = count(1)

    def tick() -> None:
        settings.progress(CALIBRATING + name, next(done), steps)

    observed = observe_stage(prepared, feed, settings, tick)
    samples = list(islice(feed(), settings.search_samples))
    search = partial(settings.progress, SEARCHING + name)
    choice = quantise_within(prepared, observed, samples, settings, search)
    if not settings.half:
        return choice
    return replace(choice, model=half_around_int8(choice.model, _largest(prepared, feed)))


def _largest(stage: ir.Model, feed: Feed) -> dict[str, float]:
    """Largest magnitude that every float32 tensor of a stage was seen to hold."""
    tensors = float_tensors(stage.graph)
    seen = observe(closed(stage), tensors, feed, histograms=False)
    return {name: tensor.largest for name, tensor in seen.items()}


def range_pictures(manifest: Manifest) -> list[ImageArray]:
    """Pictures that show how large a stage's values become where there are no real ones.

    Black, white, noise of every pixel for itself and noise in coarse blocks, (h, w, 3) uint8 in the
    size of the largest image input.
    """
    spec = max(manifest.image_inputs.values(), key=lambda spec: spec.height * spec.width)
    shape, rng = (spec.height, spec.width, 3), np.random.default_rng(0)
    blocks = rng.integers(0, 256, (-(-spec.height // 32), -(-spec.width // 32), 3), np.uint8)
    coarse = np.kron(blocks, np.ones((32, 32, 1), np.uint8))[: spec.height, : spec.width]
    fine = rng.integers(0, 256, shape, np.uint8)
    return [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), fine, coarse]


def read_picture(picture: PathOrImage) -> ImageArray:
    """(h, w, 3) uint8 BGR; a file is read."""
    return read_image(picture) if isinstance(picture, Path) else picture


def stage_feed(stages: PlainStages, stage: str, pictures: Sequence[PathOrImage]) -> Feed:
    """A stage's real inputs: what the stages before it make of every picture, one at a time."""
    manifest = stages.bundle.manifest
    names = [spec.name for spec in manifest.stages[stage].inputs]
    steps = steps_before(manifest, stage)
    read = {*names, *(name for step in steps for name in step.images)}
    specs = {name: spec for name, spec in manifest.image_inputs.items() if name in read}

    def feed() -> Iterator[dict[str, AnyArray]]:
        for picture in pictures:
            image = read_picture(picture)
            tensors = {name: spec.prepare(image)[None] for name, spec in specs.items()}
            for step in steps:
                tensors |= stages.run(step.stage, tensors)
            yield {name: tensors[name] for name in names}

    return feed
