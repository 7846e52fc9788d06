"""Builds: what a bundle's stages were turned into for one backend, device and precision.

A build lives in ``BUNDLE/engines/<fingerprint>/`` with a sealed ``build.json``. The fingerprint
covers everything that must be equal for a build to be used; what differs is built anew, never
trusted. Files are opened only from the bundle's own folder and only if their hashes fit.

A precision for every stage is written as a user writes it: ``int8,router=fp32,second=fp16``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dyninfer.builds.gate import GateRecord
from dyninfer.bundle.documents import Frozen, first_problem, load_sealed
from dyninfer.bundle.inside import CheckedFile, inside
from dyninfer.bundle.manifest import EightBits, Manifest, Precision, QuantisedSpec, TensorSpec
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import BundleError, InputError
from dyninfer.types import shown

ENGINES_FOLDER = "engines"
BUILD_FILE = "build.json"
BUILD_PARITY_FILE = "parity.json"
SCHEMA_VERSION: Literal[1] = 1
VERSION_COMPATIBLE = "version_compatible"
"""Option of a build: engines run on later versions of TensorRT as well."""
HARDWARE_COMPATIBLE = "hardware_compatible"
"""Option of a build: engines run on every GPU from :data:`FIRST_COMPATIBLE` on."""
FIRST_COMPATIBLE = (8, 0)
INPUT = "input"
"""Option of a build: the element type of image inputs, "uint8" where they are not float32."""
IO = "io"
"""Option of a build: "fp16" where feature maps travel between stages in float16, "int8" where they
travel in 8 bits. With "fp16" what surrounds 8 bits within a stage of TensorRT's is in float16, too.
"""
TRAVEL = (INPUT, IO)
JOINED = "joined"
"""Option of a build: "auto" where ``build --backend auto`` has put stages of others together."""
FOR_OPENVINO = "int8_for_openvino"
"""Option of a build: the stages whose 8 bits are placed for OpenVINO, "first,second", and not for
ONNX Runtime. Either opens both, and is slower with the other's."""
Travelling = Literal["uint8", "float16"] | EightBits
"""What a tensor is between stages, if it is not what the bundle's is."""
BackendName = Literal["onnxruntime", "tensorrt", "tensorrt-rtx"]
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_FileName = Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]


class BuildTarget(Frozen):
    """What engines were built for.

    Attributes:
        compute_capabilities: those of the GPUs they run on, as "8.6".
        system: the operating system and the processor's architecture, as "Linux x86_64".
        gpu_name: the GPU they were built on; None where they were built without one.
        multiprocessors: of that GPU, which tell apart GPUs of one name: all Orins are "Orin".
        memory_gib: of that GPU, in whole GiB.
    """

    compute_capabilities: Annotated[tuple[str, ...], Field(min_length=1)]
    system: str
    gpu_name: str | None = None
    multiprocessors: int | None = None
    memory_gib: int | None = None

    def __str__(self) -> str:
        capabilities = ", ".join(f"sm{c.replace('.', '')}" for c in self.compute_capabilities)
        if self.gpu_name is None:
            return f"{capabilities}, {self.system}, built without a GPU"
        return (
            f"{self.gpu_name} ({capabilities}, {self.multiprocessors} multiprocessors, "
            f"{self.memory_gib} GiB), {self.system}"
        )


def this_system() -> str:
    """Operating system and architecture of this machine; engines run on no other."""
    return f"{platform.system()} {platform.machine()}"


class BuildSpec(Frozen):
    """Everything that must be equal for a build to be used, and nothing else.

    Attributes:
        backend: the one that opens the files.
        library_version: that of TensorRT; None for ONNX Runtime, which reads files of any version.
        target: the devices to build for; None for ONNX Runtime, whose files run anywhere.
        batch: sizes that engines take; None where the files take any.
        precision: that of every stage.
        stages_sha256: the hashes of the bundle's own ONNX files.
        options: further choices that change an engine, by their names.
    """

    backend: BackendName
    library_version: str | None = None
    target: BuildTarget | None = None
    batch: BatchProfile | None = None
    precision: Mapping[str, Precision]
    stages_sha256: Mapping[str, _Sha256]
    options: Mapping[str, str] = Field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON of all fields, as hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """The start of the fingerprint, which names the build's folder."""
        return self.fingerprint[:16]


