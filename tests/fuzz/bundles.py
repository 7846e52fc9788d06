"""Bundles whose manifest, stages, records and builds were changed, and sealed again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

import dyninfer
from dyninfer.bundle.calibration import CALIBRATION_FILE
from dyninfer.bundle.documents import SEAL
from dyninfer.bundle.folder import MANIFEST_FILE, PARITY_FILE, ROUTER_FILE, Bundle
from dyninfer.cli.info import print_bundle
from tests import support
from tests.dyninfer.calibrations import calibration_of, spread
from tests.fuzz.models import mutate_model
from tests.fuzz.mutation import hostile_value, mutate_json, sealed
from tests.fuzz.target import UnexpectedError

WRITERS = (
    support.write_two_exits,
    support.write_three_exits,
    support.write_static_two_stages,
    support.write_static_classifier,
    support.write_select_detectors,
    support.write_select_classifiers,
    support.write_shared_weights,
)
PICTURES = tuple(
    np.random.default_rng(side).integers(0, 256, (side, 2 * side, 3), np.uint8) for side in (1, 9)
)


def calibrated(bundle: Path) -> Path:
    """The bundle, with a calibration of the engines that open it here."""
    with dyninfer.load(bundle) as detector:
        routers, record = len(detector.points), detector.engine_record()
        if routers and detector.points[0].signal == "easiness":
            easiness = np.concatenate([spread(20, seed) for seed in range(routers)])
            exit_ms = ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0))[: routers + 1]
            made = calibration_of(easiness, exit_ms, 0.4, (0.1, 0.2, 0.3), 0.4)
            detector.bundle.write_calibration(made.model_copy(update={"engine": record}))
    return bundle


def verified(bundle: Path) -> Path:
    """The bundle, with what a verification has found."""
    opened = Bundle.read(bundle)
    check = {"stage": "head", "tensor": "boxes_xyxy", "max_abs": 0.1, "tolerance": 1, "ok": True}
    opened.write_parity(
        {
            "stages_sha256": {name: s.sha256 for name, s in opened.manifest.stages.items()},
            **{"checks": [check], "passed": True, "flips": 0, "decisions": 3},
            **{"backend": "onnxruntime", "device": "cpu", "images": 2},
        }
    )
    return bundle


class Bundles:
    """Loaded, asked about two pictures and prepared tensors, and shown by ``dyninfer info``."""

    def __init__(self, material: Path) -> None:
        paths = (write(material / f"{write.__name__}.dyn") for write in WRITERS)
        self._bundles = [verified(calibrated(path)) for path in paths]

    def make(self, rng: Random, folder: Path) -> None:
        bundle = folder / "bundle"
        shutil.copytree(rng.choice(self._bundles), bundle)
        manifest = _unsealed(bundle / MANIFEST_FILE)
        for _ in range(rng.choice((1, 1, 2))):
            match rng.randrange(8):
                case 0 | 1 | 2:
                    manifest = mutate_json(rng, manifest)
                case 3 | 4 | 5:
                    _change_stage(rng, bundle, manifest)
                case 6:
                    _change_record(rng, bundle)
                case _:
                    _change_files(rng, bundle)
        path = bundle / MANIFEST_FILE
        if path.is_file():  # no pipe, which nobody reads
            path.write_bytes(sealed(rng, manifest))

    def feed(self, folder: Path) -> None:
        bundle = folder / "bundle"
        with dyninfer.load(bundle, build=False) as detector:
            for policy in (None, dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()):
                answers = detector(list(PICTURES), policy=policy)
                if len(answers) != len(PICTURES):
                    raise UnexpectedError(f"{len(answers)} answers to {len(PICTURES)} pictures")
            prepared = detector.prepare(PICTURES)
            _check_same(detector, prepared)
            detector.trace(prepared)
        print_bundle(bundle)


def _check_same(detector: dyninfer.Detector, prepared: Mapping[str, Any]) -> None:
    """Twice the same question has the same answer, of the type and rank that was declared."""
    first, second = detector.infer(prepared), detector.infer(prepared)
    for one, other in zip(first, second, strict=True):
        final = detector.manifest.stages[detector.manifest.ways[one.exit_index].final]
        declared = {spec.name: spec for spec in final.outputs}
        for name, array in one.outputs.items():
            spec = declared[name]
            if array.dtype != spec.dtype or array.ndim != len(spec.shape) - 1:
                raise UnexpectedError(f"{name} is {array.dtype} {array.shape}, declared as {spec}")
            if not np.array_equal(array, other.outputs[name], equal_nan=True):
                raise UnexpectedError(f"{name} is another each time: whose memory is it?")


def _unsealed(path: Path) -> Any:
    document = json.loads(path.read_bytes())
    return {key: value for key, value in document.items() if key != SEAL}


def _change_stage(rng: Random, bundle: Path, manifest: Any) -> None:
    """Another model, whose hash and at times whose ports the manifest tells as they now are."""
    try:
        entry = rng.choice(list(manifest["stages"].values()))
        path = bundle / entry["file"]
        if not path.is_file():  # a pipe, which nobody fills
            return
        data = mutate_model(rng, path.read_bytes(), large=True)
        path.write_bytes(data)
        entry["sha256"] = hashlib.sha256(data).hexdigest()
        if rng.random() < 0.6:
            graph = onnx.load_from_string(data).graph
            described = support.stage_entry(onnx.helper.make_model(graph), entry["file"], data)
            entry |= {k: v for k, v in described.model_dump(mode="json").items() if k != "sha256"}
    except Exception:  # the manifest, or the model, was changed too much before
        return


def _change_record(rng: Random, bundle: Path) -> None:
    path = bundle / rng.choice((CALIBRATION_FILE, PARITY_FILE, PARITY_FILE, ROUTER_FILE))
    document = {"routers": [{"images": 3}]}
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):  # changed before
        if path.is_file():
            document = _unsealed(path)
    if not path.exists() or path.is_file():
        path.write_bytes(sealed(rng, mutate_json(rng, document)))


def _change_files(rng: Random, bundle: Path) -> None:
    """Something else lies where a file or folder is expected."""
    names = [*(str(p.relative_to(bundle)) for p in bundle.rglob("*")), "engines", "engines/x"]
    path = bundle / rng.choice(names)
    if path.parent.exists() and not path.parent.is_dir():  # changed before
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    match rng.randrange(7):
        case 0:
            path.mkdir()
        case 1:
            path.symlink_to(rng.choice(("/", "/etc/passwd", "/dev/zero", path, "..", "nowhere")))
        case 2:
            os.mkfifo(path)
        case 3:
            path.write_bytes(b"")
        case 4:
            path.write_bytes(rng.randbytes(200))
        case 5:
            path.write_text(json.dumps(hostile_value(rng)))
        case _:
            pass  # it is gone
