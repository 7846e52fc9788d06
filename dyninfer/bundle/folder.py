"""The folder that is deployed: opening it with every check, and replacing single files of it."""

from __future__ import annotations

import contextlib
import errno
import shlex
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyninfer.bundle.calibration import (
    CALIBRATION_FILE,
    Calibration,
    CalibrationFile,
    add_calibration,
)
from dyninfer.bundle.calibration import SCHEMA_VERSION as CALIBRATION_SCHEMA
from dyninfer.bundle.documents import dump_sealed, load_sealed, read_sealed
from dyninfer.bundle.inside import CheckedFile, check_file, inside
from dyninfer.bundle.manifest import SCHEMA_VERSION, Manifest, StoredFile
from dyninfer.bundle.shipped import SHIPPED, meant_by, remake_hint, shipped_bundle
from dyninfer.bundle.unfinished import put_back, write_atomically
from dyninfer.errors import BundleError
from dyninfer.images.folders import DRAWN_FOLDER

MANIFEST_FILE = "bundle.json"
PARITY_FILE = "parity.json"
ROUTER_FILE = "router.json"
PICTURES = DRAWN_FOLDER
"""What detectors found when they were exported, to look at; no part of what runs."""
SUFFIX = ".dyn"
_REMEDY = "export the bundle again"
COPY_BUNDLE = "copy the bundle to a folder that you may write to, and use that"


def unwritable(path: Path, error: OSError) -> str:
    """What to say where something of a bundle cannot be written, as in an installed one."""
    denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    hint = f"; {COPY_BUNDLE}" if denied else ""
    return f"{path} cannot be written: {error.strerror or error}{hint}"


Checked = dict[StoredFile, CheckedFile]
"""What was compared with its hash already: stages share files."""


@dataclass(frozen=True)
class CheckedStage:
    """A stage whose files were compared with their hashes."""

    files: tuple[CheckedFile, ...]

    def confirm(self) -> None:
        """Say that its files were opened; BundleError where one changed since it was hashed."""
        for file in self.files:
            file.confirm()


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest was validated."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path, *, check_calibration: bool = True) -> Bundle:
        """Read and check a bundle, with the bytes of every stage's file.

        Args:
            path: the folder, ``NAME.dyn``.
            check_calibration: refuse a calibration that cannot be used; False where it is about
                to be replaced, or only shown.

        Raises:
            BundleError: anything is missing, changed, outside the folder, or from the future.
        """
        bundle = cls.read(path)
        checked: Checked = {}
        for name in bundle.manifest.stages:
            bundle.check_stage(name, checked)
        bundle.check_records(check_calibration=check_calibration)
        return bundle

    @classmethod
    def read(cls, path: str | Path) -> Bundle:
        """Read and check a bundle's manifest alone.

        ``path`` may be the name of a model that ships with the package.

        Raises:
            BundleError: there is no bundle, or its manifest was changed or is from the future.
        """
        path = shipped_bundle(Path(path))
        try:
            path.stat()
        except FileNotFoundError:
            put_back(path)
        except (OSError, ValueError) as error:  # too long, or with a null character
            raise BundleError(f"{str(path)[:80]!r} is not a usable path: {error}") from None
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise BundleError(f"{path} {what}, expected a bundle folder; {_bundle_from(path)}")
        manifest = inside(path, MANIFEST_FILE)
        if not manifest.exists():
            raise BundleError(f"{path} holds no {MANIFEST_FILE}, so it is not a bundle")
        remedy = remake_hint(path) or _REMEDY
        return cls(path, read_sealed(manifest, Manifest, remedy, SCHEMA_VERSION))

    @property
    def _remedy(self) -> str:
        return remake_hint(self.path) or _REMEDY

    def check_records(self, *, check_calibration: bool = True) -> None:
        """Read what was measured; BundleError where it was changed or cannot be used."""
        self.parity()
        if check_calibration:
            self.calibration()

    def stage_path(self, name: str) -> Path:
        """Path of a stage's file; BundleError where it is missing or reached through a link."""
        path = inside(self.path, self.manifest.stages[name].file)
        if not path.is_file():
            raise BundleError(f"{path} is missing; {self._remedy}")
        return path

    def check_stage(self, name: str, checked: Checked | None = None) -> CheckedStage:
        """Compare a stage's files with their hashes; BundleError where one differs.

        Those in ``checked`` are not read again; what is read is added to it.
        """
        checked = {} if checked is None else checked
        files = self.manifest.stages[name].files
        for each in files:
            if each not in checked:
                checked[each] = check_file(
                    self.path, each.file, each.sha256, "the export", self._remedy
                )
        return CheckedStage(tuple(checked[each] for each in files))

    @contextlib.contextmanager
    def opening(self, name: str) -> Iterator[Path]:
        """A stage's file, which the block opens: hashed before, and looked at again afterwards.

        Raises:
            BundleError: it is not what was exported.
        """
        checked = self.check_stage(name)
        yield self.stage_path(name)
        checked.confirm()

    def copy_stage(self, name: str, folder: Path) -> None:
        """Copy a stage's files to the same places in another folder."""
        with self.opening(name):
            for each in self.manifest.stages[name].files:
                target = folder / each.file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(inside(self.path, each.file), target)

    def parity(self) -> dict[str, Any] | None:
        """What the last verification measured, or None when there was none."""
        return self._read(PARITY_FILE)

    def calibration(self) -> Calibration | None:
        """What the last calibration measured, or None when there was none."""
        return next(iter(self.calibrations()), None)

    def calibrations(self) -> tuple[Calibration, ...]:
        """One for every set of engines that was calibrated, the newest first."""
        path = inside(self.path, CALIBRATION_FILE)
        if not path.exists():
            return ()
        remedy = "run dyninfer calibrate again"
        return read_sealed(path, CalibrationFile, remedy, CALIBRATION_SCHEMA).all

    def router_record(self) -> dict[str, Any] | None:
        """How ``dyninfer fit-router`` fitted the routers, or None where it did not."""
        return self._read(ROUTER_FILE)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = inside(self.path, name)
        return load_sealed(path) if path.exists() else None

    def write_parity(self, payload: Mapping[str, Any]) -> None:
        """Replace ``parity.json`` in one step; BundleError where the folder cannot be written."""
        self._write(PARITY_FILE, payload)

    def write_calibration(self, calibration: Calibration) -> None:
        """Add to ``calibration.json``, as :meth:`write_parity` does; same engines are replaced."""
        document = add_calibration(self.calibrations(), calibration)
        empty = None if document.others else {"others"}  # as files of one calibration always were
        self._write(CALIBRATION_FILE, document.model_dump(mode="json", exclude=empty))

    def _write(self, name: str, payload: Mapping[str, Any]) -> None:
        try:
            write_atomically(self.path / name, dump_sealed(payload))
        except OSError as error:
            raise BundleError(unwritable(self.path / name, error)) from None


