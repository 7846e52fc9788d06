"""What a stage of a bundle is given: what the stages before it make of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dyninfer.engines.ort.plain import PlainStages
from dyninfer.exporters.precision.ranges import Feed
from dyninfer.images.reading import read_image
from dyninfer.runtime.plan import steps_before
from dyninfer.types import AnyArray, ImageArray

Picture = Path | ImageArray


def read_picture(picture: Picture) -> ImageArray:
    """(h, w, 3) uint8 BGR; a file is read."""
    return read_image(picture) if isinstance(picture, Path) else picture


def stage_feed(stages: PlainStages, stage: str, pictures: Sequence[Picture]) -> Feed:
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