class BuiltFile(Frozen):
    """A file of a build, by name within its folder."""

    file: _FileName
    sha256: _Sha256
    size: Annotated[int, Field(ge=0)]


class BuiltStage(Frozen):
    """What a stage became.

    Attributes:
        onnx: the converted ONNX file; None where the bundle's own was used.
        engine: the TensorRT engine; None for ONNX Runtime.
        build_seconds: how long the engine took to build.
    """

    onnx: BuiltFile | None = None
    engine: BuiltFile | None = None
    build_seconds: Annotated[float, Field(ge=0)] = 0.0


class Conversion(Frozen):
    """How stages got a lower precision; not part of the fingerprint.

    Attributes:
        method: what chose the ranges of int8, such as "entropy"; None without int8.
        images_sha256: hash of the sorted hashes of the pictures the ranges were taken from.
        image_count: how many pictures these were.
        kept_high: stage -> layers that are not in 8 bits for accuracy.
    """

    method: str | None = None
    images_sha256: str | None = None
    image_count: Annotated[int, Field(ge=0)] = 0
    kept_high: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class Build(Frozen):
    """What ``build.json`` says; ``gate`` where the build had to pass one.

    ``tensors`` are what inputs and outputs of stages are that are not the bundle's.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    written_by: str
    spec: BuildSpec
    stages: Mapping[str, BuiltStage]
    conversion: Conversion | None = None
    gate: GateRecord | None = None
    tensors: Mapping[str, Travelling] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _whole(self) -> Build:
        if set(self.stages) != set(self.spec.precision) or set(self.stages) != set(
            self.spec.stages_sha256
        ):
            raise ValueError("stages, precision and stages_sha256 do not name the same stages")
        lacking = [name for name, stage in self.stages.items() if stage.engine is None]
        if self.spec.backend != "onnxruntime" and lacking:
            raise ValueError(f"stages without an engine: {', '.join(lacking)}")
        return self

    def offered(self, precision: Mapping[str, Precision]) -> BuildSpec:
        """What the build counts as where this precision is asked for, fallbacks and all."""
        if self.gate is None or self.gate.asked != precision:
            return self.spec
        return self.spec.model_copy(update={"precision": precision})

    def onnx_sha256(self) -> dict[str, str]:
        """Stage -> hash of the ONNX file that it is, or was built from."""
        return {
            name: stage.onnx.sha256 if stage.onnx else self.spec.stages_sha256[name]
            for name, stage in self.stages.items()
        }


@dataclass(frozen=True)
class OpenBuild:
    """A build on disk, every file of which was compared with its hash.

    ``checked`` are the files that a backend opens, by stage.
    """

    path: Path
    build: Build
    checked: Mapping[str, CheckedFile] = field(default_factory=dict, compare=False)

    def confirm(self, stage: str) -> None:
        """Say that a stage's file was opened; BundleError where it changed since it was hashed."""
        if stage in self.checked:
            self.checked[stage].confirm()

    def manifest(self, own: Manifest) -> Manifest:
        """The bundle's ``own`` with the tensors that the build's stages really read and make.

        Raises:
            BundleError: they do not fit the bundle.
        """
        types = self.build.tensors
        if not types:
            return own
        fields = {name: getattr(own, name) for name in Manifest.model_fields}
        fields["stages"] = {
            name: stage.model_copy(
                update={
                    side: _retyped(getattr(stage, side), types) for side in ("inputs", "outputs")
                }
            )
            for name, stage in own.stages.items()
        }
        try:
            return Manifest.model_validate(fields)
        except ValidationError as error:
            raise BundleError(
                f"{self.path} says of its tensors what does not fit the bundle: "
                f"{first_problem(error)}; build it again with dyninfer build --force"
            ) from None

    def onnx_path(self, stage: str) -> Path | None:
        """A stage's converted ONNX file, or None where the bundle's own holds."""
        file = self.build.stages[stage].onnx
        return None if file is None else self.path / file.file

    def stage_path(self, stage: str) -> Path | None:
        """The file that a backend opens: the engine, or else :meth:`onnx_path`."""
        file = self.build.stages[stage].engine
        return self.onnx_path(stage) if file is None else self.path / file.file

    def parity(self) -> dict[str, Any] | None:
        """How far the converted stages are from float32, or None where nothing was converted."""
        place = f"{ENGINES_FOLDER}/{self.path.name}/{BUILD_PARITY_FILE}"
        path = inside(self.path.parent.parent, place)
        return load_sealed(path) if path.exists() else None


