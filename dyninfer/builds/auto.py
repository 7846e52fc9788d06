"""What ``dyninfer build --backend auto`` leaves: the fastest backend and precision of each stage.

It lies in ``BUNDLE/engines/auto.json``, holds for one machine with the versions it was measured
with, and names nothing but backends and precisions: files are found, and checked, as always.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.gate import GateRecord
from dyninfer.builds.search import preferred_build
from dyninfer.builds.spec import (
    ENGINES_FOLDER,
    BuildSpec,
    describe_plan,
    own_precision,
    source_hashes,
)
from dyninfer.bundle.documents import Frozen, dump_sealed, read_sealed
from dyninfer.bundle.folder import Bundle, unwritable
from dyninfer.bundle.inside import inside
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.bundle.shipped import typed
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.engines import host_versions
from dyninfer.errors import EngineBuildError, InputError
from dyninfer.hardware import cpu_name
from dyninfer.plain_text import one_line

logger = logging.getLogger("dyninfer")

AUTO = "auto"
AUTO_FILE = "auto.json"
LARGEST_BATCH = 64
"""Of those that are measured: memory is allowed for as many images."""
_SCHEMA_VERSION: Literal[1] = 1
_Text = Annotated[str, Field(max_length=1000)]
_Figure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Batch = Annotated[int, Field(ge=1, le=LARGEST_BATCH)]


class Place(Frozen):
    """Where and how a stage is computed."""

    backend: Literal["onnxruntime", "openvino"]
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision.value}"


class Candidate(Frozen):
    """One place of a stage: milliseconds of a batch, and their ratio to ONNX Runtime's as exported.

    ``chosen`` is whether the mix has it, ``why`` what speaks for or against it.
    """

    place: Place
    ms: _Figure
    ratio: _Figure
    chosen: bool
    why: _Text


class Mix(Frozen):
    """The fastest place of every stage for calls of so many images.

    Attributes:
        batch: images in a call.
        stages: stage -> place.
        candidates: stage -> all that were measured, ONNX Runtime as exported first.
        ms_per_image: the sum over a way's stages of what they take of an image, the ways' mean.
        ratio: of the whole route in this mix to ONNX Runtime as exported, the mean over ways.
        files: stage -> hash of the ONNX file that was measured, where a build of conversions was.
    """

    batch: _Batch
    stages: Mapping[str, Place]
    candidates: Mapping[str, tuple[Candidate, ...]]
    ms_per_image: _Figure
    ratio: _Figure
    files: Mapping[str, _Text] = Field(default_factory=dict)

    @property
    def backend(self) -> str:
        """As :func:`dyninfer.load` takes it."""
        names = {stage: place.backend for stage, place in self.stages.items()}
        ((usual, _),) = Counter(names.values()).most_common(1)
        others = (f"{stage}={name}" for stage, name in names.items() if name != usual)
        return ",".join((usual, *others))

    @property
    def plan(self) -> dict[str, Precision]:
        """Stage -> precision."""
        return {stage: place.precision for stage, place in self.stages.items()}

    def precision(self, manifest: Manifest) -> str | None:
        """As :func:`dyninfer.load` takes it."""
        if self.plan == own_precision(manifest):
            return None
        return describe_plan(self.plan, manifest)


class AutoRecord(Frozen):
    """What was measured, and what was chosen for it.

    Attributes:
        machine: the processor, and how many of its cores were used.
        versions: backend -> version, of those that were installed.
        stages_sha256: hashes of the bundle's own files.
        best_batch: the number of images in a call that takes least of each.
        mixes: for single images, and for more.
        gate: what the mixes stayed within; None where all are what was exported, on ONNX Runtime.
        limits: of that gate.
        images_sha256, labels_sha256: hashes of the pictures, and of their labels if there were any.
    """

    schema_version: Literal[1] = _SCHEMA_VERSION
    written_by: _Text
    machine: _Text
    versions: Mapping[str, _Text]
    stages_sha256: Mapping[str, _Text]
    best_batch: _Batch
    mixes: Annotated[tuple[Mix, ...], Field(min_length=1, max_length=LARGEST_BATCH)]
    gate: GateRecord | None = None
    limits: Mapping[str, _Figure]
    images_sha256: _Text
    labels_sha256: _Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> AutoRecord:
        batches = [mix.batch for mix in self.mixes]
        if batches != sorted(set(batches)) or batches[0] != 1 or self.best_batch not in batches:
            raise ValueError("the mixes are not one for single images and each larger batch once")
        if any(mix.stages.keys() != self.stages_sha256.keys() for mix in self.mixes):
            raise ValueError("a mix and stages_sha256 do not name the same stages")
        return self

    def mix_for(self, max_batch: int | None) -> Mix:
        """The mix for calls of at most so many images; None for the best number."""
        most = self.best_batch if max_batch is None else max_batch
        return [mix for mix in self.mixes if mix.batch <= most][-1]


class Choice(NamedTuple):
    """What a bundle is opened with, as :func:`dyninfer.load` takes it."""

    backend: str
    precision: str | None
    max_batch: int | None


FALL_BACK = Choice("onnxruntime", None, None)


def auto_command(bundle: Bundle) -> str:
    """The command that measures, and leaves what ``backend="auto"`` opens."""
    return f"dyninfer build {typed(bundle.path)} --backend auto"


def read_auto(bundle: Bundle) -> AutoRecord | None:
    """What was left in a bundle; None where there is nothing.

    Raises:
        BundleError: it was changed, or is not what it should be.
    """
    path = inside(bundle.path, f"{ENGINES_FOLDER}/{AUTO_FILE}")
    if not path.exists():
        return None
    return read_sealed(path, AutoRecord, f"run {auto_command(bundle)} --force", _SCHEMA_VERSION)


def write_auto(bundle: Bundle, record: AutoRecord) -> Path:
    """Keep a record in one step; EngineBuildError where the bundle cannot be written."""
    path = inside(bundle.path, f"{ENGINES_FOLDER}/{AUTO_FILE}")
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, dump_sealed(record.model_dump(mode="json")).encode())
    except OSError as error:
        raise EngineBuildError(unwritable(path, error)) from None
    return path


def written_by() -> str:
    """Who writes a record."""
    return f"dyninfer {dyninfer.__version__}"


def why_stale(bundle: Bundle, record: AutoRecord) -> str | None:
    """Why a record does not hold here and now; None where it does."""
    if record.stages_sha256 != source_hashes(bundle.manifest):
        return "it was measured with other files of the bundle's stages"
    if record.machine != cpu_name():
        return f"it was measured on {record.machine}, and this is {cpu_name()}"
    if record.versions != (here := host_versions()):
        before, now = (
            " and ".join(f"{name} {version}" for name, version in each.items())
            for each in (record.versions, here)
        )
        return f"it was measured with {before}, and here is {now}"
    for mix in record.mixes:
        wanted = wanted_files(bundle.manifest, mix.stages)
        found = None if wanted is None else preferred_build(bundle, wanted)
        if wanted is not None and found is None:
            return "the build of int8 that it names is not there any more"
        if found is not None and found[1].onnx_sha256() != mix.files:
            return f"it was measured with other files in int8 than those of {found[0]}"
    return None


def wanted_files(manifest: Manifest, stages: Mapping[str, Place]) -> BuildSpec | None:
    """The build of converted files that a mix opens; None where the bundle's own will do."""
    builder = ConversionBuilder(backend_of=lambda stage: stages[stage].backend)
    return builder.wanted(manifest, {name: place.precision for name, place in stages.items()}, 1)


