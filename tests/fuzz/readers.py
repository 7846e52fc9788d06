"""What dyninfer reads in Python alone, for bytes that a fuzzer made: a reader for each kind."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.record_file import read_record
from dyninfer.bundle.calibration import CalibrationFile
from dyninfer.bundle.documents import SEAL, parse_sealed
from dyninfer.bundle.manifest import Manifest, StoredFile
from dyninfer.engines.onnx_file import find_shared
from dyninfer.engines.onnx_growth import computed_when_opened, reading
from dyninfer.engines.onnx_guards import with_guards
from dyninfer.exporters.safe_load import load_checkpoint
from dyninfer.images.formats import describe_unread, is_cut_off
from dyninfer.images.headers import picture_size
from dyninfer.runtime.plan import plan
from tests.fuzz.checkpoints import pickle_of
from tests.fuzz.mutation import BLANK_SEAL
from tests.fuzz.target import KINDS, load_target

FILES = {  # of each kind: where an input of its target lies
    **{"bundle": "bundle/bundle.json", "calibration": "calibration.json", "record": "record.json"},
    **{"checkpoint": "some.pt", "onnx": "cheap.onnx", "picture": "picture.*"},
}
SEEDS = 60


def read(kind: str, data: bytes, path: Path) -> None:
    """Have bytes read; they may be written to the path."""
    match kind:
        case "bundle":
            plan(parse_sealed(_sealed(data), path, Manifest, "", 99))
        case "calibration":
            for made in parse_sealed(_sealed(data), path, CalibrationFile, "", 99).all:
                _ = made.easiness_array, made.losses_array
        case "record":
            path.write_bytes(data)
            list(doubts_of(read_record(path)))
        case "checkpoint":  # the pickle, beside the storages of the smaller one
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("some/data.pkl", data)
                archive.writestr("some/data/0", bytes(16))
                archive.writestr("some/data/1", bytes(6))
            load_checkpoint(path)
        case "onnx":
            path.write_bytes(data)
            find_shared(path, "it", StoredFile(file="weights.bin", sha256="0" * 64))
            with reading(path) as file:
                computed_when_opened(file), with_guards(file, 0)
        case "picture":
            _ = picture_size(data), describe_unread(data), is_cut_off(data)


def _sealed(data: bytes) -> bytes:
    """With a seal that fits, or nothing behind it would be reached."""
    head, key, tail = data.rpartition(f'"{SEAL}": "'.encode())
    blank = head + key + BLANK_SEAL.encode() + tail[64:]
    return head + key + hashlib.sha256(blank).hexdigest().encode() + tail[64:] if key else data


def seeds(kind: str, folder: Path) -> Iterator[bytes]:
    """What to begin with, from inputs of that kind which are made in an empty folder."""
    (folder / "material").mkdir()
    target = load_target(KINDS[kind], folder / "material")
    for number in range(SEEDS):
        made = folder / f"{number}"
        made.mkdir()
        target.make(Random(number), made)
        for path in filter(Path.is_file, made.glob(FILES[kind])):
            with contextlib.suppress(Exception):  # an archive may be damaged
                data = path.read_bytes()
                yield pickle_of(data) if kind == "checkpoint" else data
