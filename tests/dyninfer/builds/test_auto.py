"""What ``build --backend auto`` leaves: when it holds, and that nothing is believed of it."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.builds import auto
from dyninfer.builds.auto import AUTO_FILE, AutoRecord, Candidate, Mix, Place
from dyninfer.builds.spec import ENGINES_FOLDER, own_precision, source_hashes
from dyninfer.bundle.documents import dump_sealed
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.engines import host_versions
from dyninfer.errors import BackendUnavailable, BundleError, EngineBuildError, InputError
from dyninfer.hardware import cpu_name
from tests import support


def mix_of(bundle: Bundle, batch: int, backend: str = "onnxruntime", **places: str) -> Mix:
    """A mix of what was exported, on a backend for all stages or one for each."""
    own = own_precision(bundle.manifest)
    stages = {
        stage: Place.model_validate({"backend": places.get(stage, backend), "precision": precision})
        for stage, precision in own.items()
    }
    told = {
        stage: (Candidate(place=place, ms=1.0, ratio=1.0, chosen=True, why="fastest"),)
        for stage, place in stages.items()
    }
    return Mix(batch=batch, stages=stages, candidates=told, ms_per_image=1.0, ratio=0.5)


def record_of(bundle: Bundle, *mixes: Mix, best: int = 1) -> AutoRecord:
    return AutoRecord(
        written_by="dyninfer",
        machine=cpu_name(),
        versions=host_versions(),
        stages_sha256=source_hashes(bundle.manifest),
        best_batch=best,
        mixes=mixes,
        limits={"flips": 1.0},
        images_sha256="0" * 64,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))


def test_nothing_left_names_the_command(bundle) -> None:
    with support.refuses(EngineBuildError, f"dyninfer build {bundle.path} --backend auto"):
        dyninfer.load(bundle.path, backend="auto")
    assert not (bundle.path / ENGINES_FOLDER).exists()


def test_each_number_of_images_opens_its_mix(bundle) -> None:
    pytest.importorskip("openvino")
    single, more = mix_of(bundle, 1, second="openvino"), mix_of(bundle, 4, "openvino")
    auto.write_auto(bundle, record_of(bundle, single, more, best=4))
    pictures = support.random_pictures(6)
    with dyninfer.load(bundle.path) as detector:
        assert detector.max_batch == 8
        expected = detector(pictures)
    for most, batch, on_openvino in [
        (None, 4, {"first", "head", "router", "second"}),
        (1, 1, {"second"}),
        (3, 3, {"second"}),
        (16, 16, {"first", "head", "router", "second"}),
    ]:
        with dyninfer.load(bundle.path, backend="auto", max_batch=most) as detector:
            assert detector.max_batch == batch
            libraries = {name: engine.library for name, engine in detector.engines.items()}
            assert {n for n, library in libraries.items() if library == "OpenVINO"} == on_openvino
            for one, other in zip(detector(pictures), expected, strict=True):
                assert one.exit_index == other.exit_index
                np.testing.assert_allclose(one.boxes_xyxy, other.boxes_xyxy, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"machine": "Another CPU, 64 cores"}, "on Another CPU, 64 cores, and this is"),
        ({"versions": {"onnxruntime": "0.1"}}, "with onnxruntime 0.1, and here is"),
        ({"stages_sha256": "f"}, "with other files"),
        ({"plan": Precision.INT8}, "the build of int8"),
    ],
    ids=["machine", "versions", "files", "int8"],
)
def test_what_does_not_hold_is_said_with_what_is_opened(bundle, caplog, changes, said) -> None:
    mix = mix_of(bundle, 1)
    if changes.pop("plan", None):
        place = Place(backend="onnxruntime", precision=Precision.INT8)
        mix = mix.model_copy(update={"stages": {**mix.stages, "second": place}})
    if "stages_sha256" in changes:
        changes = {"stages_sha256": dict.fromkeys(bundle.manifest.stages, "f" * 64)}
    auto.write_auto(bundle, record_of(bundle, mix).model_copy(update=changes))
    with (
        caplog.at_level(logging.WARNING, "dyninfer"),
        dyninfer.load(bundle.path, backend="auto") as detector,
    ):
        assert (detector.backend, detector.max_batch) == ("onnxruntime", 8)
        assert set(detector.engine_record().precision.values()) == {Precision.FP32}
    (warning,) = caplog.messages
    assert said in warning
    assert "falling back to onnxruntime as exported" in warning
    assert f"dyninfer build {bundle.path} --backend auto" in warning
    assert "\n" not in warning


def test_a_backend_that_came_or_went_since_is_noticed(bundle, monkeypatch, caplog) -> None:
    auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
    here = host_versions()
    here = {"onnxruntime": here["onnxruntime"], **({} if "openvino" in here else {"openvino": "1"})}
    monkeypatch.setattr(auto, "host_versions", lambda: here)
    with dyninfer.load(bundle.path, backend="auto"):
        assert "falling back to onnxruntime" in caplog.text


HOSTILE = {
    "nan": lambda d: d["mixes"][0].update(ratio=math.nan),
    "infinite": lambda d: d["mixes"][0].update(ms_per_image=math.inf),
    "negative": lambda d: d["mixes"][0].update(ms_per_image=-1),
    "text for a number": lambda d: d.update(best_batch="one"),
    "a huge batch": lambda d: d.update(best_batch=10**9),
    "a batch without a mix": lambda d: d.update(best_batch=2),
    "no mix": lambda d: d.update(mixes=[]),
    "too many": lambda d: d.update(mixes=d["mixes"] * 100),
    "twice": lambda d: d.update(mixes=d["mixes"] * 2),
    "a list for a mapping": lambda d: d["mixes"][0].update(stages=[1, 2]),
    "another backend": lambda d: d["mixes"][0]["stages"]["first"].update(backend="tensorrt"),
    "an unknown precision": lambda d: d["mixes"][0]["stages"]["first"].update(precision="fp4"),
    "a stage too few": lambda d: d["mixes"][0]["stages"].pop("second"),
    "a stage too many": lambda d: d["mixes"][0]["stages"].update(
        other=d["mixes"][0]["stages"]["first"]
    ),
    "a long text": lambda d: d.update(machine="a" * 1_000_000),
    "an unknown field": lambda d: d.update(files="/etc/passwd"),
    "a later schema": lambda d: d.update(schema_version=2),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_record_is_refused_in_one_line(bundle, change) -> None:
    auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
    path = bundle.path / ENGINES_FOLDER / AUTO_FILE
    document = json.loads(path.read_text())
    del document["seal"]
    change(document)
    path.write_text(dump_sealed(document))
    with support.refuses(BundleError, AUTO_FILE):
        dyninfer.load(bundle.path, backend="auto")
    with dyninfer.load(bundle.path) as detector:  # nobody else reads it
        assert detector.backend == "onnxruntime"


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, b"{" + b" " * (33 << 20)]
)
def test_a_record_that_is_none_is_refused(bundle, raw) -> None:
    path = auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
    path.write_bytes(raw)
    with support.refuses(BundleError, AUTO_FILE):
        dyninfer.load(bundle.path, backend="auto")


def test_a_changed_or_linked_record_is_refused(bundle, tmp_path) -> None:
    path = auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
    raw = path.read_text()
    path.write_text(raw.replace('"ratio": 0.5', '"ratio": 0.1'))
    with support.refuses(BundleError, "was changed", "--backend auto --force"):
        dyninfer.load(bundle.path, backend="auto")
    (tmp_path / "elsewhere.json").write_text(raw)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.json")
    with support.refuses(BundleError, "link"):
        dyninfer.load(bundle.path, backend="auto")


def test_what_auto_chooses_itself_cannot_be_given(bundle) -> None:
    auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
    for given in ({"precision": "int8"}, {"provider": "cpu"}, {"device": "cuda:0"}):
        with support.refuses(InputError, repr(next(iter(given.values()))), "'auto'"):
            dyninfer.load(bundle.path, backend="auto", **given)
    with dyninfer.load(bundle.path, backend="auto", device="cpu") as detector:
        assert detector.device == "cpu"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("atuo", "auto"), ("openvion", "openvino"), ("onnx-runtime", "onnxruntime")],
)
def test_a_misspelt_backend_is_told_what_was_meant(bundle, given, meant) -> None:
    with support.refuses(BackendUnavailable, repr(given), f"did you mean {meant!r}?"):
        dyninfer.load(bundle.path, backend=given)


def test_a_folder_that_cannot_be_written_is_said(bundle, monkeypatch) -> None:
    def refuse(path: Path, _content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(auto, "write_atomically", refuse)
    with support.refuses(EngineBuildError, AUTO_FILE, "cannot be written"):
        auto.write_auto(bundle, record_of(bundle, mix_of(bundle, 1)))