def _retyped(
    specs: Iterable[TensorSpec], types: Mapping[str, Travelling]
) -> tuple[TensorSpec, ...]:
    return tuple(_as_travelling(spec, types.get(spec.name, spec.dtype)) for spec in specs)


def _as_travelling(spec: TensorSpec, kind: str | EightBits) -> TensorSpec:
    if isinstance(kind, EightBits):
        batch, channels, sides = spec.shape[:1], spec.shape[1:2], spec.shape[2:]
        shape = (*batch, *sides, *channels) if kind.channels_last else spec.shape
        return QuantisedSpec(name=spec.name, dtype="uint8", shape=shape, bits=kind)
    return spec.model_copy(update={"dtype": kind})


def travel_of(spec: BuildSpec) -> dict[str, str]:
    """The options of :data:`TRAVEL` that a build has."""
    return {name: spec.options[name] for name in TRAVEL if name in spec.options}


def made_for_openvino(spec: BuildSpec) -> frozenset[str]:
    """The stages that :data:`FOR_OPENVINO` names, also where a gate has raised their precision."""
    named = spec.options.get(FOR_OPENVINO, "").split(",")
    return frozenset(name for name in named if name in spec.precision)


def own_precision(manifest: Manifest) -> dict[str, Precision]:
    """Stage -> precision of the bundle's own files."""
    return {name: stage.precision for name, stage in manifest.stages.items()}


def source_hashes(manifest: Manifest) -> dict[str, str]:
    """Stage -> SHA-256 of the bundle's own file."""
    return {name: stage.sha256 for name, stage in manifest.stages.items()}


def parse_precision(text: str, manifest: Manifest) -> dict[str, Precision]:
    """The precision of every stage of a bundle.

    A precision alone is for all stages but the routers: these stay in float32 unless they are
    named, because they cost next to nothing and every decision depends on them. ``stage=precision``
    is for that stage alone. Stages that are not mentioned stay in float32. Items are separated by
    commas; at most one is without a stage.

    Raises:
        InputError: a stage or a precision is unknown, or something is said twice.
    """
    if not isinstance(text, str):
        raise InputError(f"precision is {shown(text)}, expected a text such as 'fp16'")
    common: Precision | None = None
    named: dict[str, Precision] = {}
    for item in text.split(","):
        stage, equals, value = (part.strip() for part in item.rpartition("="))
        precision = _precision(value, text)
        if equals:
            _check_stage(stage, manifest.stages, named)
            named[stage] = precision
        elif common is not None:
            raise InputError(f"{text!r} names two precisions for all stages; expected at most one")
        else:
            common = precision
    plan = dict.fromkeys(manifest.stages, common or Precision.FP32)
    return plan | dict.fromkeys(manifest.deciders, Precision.FP32) | named


def plan_precision(text: str | None, manifest: Manifest) -> dict[str, Precision]:
    """The precision of every stage: as :func:`parse_precision` reads it, or the bundle's own."""
    return own_precision(manifest) if text is None else parse_precision(text, manifest)


def describe_plan(plan: Mapping[str, Precision], manifest: Manifest) -> str:
    """A plan in the shortest form that :func:`parse_precision` reads."""
    for precision in Precision:
        if parse_precision(precision.value, manifest) == dict(plan):
            return precision.value
    return ",".join(f"{stage}={precision.value}" for stage, precision in plan.items())


def _precision(value: str, text: str) -> Precision:
    try:
        return Precision(value.lower())
    except ValueError:
        known = ", ".join(precision.value for precision in Precision)
        what = f"{value!r} in {text!r}" if value else f"a missing value in {text!r}"
        raise InputError(
            f"{what} is not a precision, expected one of {known}; for example fp16, or "
            "first=int8,router=fp32,second=fp16"
        ) from None


def _check_stage(stage: str, stages: Collection[str], named: Collection[str]) -> None:
    if stage not in stages:
        near = get_close_matches(stage, stages, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"there is no stage {stage!r}, expected one of {', '.join(stages)}{hint}")
    if stage in named:
        raise InputError(f"the precision of stage {stage!r} is given twice; give it once")
