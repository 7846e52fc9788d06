"""What ``bundle.json`` says, as validated and immutable models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dyninfer.images.spec import ImageSpec
from dyninfer.spans import RESERVED

SCHEMA_VERSION = 1
BATCH_AXIS = "batch"
EASINESS = "easiness"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(str, Enum):
    """What the heads of a bundle compute."""

    DETECT = "detect"
    CLASSIFY = "classify"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs with which every exit ends."""
        return ("logits",) if self is Task.CLASSIFY else ("boxes_xyxy", "class_scores")


class TensorSpec(_Model):
    """Name, element type and shape of a tensor; a named axis is dynamic."""

    name: str
    dtype: Literal["float32", "float16"]
    shape: tuple[int | str, ...]

    def shape_for(self, batch: int) -> tuple[int, ...] | None:
        """The shape at this batch size, or None where another axis is dynamic too."""
        shape = tuple(batch if axis == BATCH_AXIS else axis for axis in self.shape)
        return None if any(isinstance(axis, str) for axis in shape) else shape  # type: ignore[return-value]  # no str is left

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


class Precision(str, Enum):
    """The arithmetic of a stage's weights and activations."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Stage(_Model):
    """One file of a bundle: a body, a head or a router.

    ``rows_per_run`` is 1 for a file that takes one image at a time, whatever its TensorSpecs'
    batch axis says: a backend then runs it once for each row. None: any batch.
    """

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)]
    precision: Precision = Precision.FP32
    rows_per_run: Literal[1] | None = None

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", file) or not file:
            raise ValueError(f"the file name {file!r} leaves the bundle's folder")
        return file


class Exit(_Model):
    """Where images may leave: a body, its router (but for the last exit), its head (or none)."""

    body: str
    router: str | None = None
    head: str | None = None
    image_input: str = "images"

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages of this exit, in the order they run."""
        return tuple(name for name in (self.body, self.router, self.head) if name)


class CascadeRoute(_Model):
    """Images leave at the first exit whose easiness reaches the threshold."""

    kind: Literal["cascade"] = "cascade"
    exits: Annotated[tuple[Exit, ...], Field(min_length=2)]


class StaticRoute(_Model):
    """One exit and no router: an ordinary detector."""

    kind: Literal["static"] = "static"
    exits: Annotated[tuple[Exit, ...], Field(min_length=1, max_length=1)]


Route = Annotated[CascadeRoute | StaticRoute, Field(discriminator="kind")]


class Source(_Model):
    """Where the weights came from."""

    file_name: str
    sha256: str
    licence: str | None = None
    config_file_name: str | None = None


class Manifest(_Model):
    """Everything a runtime must know about a bundle.

    Stages are wired by name: an input of a stage is either one of ``image_inputs`` or an output
    of the same name of a stage that runs before it. ``further_sources`` are the files beside
    ``source`` that a bundle of several models was made from.
    """

    schema_version: Literal[1] = 1
    name: str
    family: str
    task: Task
    class_names: tuple[str, ...]
    route: Route
    stages: Mapping[str, Stage]
    image_inputs: Mapping[str, ImageSpec]
    source: Source
    further_sources: tuple[Source, ...] = ()
    written_by: str

    @property
    def exits(self) -> tuple[Exit, ...]:
        """The exits in the order they are reached."""
        return self.route.exits

    @property
    def has_routers(self) -> bool:
        """Whether every exit but the last has a router."""
        return all(exit_.router for exit_ in self.exits[:-1])

    @model_validator(mode="after")
    def _wiring(self) -> Manifest:
        available: dict[str, TensorSpec] = {}
        names = [name for exit_ in self.exits for name in exit_.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the route names a stage twice: {', '.join(names)}")
        if clash := RESERVED & set(names):
            raise ValueError(f"a stage is called {min(clash)!r}, as a step of the runtime is")
        for exit_ in self.exits:
            if exit_.image_input not in self.image_inputs:
                raise ValueError(f"image input {exit_.image_input!r} is not described")
            for name in exit_.stages:
                self._check_stage(name, available)
            if exit_.router and EASINESS not in {s.name for s in self.stages[exit_.router].outputs}:
                raise ValueError(f"router {exit_.router!r} has no output {EASINESS!r}")
            final = self.stages[exit_.head or exit_.body]
            ends = {spec.name for spec in final.outputs}
            if missing := set(self.task.outputs) - ends:
                raise ValueError(
                    f"stage {exit_.head or exit_.body!r} ends in {sorted(ends)}, "
                    f"without {sorted(missing)}"
                )
            self._check_classes(final)
        return self

    def _check_classes(self, final: Stage) -> None:
        """The last output of an exit has one column for every class name."""
        columns = next(s.shape[-1] for s in final.outputs if s.name == self.task.outputs[-1])
        if isinstance(columns, int) and columns != len(self.class_names):
            raise ValueError(
                f"there are {len(self.class_names)} class names for {columns} columns of "
                f"{self.task.outputs[-1]}"
            )

    def _check_stage(self, name: str, available: dict[str, TensorSpec]) -> None:
        if name not in self.stages:
            raise ValueError(f"the route names a stage {name!r} that is not there")
        stage = self.stages[name]
        for spec in stage.inputs:
            made = available.get(spec.name)
            image = self.image_inputs.get(spec.name)
            if made is None and image is None:
                raise ValueError(f"nothing before stage {name!r} makes its input {spec.name!r}")
            if image is not None and spec.shape[1:] != (3, image.height, image.width):
                raise ValueError(
                    f"stage {name!r} expects {spec}, but the image input is "
                    f"{image.height}x{image.width}"
                )
            if made is not None and (made.dtype, made.shape) != (spec.dtype, spec.shape):
                raise ValueError(f"stage {name!r} expects {spec}, an earlier stage makes {made}")
        available |= {spec.name: spec for spec in stage.outputs}

    def needed_from(self, exit_index: int) -> frozenset[str]:
        """Names of the tensors that stages of this exit and later ones read."""
        return frozenset(
            spec.name
            for exit_ in self.exits[exit_index:]
            for name in exit_.stages
            for spec in self.stages[name].inputs
        )

    def macs_to_exit(self, exit_index: int) -> int:
        """Multiply-accumulates of an image that leaves at this exit."""
        before = self.exits[:exit_index]
        names = [name for exit_ in before for name in (exit_.body, exit_.router) if name]
        return sum(self.stages[name].macs for name in (*names, *self.exits[exit_index].stages))
