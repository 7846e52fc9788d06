"""What ``bundle.json`` says, as validated and immutable models."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from dyninfer.bundle.documents import Frozen
from dyninfer.images.spec import ImageSpec
from dyninfer.plain_text import counted
from dyninfer.results.tasks import MAPS, TASKS, Options, TaskKind, check_options
from dyninfer.spans import RESERVED
from dyninfer.types import AnyArray

SCHEMA_VERSION: Literal[2] = 2
BATCH_AXIS = "batch"
EASINESS = "easiness"
"""What a router says of an image, (N,) or (N, 1) in [0, 1]."""
CHOICE_SCORES = "choice_scores"
"""What a chooser says of an image, (N, branches); the largest wins."""


MAP_AXES = 4
_END_AXES = {"boxes_xyxy": 3, "class_scores": 3, "logits": 2, **dict.fromkeys(MAPS, MAP_AXES)}


class Task(str, Enum):
    """What the heads of a bundle compute."""

    DETECT = "detect"
    CLASSIFY = "classify"
    FEATURES = "features"

    @property
    def kind(self) -> TaskKind:
        """What is done for this task."""
        return TASKS[self.value]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in which every way ends."""
        return self.kind.outputs


class TensorSpec(Frozen):
    """Name, element type and shape of a tensor; a named axis is dynamic.

    Only an image input may be ``uint8``: pixels as they are, which the stage normalises itself. For
    maps in 8 bits there is :class:`QuantisedSpec`.
    """

    name: str
    dtype: Literal["float32", "float16", "uint8"]
    shape: tuple[int | str, ...]

    def shape_for(self, batch: int) -> tuple[int, ...] | None:
        """The shape at this batch size, or None where another axis is dynamic too."""
        shape = tuple(batch if axis == BATCH_AXIS else axis for axis in self.shape)
        return None if any(isinstance(axis, str) for axis in shape) else shape  # type: ignore[return-value]  # no str is left

    def taken(self, array: AnyArray) -> AnyArray:
        """Numbers in float32 in the type in which they travel."""
        return array.astype(self.dtype, copy=False)

    def meant(self, array: AnyArray) -> AnyArray:
        """What travels as the numbers that it stands for."""
        return array

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


class EightBits(Frozen):
    """What 8-bit numbers stand for: ``scale * (number - zero_point)``.

    With ``channels_last`` a map is (N, H, W, C), and not (N, C, H, W).
    """

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    zero_point: Annotated[int, Field(ge=0, le=255)]
    channels_last: bool = False


class QuantisedSpec(TensorSpec):
    """A map that travels in 8 bits; a build's, never one of a bundle's own manifest."""

    bits: EightBits

    def taken(self, array: AnyArray) -> AnyArray:
        """Numbers in float32 (N, C, H, W) as they travel, rounded as ONNX's QuantizeLinear does."""
        numbers = np.rint(array / np.float32(self.bits.scale)) + self.bits.zero_point
        rounded: AnyArray = np.clip(numbers, 0, 255).astype(np.uint8)
        if self.bits.channels_last:
            rounded = np.ascontiguousarray(np.moveaxis(rounded, 1, -1))
        return rounded

    def meant(self, array: AnyArray) -> AnyArray:
        """What travels as the numbers in float32 (N, C, H, W) that it stands for."""
        planes = np.moveaxis(array, -1, 1) if self.bits.channels_last else array
        steps: AnyArray = planes.astype(np.float32, order="C") - np.float32(self.bits.zero_point)
        steps *= np.float32(self.bits.scale)
        return steps


class Precision(str, Enum):
    """The arithmetic of a stage's weights and activations.

    No file has ``BF16``: a library computes in it with a file in float32.
    """

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


