"""Writing builds: one process at a time, and a folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dyninfer
from dyninfer.builds.gate import GateRecord
from dyninfer.builds.search import find_exact, open_build
from dyninfer.builds.spec import (
    BUILD_FILE,
    BUILD_PARITY_FILE,
    ENGINES_FOLDER,
    Build,
    BuildSpec,
    BuiltFile,
    BuiltStage,
    Conversion,
    OpenBuild,
    Travelling,
)
from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.folder import Bundle, unwritable
from dyninfer.bundle.inside import file_sha256, inside
from dyninfer.bundle.unfinished import unfinished_folder, write_atomically
from dyninfer.bundle.writing import new_folder
from dyninfer.errors import BundleError, EngineBuildError

LOCK_FILE = ".lock"
_POLL_SECONDS = 0.2
EngineMaker = Callable[[str, Path], bytes]
"""(stage, its ONNX file) -> the engine."""


def check_writable(bundle: Bundle) -> None:
    """Say before a long conversion, not after, that a build could not be written.

    Raises:
        EngineBuildError: the bundle's folder cannot be written.
        BundleError: the folder of builds is a link.
    """
    engines = inside(bundle.path, ENGINES_FOLDER)
    folder = engines if engines.exists() else bundle.path
    try:
        with unfinished_folder(folder / "build"):
            pass
    except OSError as error:
        raise EngineBuildError(unwritable(folder, error)) from None


@contextlib.contextmanager
def build_lock(bundle: Bundle, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the right to build in this bundle; other processes wait for it.

    It is one for all builds of a bundle: two at once would measure each other's kernels.

    ``on_wait`` is called once if another process is building.

    Raises:
        EngineBuildError: the folder cannot be written.
        BundleError: the folder, or the lock in it, is a link.
    """
    from filelock import FileLock, Timeout

    folder = inside(bundle.path, ENGINES_FOLDER)
    inside(bundle.path, f"{ENGINES_FOLDER}/{LOCK_FILE}")
    try:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire(poll_interval=_POLL_SECONDS)
    except OSError as error:
        raise EngineBuildError(unwritable(folder, error)) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def new_build(bundle: Bundle, folder_name: str) -> Iterator[Path]:
    """A temporary folder that becomes the build when the block ends without error.

    A build of that name is replaced. Whatever fails inside leaves the bundle as it was.

    Raises:
        EngineBuildError: the bundle's folder cannot be written, or the disk is full.
    """
    with new_folder(bundle.path / ENGINES_FOLDER / folder_name, EngineBuildError) as temporary:
        yield temporary


