"""A bundle's stages run one after the other on pictures, to see what each is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort.runtime import open_session, parse_device
from dyninfer.exporters.precision.ranges import Array, Feed
from dyninfer.images.reading import read_image
from dyninfer.types import ImageArray

Picture = Path | ImageArray
FileOf = Callable[[str], Path]


class StageRunner:
    """Runs stages on ONNX Runtime's CPU, each from the file it is told; sessions are kept."""

    def __init__(self, bundle: Bundle, files: Mapping[str, Path] | None = None) -> None:
        self.bundle = bundle
        self._files = dict(files or {})
        self._sessions: dict[str, Any] = {}

    def run(self, stage: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The stage's outputs for its inputs (1, ...), which ``tensors`` hold among others."""
        if stage not in self._sessions:
            path = self._files.get(stage) or self.bundle.stage_path(stage)
            self._sessions[stage] = open_session(path, parse_device("cpu", None), False)
        entry = self.bundle.manifest.stages[stage]
        names = [spec.name for spec in entry.outputs]
        found = self._sessions[stage].run(names, {s.name: tensors[s.name] for s in entry.inputs})
        return dict(zip(names, found, strict=True))

    def prepare(self, picture: Picture) -> dict[str, Array]:
        """Every image input (1, 3, H, W) of a picture (h, w, 3) uint8 BGR, or of its file."""
        image = read_image(picture) if isinstance(picture, Path) else picture
        inputs = self.bundle.manifest.image_inputs
        return {name: spec.prepare(image)[None] for name, spec in inputs.items()}

    def makers_of(self, stage: str) -> list[str]:
        """The stages whose outputs a stage depends on, in the order they run."""
        entries = self.bundle.manifest.stages
        wanted = {spec.name for spec in entries[stage].inputs}
        makers: list[str] = []
        order = [name for exit_ in self.bundle.manifest.exits for name in exit_.stages]
        for name in reversed(order[: order.index(stage)]):
            if wanted & {spec.name for spec in entries[name].outputs}:
                makers.append(name)
                wanted |= {spec.name for spec in entries[name].inputs}
        return makers[::-1]


def stage_feed(runner: StageRunner, stage: str, pictures: Sequence[Picture]) -> Feed:
    """A stage's real inputs: what the stages before it make of every picture, one at a time."""
    makers = runner.makers_of(stage)
    names = [spec.name for spec in runner.bundle.manifest.stages[stage].inputs]

    def feed() -> Iterator[dict[str, Array]]:
        for picture in pictures:
            tensors = runner.prepare(picture)
            for maker in makers:
                tensors |= runner.run(maker, tensors)
            yield {name: tensors[name] for name in names}

    return feed
