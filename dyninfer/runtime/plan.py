"""A manifest's route, worked out once when a bundle is opened: what runs, and what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dyninfer.bundle.manifest import Exit, Manifest
from dyninfer.engines.base import Engine


@dataclass(frozen=True)
class PlannedStage:
    """A stage, its engine, and the names of the tensors that it reads."""

    name: str
    engine: Engine[Any, Any]
    reads: frozenset[str]


@dataclass(frozen=True)
class PlannedExit:
    """An exit's stages, and what must be at hand for them and behind them.

    Attributes:
        body, router, head: its stages.
        images: the image inputs that they read, in the order of the stages.
        needed_after: names of the tensors that later exits read.
        image_input: the one whose pixels its boxes are in.
    """

    body: PlannedStage
    router: PlannedStage | None
    head: PlannedStage | None
    images: tuple[str, ...]
    needed_after: frozenset[str]
    image_input: str


def plan_route(
    manifest: Manifest, engines: Mapping[str, Engine[Any, Any]]
) -> tuple[PlannedExit, ...]:
    """The exits of a bundle whose stages were all opened."""

    def planned(name: str) -> PlannedStage:
        reads = frozenset(spec.name for spec in manifest.stages[name].inputs)
        return PlannedStage(name, engines[name], reads)

    return tuple(
        PlannedExit(
            body=planned(exit_.body),
            router=planned(exit_.router) if exit_.router else None,
            head=planned(exit_.head) if exit_.head else None,
            images=_images_of(exit_, manifest),
            needed_after=manifest.needed_from(index + 1),
            image_input=exit_.image_input,
        )
        for index, exit_ in enumerate(manifest.exits)
    )


def _images_of(exit_: Exit, manifest: Manifest) -> tuple[str, ...]:
    read = (spec.name for name in exit_.stages for spec in manifest.stages[name].inputs)
    return tuple(dict.fromkeys(name for name in read if name in manifest.image_inputs))