class StageChecks:
    """Compares a bundle's stages with their hashes, one after the other, in a second thread.

    Creating a session keeps one core busy, and so does hashing: a stage is hashed while the one
    before it is opened, so that checking costs hardly any time; those of the route come first, in
    the order they are opened in. Files are hashed block by block
    and not kept: sessions that are made from bytes were slower and took 300 MB more for
    Dy-YOLOv7. So that nobody can change a file between its check and its use, its times, size
    and inode are compared again once it was opened.

    Use it as a context manager. Where its block fails for any reason, a changed file is what is
    reported: nothing else that was found can be relied on.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._thread = ThreadPoolExecutor(1, "dyninfer-hash")
        names = dict.fromkeys([*bundle.manifest.opening_order, *bundle.manifest.stages])
        check, checked = self._thread.submit, Checked()
        self._checks = {name: check(bundle.check_stage, name, checked) for name in names}

    def wait(self, name: str) -> None:
        """Wait until a stage's file was compared with its hash; BundleError where it differs."""
        self._checks[name].result()

    def confirm(self, name: str) -> None:
        """Say that a stage's file was read; BundleError where it changed since it was hashed."""
        self._checks[name].result().confirm()

    def wait_all(self) -> None:
        """Wait for all files; BundleError names the manifest's first that differs."""
        for name in self._bundle.manifest.stages:
            self._checks[name].result()

    def __enter__(self) -> StageChecks:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self.wait_all()
        finally:  # after a failure, or where the user interrupts, nobody waits for the rest
            self._thread.shutdown(cancel_futures=True)


def _bundle_from(path: Path) -> str:
    """How to come to a bundle from a path that is none."""
    if path.name == MANIFEST_FILE:
        return f"give {path.parent}"
    made = path.with_suffix(SUFFIX)
    if made != path and made.is_dir():
        return f"give {made}"
    if path.suffix.lower() == ".onnx" and path.exists():
        line = ["dyninfer", "export", "onnx", str(path), "-o", str(made)]
        return f"make one: {shlex.join(line)}"
    if name := meant_by(path):
        return f"did you mean the model {name}, which ships with dyninfer?"
    return f"make one with dyninfer export, or name a shipped model: {', '.join(SHIPPED)}"