def check_auto(device: str | None, provider: str | None, precision: str | None) -> None:
    """Refuse what ``backend="auto"`` chooses itself, or does not run on.

    Raises:
        InputError: one of them is given.
    """
    for name, value in (("precision", precision), ("provider", provider)):
        if value is not None:
            raise InputError(
                f"{name} {value!r} was given with backend 'auto', which chooses it itself; leave "
                "it out"
            )
    if device not in (None, "cpu"):
        raise InputError(f"device {device!r} was given with backend 'auto', expected 'cpu'")


def auto_choice(bundle: Bundle, max_batch: int | None) -> Choice:
    """What ``backend="auto"`` opens for calls of at most so many images; None for the best number.

    A record that does not hold here is logged, with what is opened in its place.

    Raises:
        EngineBuildError: nothing was measured yet; the message names the command that does.
        BundleError: the record was changed, or is not what it should be.
    """
    record = read_auto(bundle)
    if record is None:
        raise EngineBuildError(
            f"nothing was measured yet of which backend is fastest for {typed(bundle.path)} on "
            f"this machine; run: {auto_command(bundle)}"
        )
    stale = why_stale(bundle, record)
    if stale is not None:
        logger.warning(
            "%s: the choice of backends does not hold: %s; falling back to onnxruntime as exported;"
            " to measure anew, run: %s",
            one_line(bundle.manifest.name),
            one_line(stale),
            auto_command(bundle),
        )
        return FALL_BACK._replace(max_batch=max_batch)
    mix = record.mix_for(max_batch)
    batch = record.best_batch if max_batch is None else max_batch
    return Choice(mix.backend, mix.precision(bundle.manifest), batch)
