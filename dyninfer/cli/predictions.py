"""What ``dyninfer predict`` leaves: JSON lines, annotated pictures and a table."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dyninfer.benchmarks.report.table import Table, column, make_table
from dyninfer.bundle.folder import MANIFEST_FILE
from dyninfer.bundle.manifest import CascadeRoute, Manifest
from dyninfer.cli.common import print_document, warn
from dyninfer.errors import InputError
from dyninfer.images.drawing import annotate
from dyninfer.images.folders import RESULTS_FILE, RESULTS_FOLDER
from dyninfer.plain_text import counted
from dyninfer.results.answers import Answer
from dyninfer.routing.goals import describe_setting
from dyninfer.runtime.detector import Detector
from dyninfer.spans import AFTER_STAGES, BEFORE_STAGES
from dyninfer.types import ImageArray

_CLASSES_SHOWN = 20
MAX_JPEG_SIDE = 65_500  # pixels; what libjpeg writes


class JsonLines:
    """Results, one line each; who reads the file meanwhile sees each as soon as it is written.

    Nothing is made on disk before the first. Use it as a context manager.

    Args:
        path: of the file, which is replaced.
        sources: files that are read now. If others are named in the former results of a folder,
            they are removed with these.
    """

    def __init__(self, path: Path, sources: Sequence[Path]) -> None:
        self.path = path
        # compared without case, as some file systems do
        self.taken = {_key(source) for source in sources}
        self._file: FileIO | None = None

    def start(self) -> None:
        """Make the file, by which a folder is known as one of results, before any picture."""
        if self._file is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.name == RESULTS_FILE and self.path.exists():
            for former in former_pictures(self.path.parent):
                if _key(former) not in self.taken:  # or it is one that is read now
                    former.unlink(missing_ok=True)
        self._file = self.path.open("wb", buffering=0)

    def append(self, line: str) -> None:
        """Write one line whole, or not at all; nothing waits in a buffer to fail later."""
        self.start()
        assert self._file is not None
        start, left = self._file.tell(), line.encode() + b"\n"
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException:
            self._file.seek(start)
            self._file.truncate()
            raise

    def discard_if_empty(self) -> None:
        """Leave no file without a line."""
        if self._file is not None and not self._file.tell():
            self._file.close()
            self._file = None
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


class ResultWriter:
    """Writes one JSON line, and if asked an annotated picture, for each result.

    Nothing is made on disk before the first result, and no picture that was read is ever
    written to. ``way_names`` stand on the pictures.
    """

    def __init__(
        self,
        lines: JsonLines,
        sources: Sequence[Path],
        way_names: Sequence[str],
        *,
        draw: bool,
        echo: bool,
    ) -> None:
        self.folder = lines.path.parent
        self.results: list[Answer] = []
        self.failures: list[InputError] = []
        self._way_names = way_names
        self._draw = draw
        self._echo = echo
        self._lines = lines
        self._sources = sources

    @property
    def seen(self) -> int:
        """Pictures done, those that failed included."""
        return len(self.results) + len(self.failures)

    def write(self, path: Path, picture: ImageArray, result: Answer) -> None:
        """Write one result."""
        height, width = picture.shape[:2]
        record: dict[str, Any] = {"image": str(path), "width": width, "height": height}
        record |= result.to_dict()
        try:
            self._lines.start()
            if self._draw:
                record["annotated"] = self._write_picture(path, picture, result)
            line = json.dumps(record)
            self._lines.append(line)
        except OSError as error:
            self._lines.discard_if_empty()
            reason = f"results cannot be written to {self.folder}: {error.strerror}"
            denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            hint = "; choose another folder with --output" if denied else ""
            raise InputError(f"{reason}; {self._so_far(path)}{hint}") from None
        if self._echo:
            print_document(line)
        self.results.append(result)

    def _so_far(self, path: Path) -> str:
        done = len(self.results)
        if not done:
            return "no result was written"
        return (
            f"{RESULTS_FILE} there holds those of {done} of {len(self._sources)} pictures, "
            f"the first missing is {path}"
        )

    def _write_picture(self, path: Path, picture: ImageArray, result: Answer) -> str | None:
        """Name of the annotated copy inside the folder; None where it cannot be a JPEG."""
        if max(picture.shape[:2]) > MAX_JPEG_SIDE:
            warn(f"{path} is too large for an annotated JPEG copy; its JSON line is complete")
            return None
        drawn = annotate(picture, result, self._way_names[result.exit_index])
        done, data = cv2.imencode(".jpg", drawn)
        if not done:
            raise InputError(f"the annotated copy of {path} cannot be encoded as JPEG")
        target = self._free_name(path.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(data.tobytes())
        except BaseException:
            target.unlink(missing_ok=True)  # half of it
            raise
        return target.relative_to(self.folder).as_posix()

    def _free_name(self, stem: str) -> Path:
        number = 1
        while True:
            name = f"{stem}.jpg" if number == 1 else f"{stem}-{number}.jpg"
            target = self.folder / RESULTS_FOLDER / name
            if _key(target) not in self._lines.taken and not target.exists():
                self._lines.taken.add(_key(target))
                return target
            number += 1


def free_folder(given: Path | None, *, overwrite: bool) -> Path:
    """The folder asked for, or the first of predictions, predictions-2, ... that is free.

    Raises:
        InputError: the folder asked for is a bundle, or holds results that may not be overwritten.
    """
    if given is not None:
        if (given / MANIFEST_FILE).exists():
            raise InputError(f"{given} is a bundle; choose another folder for the results")
        if (given / RESULTS_FILE).exists() and not overwrite:
            raise InputError(
                f"{given} holds the results of an earlier run; choose another folder, or replace "
                "them with --overwrite"
            )
        if given.exists() and not given.is_dir():
            raise InputError(f"{given} is a file, expected a folder for the results")
        return given
    folder, number = Path("predictions"), 1
    while folder.exists():
        number += 1
        folder = Path(f"predictions-{number}")
    return folder


def former_pictures(folder: Path) -> Iterator[Path]:
    """Annotated copies that the results in a folder name, and none outside of it."""
    with (folder / RESULTS_FILE).open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                name = json.loads(line)["annotated"]
                if Path(name).parent == Path(RESULTS_FOLDER):
                    yield folder / name
            except (ValueError, TypeError, KeyError, RecursionError):
                continue  # somebody else's line, or half of one


def _key(path: Path) -> str:
    return str(path.resolve()).casefold()


def summary_table(detector: Detector, results: Sequence[Answer]) -> Table:
    """Per way: share of the pictures, easiness, and milliseconds of every stage.

    Milliseconds are medians over the pictures that ran the stage, each with its share of its
    batch; the caller has warmed the engines up.
    """
    ran = {name for result in results for name in result.timings_ms}
    order = (*BEFORE_STAGES, *detector.manifest.roles, *AFTER_STAGES)
    steps = [name for name in order if name in ran]

    routed = any(result.easiness is not None for result in results)

    def cells(group: Sequence[Answer]) -> list[str]:
        share, spread = f"{len(group) / len(results):.1%}", [_spread(group)] * routed
        return [str(len(group)), share, *spread, *(_median_ms(group, s) for s in [*steps, None])]

    setting = describe_setting(detector.policy, detector.active_policy)
    title = [detector.manifest.name] + [setting] * (len(detector.manifest.ways) > 1)
    meaning = "easiness: minimum / median / maximum; " * routed
    names = ["pictures", "share", *["easiness"] * routed, *steps, "total"]  # the title has the unit
    ways = enumerate(detector.manifest.way_names)
    return make_table(
        f"{', '.join(title)}; {meaning}median ms per picture, after a warm-up",
        column("", names, words=True),
        *(column(name, cells([r for r in results if r.exit_index == i])) for i, name in ways),
        column("all", cells(results)),
    )


def known_classes(manifest: Manifest, results: Sequence[Answer]) -> str:
    """What can be found at all, for whoever wonders about what was found, or was not."""
    names = manifest.class_names
    listed = ", ".join(names[:_CLASSES_SHOWN]) + ", ..." * (len(names) > _CLASSES_SHOWN)
    without = sum(not len(result) for result in results)
    nothing = (
        f"nothing found in {without} of {counted(len(results), 'picture')}; " if without else ""
    )
    return f"{nothing}{manifest.name} knows only {counted(len(names), 'class')}: {listed}"


def _spread(results: Sequence[Answer]) -> str:
    """Least, median and largest easiness."""
    values = [result.easiness for result in results if result.easiness is not None]
    if not values:
        return "-"
    return f"{min(values):.3f} / {float(np.median(values)):.3f} / {max(values):.3f}"


def surprising_times(manifest: Manifest, results: Sequence[Answer]) -> list[str]:
    """Why a later exit of a cascade took less time than an earlier one, wherever it did."""
    if not isinstance(manifest.route, CascadeRoute):
        return []
    groups = [[r for r in results if r.exit_index == i] for i in range(len(manifest.ways))]
    used = [(name, g) for name, g in zip(manifest.way_names, groups, strict=True) if g]
    return [
        _why_faster(late_name, late, early_name, early)
        for (early_name, early), (late_name, late) in pairwise(used)
        if _median(late, None) < _median(early, None)
    ]


def _why_faster(
    late_name: str, late: Sequence[Answer], early_name: str, early: Sequence[Answer]
) -> str:
    shared = [step for step in early[0].timings_ms if step in late[0].timings_ms]
    step = max(shared, key=lambda name: _median(early, name) - _median(late, name))
    return (
        f"{late_name} took less time than {early_name} though it runs more: {step} took "
        f"{_median(early, step):.2f} ms of {early_name}'s pictures ({len(early)}) and "
        f"{_median(late, step):.2f} ms of {late_name}'s ({len(late)}); their sizes, their places "
        "in batches or other work on the machine make that difference"
    )


def _median_ms(results: Sequence[Answer], step: str | None) -> str:
    """Median of one step, or of the sum of all steps; a dash where none ran it."""
    found = _median(results, step)
    return "-" if np.isnan(found) else f"{found:.2f}"


def _median(results: Sequence[Answer], step: str | None) -> float:
    """Milliseconds; NaN where none ran it."""
    values = [
        sum(result.timings_ms.values()) if step is None else result.timings_ms[step]
        for result in results
        if step is None or step in result.timings_ms
    ]
    return float(np.median(values)) if values else np.nan
