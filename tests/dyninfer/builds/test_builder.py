from __future__ import annotations

from pathlib import Path

import pytest

import dyninfer
from dyninfer.builds.files import Converted, Making, make_build
from dyninfer.builds.spec import BuildSpec, own_precision, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.errors import EngineBuildError, InputError
from tests import support


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))


def convert_head(bundle: Bundle, file: Path) -> BuildSpec:
    """A build whose head, of precision fp16 in name, is another file."""
    spec = BuildSpec(
        backend="onnxruntime",
        precision=own_precision(bundle.manifest) | {"head": Precision.FP16},
        stages_sha256=source_hashes(bundle.manifest),
    )
    make_build(bundle, spec, Making(Converted({"head": file})))
    return spec


def test_a_bundle_needs_no_build_for_its_own_precision(bundle: Bundle) -> None:
    for precision in (None, "fp32", "first=fp32"):
        with dyninfer.load(bundle.path, precision=precision, build=False) as detector:
            assert detector.build is None
            assert detector.engine_record().stages_sha256 == source_hashes(bundle.manifest)


def test_the_build_of_a_precision_is_what_runs(bundle: Bundle, tmp_path: Path) -> None:
    other = Bundle.open(support.write_two_exits(tmp_path / "other.dyn"))
    head = tmp_path / "head.onnx"
    content = other.stage_path("head").read_bytes()
    head.write_bytes(content + b"\x72\x00")  # one more, empty field: other bytes, same model
    convert_head(bundle, head)

    with dyninfer.load(bundle.path, precision="head=fp16") as detector:
        detector.policy = dyninfer.AlwaysEasy()
        assert detector.build is not None
        assert len(detector.infer({"images": support.coded_images([(1, 1, 1)])})) == 1
        record = detector.engine_record()

    assert record.precision["head"] is Precision.FP16
    assert record.precision["first"] is Precision.FP32
    assert record.stages_sha256["head"] != bundle.manifest.stages["head"].sha256
    assert record.stages_sha256["first"] == bundle.manifest.stages["first"].sha256


@pytest.mark.parametrize("build", [True, False])
def test_a_precision_that_was_not_built_names_the_command(bundle: Bundle, build: bool) -> None:
    command = f"dyninfer build {bundle.path} --backend onnxruntime --precision int8 --images FOLDER"

    with support.refuses(EngineBuildError, command):
        dyninfer.load(bundle.path, precision="int8", build=build)


def test_a_build_of_another_precision_is_shown_beside_what_is_wanted(
    bundle: Bundle, tmp_path: Path
) -> None:
    head = tmp_path / "head.onnx"
    head.write_bytes(bundle.stage_path("head").read_bytes())
    built = convert_head(bundle, head)

    with support.refuses(
        EngineBuildError, built.folder_name, "precision: built", "head=fp16", "second=fp16"
    ):
        dyninfer.load(bundle.path, precision="fp16", build=False)


def test_a_precision_that_cannot_be_understood_is_refused(bundle: Bundle) -> None:
    with support.refuses(InputError, "'int7'", "int8"):
        dyninfer.load(bundle.path, precision="int7")
    with support.refuses(InputError, "'neck'", "second"):
        dyninfer.load(bundle.path, precision="neck=int8")


def test_a_changed_converted_file_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    head = tmp_path / "head.onnx"
    head.write_bytes(bundle.stage_path("head").read_bytes())
    spec = convert_head(bundle, head)
    (file,) = (bundle.path / "engines" / spec.folder_name).glob("*.onnx")
    file.write_bytes(file.read_bytes() + b"?")

    with support.refuses(dyninfer.BundleError, str(file), "was changed after it was built"):
        dyninfer.load(bundle.path, precision="head=fp16")