@dataclass(frozen=True)
class Converted:
    """Stages in another precision.

    Attributes:
        files: stage -> its ONNX file, which a build copies; all others keep the bundle's own.
        sha256: stage -> hash of that file.
        conversion: how they were made.
        parity: how far they are from the bundle's own, for the build's ``parity.json``.
        tensors: what their inputs and outputs are that are not the bundle's.
        options: those of a build in which they show.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    conversion: Conversion | None = None
    parity: Mapping[str, Any] | None = None
    tensors: Mapping[str, Travelling] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


NOTHING_CONVERTED = Converted()


StageReport = Callable[[str, float, str], None]
"""(stage; share of it that is done, in [0, 1]; the phase under way)."""


@dataclass(frozen=True)
class KeptEngines:
    """Engines of several attempts at one build, of which only some stages differ."""

    folder: Path
    _seconds: dict[str, float] = field(default_factory=dict)

    def get(self, key: str, make: Callable[[], bytes]) -> tuple[bytes, float]:
        """The engine of this key, made now if there is none, and how long it took in seconds."""
        path = self.folder / f"{key}.engine"
        if key in self._seconds:
            return path.read_bytes(), self._seconds[key]
        content, self._seconds[key] = _timed(make)
        path.write_bytes(content)
        return content, self._seconds[key]


def _timed(make: Callable[[], bytes]) -> tuple[bytes, float]:
    start = time.perf_counter()
    return make(), time.perf_counter() - start


@dataclass(frozen=True)
class Making:
    """How a build is made, beside what it is.

    Attributes:
        converted: stages in another precision than the bundle's; None to take them from any build
            that has them.
        accept: looks at the build before it is kept, and gives what of that goes into its record
            and its ``parity.json``; what it raises leaves no build.
        replace: build even if there is this very build.
        engines: of earlier attempts at this build; None to build every one.
        report: told of the progress, from another thread.
        on_wait: called once if another process is building in this bundle.
    """

    converted: Converted | None = None
    accept: Callable[[OpenBuild], tuple[GateRecord, Mapping[str, Any]]] | None = None
    replace: bool = False
    engines: KeptEngines | None = None
    report: StageReport = lambda _stage, _share, _phase: None
    on_wait: Callable[[], None] = lambda: None


AS_USUAL = Making()


def make_build(
    bundle: Bundle,
    spec: BuildSpec,
    making: Making = AS_USUAL,
    make_engine: EngineMaker | None = None,
) -> OpenBuild:
    """Build a bundle, or take what another process has built while this one waited for it.

    Without ``make_engine`` it is a build of ONNX files alone.

    Raises:
        EngineBuildError: an engine cannot be built, or the folder cannot be written; nothing of
            this build stays on the disk.
    """
    converted = making.converted or NOTHING_CONVERTED
    spec = spec.model_copy(update={"options": {**spec.options, **converted.options}})
    with build_lock(bundle, making.on_wait):
        existing = None if making.replace else find_exact(bundle, spec)
        if existing is not None:
            return existing
        with new_build(bundle, spec.folder_name) as folder:
            stages = {}
            for index, name in enumerate(bundle.manifest.stages):
                base = folder / f"{index}-{re.sub('[^A-Za-z0-9_-]+', '_', name)}"
                stages[name] = _write_stage(base, bundle, name, spec, making, make_engine)
            build = Build(
                written_by=f"dyninfer {dyninfer.__version__}",
                spec=spec,
                stages=stages,
                conversion=converted.conversion,
                tensors=converted.tensors,
            )
            parity = converted.parity
            if making.accept is not None:
                gate, parity = making.accept(open_build(folder, build))
                build = build.model_copy(update={"gate": gate})
            records = {BUILD_FILE: build.model_dump(mode="json")}
            if parity is not None:
                records[BUILD_PARITY_FILE] = dict(parity)
            for file, payload in records.items():
                (folder / file).write_text(dump_sealed(payload), encoding="utf-8")
        return open_build(bundle.path / ENGINES_FOLDER / spec.folder_name, build)


def _write_stage(
    base: Path,
    bundle: Bundle,
    name: str,
    spec: BuildSpec,
    making: Making,
    make_engine: EngineMaker | None,
) -> BuiltStage:
    """Copy a stage's converted file, build its engine from that or from the bundle's own."""
    onnx, converted = None, making.converted or NOTHING_CONVERTED
    if name in converted.files:
        source = base.with_suffix(".onnx")
        shutil.copyfile(converted.files[name], source)
        onnx = _describe(source)
        if onnx.sha256 != converted.sha256.get(name, onnx.sha256):
            raise EngineBuildError(f"{converted.files[name]} was changed while it was read; retry")
    if make_engine is None:
        return BuiltStage(onnx=onnx)

    def make() -> bytes:
        with nullcontext(source) if onnx else bundle.opening(name) as file:
            return make_engine(name, file)

    made_of = onnx.sha256 if onnx else spec.stages_sha256[name]
    key = f"{base.name}-{spec.precision[name].value}-{made_of}"
    content, seconds = making.engines.get(key, make) if making.engines else _timed(make)
    path = base.with_suffix(".engine")
    path.write_bytes(content)
    return BuiltStage(onnx=onnx, engine=_describe(path), build_seconds=round(seconds, 3))


def _describe(path: Path) -> BuiltFile:
    """Name, hash and size of a file that was written into a build's folder."""
    return BuiltFile(file=path.name, sha256=file_sha256(path), size=path.stat().st_size)


def write_build_parity(found: OpenBuild, payload: Mapping[str, Any]) -> None:
    """Replace a build's ``parity.json`` in one step; BundleError where it cannot be written."""
    path = found.path / BUILD_PARITY_FILE
    try:
        write_atomically(path, dump_sealed(payload))
    except OSError as error:
        raise BundleError(unwritable(path, error)) from None