class StoredFile(Frozen):
    """A file of a bundle, by its path in the bundle's folder."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\0]", file) or not file:
            raise ValueError(f"the file name {file!r} leaves the bundle's folder")
        return file


class Stage(StoredFile):
    """One file of a bundle: a body, a head or a router.

    ``rows_per_run`` is 1 for a file that takes one image at a time, whatever its TensorSpecs'
    batch axis says: a backend then runs it once for each row. None: any batch. ``weights`` is a
    file beside it with tensors that it shares with other stages; ``parameters`` counts them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parameters: Annotated[int, Field(ge=0)]
    macs: Annotated[int, Field(ge=0)]
    precision: Precision = Precision.FP32
    rows_per_run: Literal[1] | None = None
    weights: StoredFile | None = None

    @model_validator(mode="after")
    def _weights_beside(self) -> Stage:
        own = PurePosixPath(self.file)
        if self.weights and PurePosixPath(self.weights.file).parent != own.parent:
            raise ValueError(f"the weights {self.weights.file!r} do not lie beside {self.file!r}")
        return self

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All that it consists of."""
        return (self,) if self.weights is None else (self, self.weights)


class Way(Frozen):
    """One complete path of an image: a body, and its head (or none, if the body ends in results).

    ``image_input`` is the image input in whose pixels boxes are.
    """

    body: str
    head: str | None = None
    image_input: str = "images"

    @property
    def final(self) -> str:
        """The stage that makes the results."""
        return self.head or self.body

    @property
    def parts(self) -> dict[str, str]:
        """The names of its stages by what they are, in the order they run."""
        named = {"body": self.body, "router": getattr(self, "router", None), "head": self.head}
        return {part: name for part, name in named.items() if name}


class Exit(Way):
    """A way of a cascade: where images may leave. The last exit has no router."""

    router: str | None = None


class StaticRoute(Way):
    """One way and no decision: an ordinary detector or classifier."""

    kind: Literal["static"] = "static"


class CascadeRoute(Frozen):
    """Images leave at the first exit whose easiness reaches the threshold."""

    kind: Literal["cascade"] = "cascade"
    exits: Annotated[tuple[Exit, ...], Field(min_length=2)]


class SelectRoute(Frozen):
    """A chooser gives every branch a score, and an image takes the branch of the largest.

    Branches stand in any order: which of them is cheap, their multiply-accumulates tell. They
    read image inputs, not what the chooser makes. Until a chooser is fitted there is none; then
    they stand by their cost, and every image takes the last, dearest one unless told otherwise.
    """

    kind: Literal["select"] = "select"
    chooser: str | None = None
    branches: Annotated[tuple[Way, ...], Field(min_length=2)]


Route = Annotated[CascadeRoute | StaticRoute | SelectRoute, Field(discriminator="kind")]


class Source(Frozen):
    """Where the weights came from."""

    file_name: str
    sha256: str
    licence: str | None = None
    config_file_name: str | None = None


Setting = str | int | tuple[int, ...]
"""What a family was told, or has found out."""
WEIGHTS, RANDOM = "weights", "random"
"""The setting of a bundle whose weights nobody has trained, and its value."""


class Manifest(Frozen):
    """Everything a runtime must know about a bundle.

    Stages are wired by name: an input of a stage is either one of ``image_inputs`` or an output
    of the same name of a body that runs before it on the same way. ``postprocess`` and
    ``evaluation`` are the family's own thresholds for use and for its published evaluation; None
    for those of the task. ``further_sources`` are the files beside ``source`` that a bundle of
    several models was made from; ``settings`` is what a family needs beside them to build its
    source again, by name.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    name: str
    family: str
    task: Task
    class_names: tuple[str, ...]
    route: Route
    stages: Mapping[str, Stage]
    image_inputs: Mapping[str, ImageSpec]
    postprocess: Options | None = None
    evaluation: Options | None = None
    source: Source
    further_sources: tuple[Source, ...] = ()
    settings: Mapping[str, Setting] = {}
    written_by: str

    @model_validator(mode="before")
    @classmethod
    def _from_schema_1(cls, payload: object) -> object:
        """Schema 1 had cascades and static routes, both as a list of exits."""
        if not isinstance(payload, dict) or payload.get("schema_version") != 1:
            return payload
        new = {**payload, "schema_version": SCHEMA_VERSION}
        match payload.get("route"):
            case {"kind": "static", "exits": [{**only}]}:
                kept = {key: only[key] for key in only if (key, only[key]) != ("router", None)}
                new["route"] = {"kind": "static", **kept}
        return new

    @property
    def use_options(self) -> Options:
        """What postprocessing is told where the caller says nothing."""
        return self.postprocess or self.task.kind.defaults

    @property
    def evaluation_options(self) -> Options:
        """What postprocessing is told where accuracy is measured."""
        return self.evaluation or self.task.kind.evaluation

    @property
    def random_weights(self) -> bool:
        """Whether nobody has trained it: it is for work on latency, its results mean nothing."""
        return self.settings.get(WEIGHTS) == RANDOM

    @property
    def ways(self) -> tuple[Way, ...]:
        """Every way of the route; results count them as ``exit_index``."""
        if isinstance(self.route, StaticRoute):
            return (self.route,)
        return self.route.exits if isinstance(self.route, CascadeRoute) else self.route.branches

    @property
    def ways_by_cost(self) -> tuple[int, ...]:
        """The ways, the cheapest first; those of a cascade as they stand, each goes on further."""
        ways = range(len(self.ways))
        chosen = isinstance(self.route, SelectRoute)
        return tuple(sorted(ways, key=self.macs_to) if chosen else ways)

    @property
    def way_names(self) -> tuple[str, ...]:
        """What each way is called: ``exit 0``, or ``branch 0`` of a select route."""
        place = "branch" if isinstance(self.route, SelectRoute) else "exit"
        return tuple(f"{place} {index}" for index in range(len(self.ways)))

    @property
    def hardest_name(self) -> str:
        """What the way that hard images take is called in sentences."""
        hardest = self.ways_by_cost[-1]
        if isinstance(self.route, SelectRoute):
            return f"{self.way_names[hardest]}, the dearest,"
        return "the last exit"

    @property
    def _decisions(self) -> tuple[str | None, ...]:
        """The stage whose output decides, wherever the route does; None where it is missing."""
        if isinstance(self.route, CascadeRoute):
            return tuple(exit_.router for exit_ in self.route.exits[:-1])
        return (self.route.chooser,) if isinstance(self.route, SelectRoute) else ()

    @property
    def deciders(self) -> tuple[str, ...]:
        """Names of the stages whose output decides: routers, or the chooser."""
        return tuple(name for name in self._decisions if name)

    @property
    def routed(self) -> bool:
        """Whether the route has decisions and a stage for each of them."""
        return bool(self._decisions) and all(self._decisions)

    @property
    def roles(self) -> dict[str, str]:
        """The route's stages in the order they run, and what each is: ``body of exit 0``."""
        return dict(self._roles())

    @property
    def opening_order(self) -> list[str]:
        """The route's stages, those with the fewest parameters first.

        The next file is hashed while one is opened: nothing is there to open while the first is.
        """
        return sorted(self.roles, key=lambda name: self.stages[name].parameters)

    def _roles(self) -> Iterator[tuple[str, str]]:
        if isinstance(self.route, SelectRoute) and self.route.chooser:
            yield self.route.chooser, "chooser"
        for place, way in zip(self.way_names, self.ways, strict=True):
            for part, name in way.parts.items():
                yield name, f"{part} of {place}"

    @cached_property
    def image_tensors(self) -> Mapping[str, TensorSpec]:
        """The image inputs that stages of the route read, in the order they are needed."""
        read = (spec for name in self.roles for spec in self.stages[name].inputs)
        return {spec.name: spec for spec in read if spec.name in self.image_inputs}

    @property
    def pixels(self) -> int:
        """Pixels of all image inputs together, for one image."""
        return sum(spec.height * spec.width for spec in self.image_inputs.values())

    @model_validator(mode="after")
    def _wiring(self) -> Manifest:
        names = [name for name, _ in self._roles()]
        if len(set(names)) < len(names):
            raise ValueError(f"the route names a stage twice: {', '.join(names)}")
        if clash := RESERVED & set(names):
            raise ValueError(f"a stage is called {min(clash)!r}, as a step of the runtime is")
        for options in (self.postprocess, self.evaluation):
            if options is not None:
                check_options(self.task.kind, options, self.name)
        made: dict[str, TensorSpec] = {}
        if isinstance(self.route, SelectRoute) and self.route.chooser:
            self._check_stage(self.route.chooser, made)
            self._check_signal(self.route.chooser, CHOICE_SCORES)
        if not self.deciders and list(self.ways_by_cost) != sorted(self.ways_by_cost):
            raise ValueError("without a chooser, branches stand by their cost, the cheapest first")
        for way in self.ways:
            if isinstance(self.route, SelectRoute):
                made = {}  # an image takes one branch, so no other's tensors are there
            self._check_way(way, made)
        return self

    def _check_way(self, way: Way, made: dict[str, TensorSpec]) -> None:
        """A way is wired and ends in its task's outputs; ``made`` grows by what its body makes."""
        if way.image_input not in self.image_inputs:
            raise ValueError(f"image input {way.image_input!r} is not described")
        self._check_stage(way.body, made)
        made |= {spec.name: spec for spec in self.stages[way.body].outputs}
        if isinstance(way, Exit) and way.router:
            self._check_stage(way.router, made)
            self._check_signal(way.router, EASINESS)
        if way.head:
            self._check_stage(way.head, made)
        final = self.stages[way.final]
        ends = {spec.name for spec in final.outputs}
        if missing := set(self.task.outputs) - ends:
            raise ValueError(
                f"stage {way.final!r} ends in {sorted(ends)}, without {sorted(missing)}"
            )
        self._check_ends(final)

    def _check_signal(self, decider: str, signal: str) -> None:
        found = next((s for s in self.stages[decider].outputs if s.name == signal), None)
        if found is None:
            raise ValueError(f"stage {decider!r} decides and has no output {signal!r}")
        if signal == CHOICE_SCORES and found.shape[1:] != (len(self.ways),):
            raise ValueError(f"there are {len(self.ways)} branches for {found} of {decider!r}")

    def _check_ends(self, final: Stage) -> None:
        """Outputs of a way have as many axes as they should, the last a column for every class."""
        ends = {spec.name: spec for spec in final.outputs if spec.name in self.task.outputs}
        for name, spec in ends.items():
            if len(spec.shape) != _END_AXES[name]:
                raise ValueError(f"a way ends in {spec}, expected {_END_AXES[name]} axes")
        if self.task is Task.FEATURES:
            if self.class_names:
                raise ValueError("a backbone has class names, expected none")
            return
        columns = ends[self.task.outputs[-1]].shape[-1]
        if isinstance(columns, int) and columns != len(self.class_names):
            raise ValueError(
                f"there are {counted(len(self.class_names), 'class name')} for {columns} columns "
                f"of {self.task.outputs[-1]}"
            )

    def _check_stage(self, name: str, made: Mapping[str, TensorSpec]) -> None:
        """A stage is there, and reads what there is when it runs, as it is."""
        if name not in self.stages:
            raise ValueError(f"the route names a stage {name!r} that is not there")
        for spec in self.stages[name].outputs:
            if spec.dtype == "uint8" and not self._is_quantised_map(spec):
                raise ValueError(f"stage {name!r} makes {spec}, expected float32 or float16")
        for spec in self.stages[name].inputs:
            earlier = made.get(spec.name)
            image = self.image_inputs.get(spec.name)
            if earlier is None and image is None:
                raise ValueError(f"nothing before stage {name!r} makes its input {spec.name!r}")
            pixels = image is not None and not isinstance(spec, QuantisedSpec)
            if spec.dtype == "uint8" and not (pixels or self._is_quantised_map(spec)):
                raise ValueError(f"stage {name!r} expects {spec}, which no image input is")
            if image is not None and spec.shape[1:] != (3, image.height, image.width):
                raise ValueError(
                    f"stage {name!r} expects {spec}, but the image input is "
                    f"{image.height}x{image.width}"
                )
            if earlier is not None and (earlier.dtype, earlier.shape) != (spec.dtype, spec.shape):
                raise ValueError(f"stage {name!r} expects {spec}, an earlier stage makes {earlier}")

    def _is_quantised_map(self, spec: TensorSpec) -> bool:
        """Whether 8 bits are those of a map that no caller gives or gets."""
        inside = spec.name not in self.image_inputs and spec.name not in self.task.outputs
        return isinstance(spec, QuantisedSpec) and len(spec.shape) == MAP_AXES and inside

    def stages_to(self, way: int) -> tuple[str, ...]:
        """Names of the stages that run for an image that takes this way, deciders included."""
        before = [*self.deciders] if isinstance(self.route, SelectRoute) else []
        if isinstance(self.route, CascadeRoute):
            earlier = (exit_.parts.items() for exit_ in self.route.exits[:way])
            before = [name for parts in earlier for part, name in parts if part != "head"]
        return (*before, *self.ways[way].parts.values())

    def macs_to(self, way: int) -> int:
        """Multiply-accumulates of an image that takes this way."""
        return sum(self.stages[name].macs for name in self.stages_to(way))
