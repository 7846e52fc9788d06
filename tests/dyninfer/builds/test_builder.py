from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Converted, Making, make_build
from dyninfer.builds.gate import GateRecord
from dyninfer.builds.spec import (
    FOR_OPENVINO,
    BuildSpec,
    own_precision,
    parse_precision,
    source_hashes,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Precision
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.engines.ort.runtime import PlainStages
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


def build_int8(bundle: Bundle, backend: str, gated: bool = False, fell: bool = False) -> Path:
    """A build of stages in int8, in name, that were made for a backend; its folder.

    Within its gate, all of them may have fallen back to fp16.
    """
    precision = parse_precision("int8", bundle.manifest)
    wanted = ConversionBuilder(backend_of=lambda _stage: backend).wanted(
        bundle.manifest, precision, 1
    )
    assert wanted is not None
    files = {name: bundle.stage_path(name) for name, p in precision.items() if p is Precision.INT8}
    gate = GateRecord(
        limits={"differ": 1},
        found={"differ": 0},
        asked=precision,
        pictures=1,
        images_sha256="0" * 64,
        measured_on=backend,
    )
    making = Making(Converted(files), accept=(lambda _build: (gate, {})) if gated else None)
    if fell:
        lower = parse_precision("fp16", bundle.manifest)
        wanted = wanted.model_copy(update={"precision": lower})
    return make_build(bundle, wanted, making).path


def opened(bundle: Bundle, backend: str, precision: str = "int8") -> Path:
    with dyninfer.load(bundle.path, backend=backend, precision=precision) as detector:
        assert detector.build is not None
        return detector.build.path


def test_each_backend_opens_the_int8_that_was_made_for_it(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    usual = build_int8(bundle, "onnxruntime", gated=True)
    assert opened(bundle, "openvino") == usual  # better than none
    placed = build_int8(bundle, "openvino")
    assert placed != usual
    assert opened(bundle, "openvino") == placed
    assert opened(bundle, "openvino,router=onnxruntime") == placed  # the router is in fp32
    assert opened(bundle, "onnxruntime") == usual
    assert opened(bundle, "first=openvino") == usual  # which fits two of three stages
    shutil.rmtree(usual)
    assert opened(bundle, "onnxruntime") == placed


def test_what_a_gate_raised_for_one_backend_is_not_made_for_the_other(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    usual = build_int8(bundle, "onnxruntime")
    raised = build_int8(bundle, "openvino", gated=True, fell=True)
    assert opened(bundle, "onnxruntime") == usual
    assert opened(bundle, "openvino") == raised


def test_a_stage_that_is_not_in_int8_is_made_for_no_backend(bundle: Bundle) -> None:
    def options(plan: str, backend: str) -> dict[str, str]:
        builder = ConversionBuilder(backend_of=lambda _stage: backend)
        spec = builder.wanted(bundle.manifest, parse_precision(plan, bundle.manifest), 1)
        assert spec is not None
        return dict(spec.options)

    mixed = "first=int8,second=fp16"
    assert options(mixed, "openvino") == {FOR_OPENVINO: "first"}
    assert options(mixed, "onnxruntime") == options("fp16", "openvino") == {}


def test_what_openvino_lacks_is_built_for_it(bundle: Bundle) -> None:
    pytest.importorskip("openvino")
    with support.refuses(EngineBuildError, "--backend openvino --precision int8 --images FOLDER"):
        dyninfer.load(bundle.path, backend="openvino", precision="int8")


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


def convert_and_load(bundle: Bundle, tmp_path: Path) -> Path:
    """A build whose converted head is there; the file of it."""
    head = tmp_path / "head.onnx"
    head.write_bytes(bundle.stage_path("head").read_bytes() + b"\x72\x00")
    spec = convert_head(bundle, head)
    (file,) = (bundle.path / "engines" / spec.folder_name).glob("*.onnx")
    return file


def test_a_converted_file_that_changes_between_hash_and_open_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, opens, opened = convert_and_load(bundle, tmp_path), OrtBackend.open, []

    def meddling(self, name, stage, path, host_outputs):
        if name == "head":
            opened.append(path)
            file.write_bytes(bundle.stage_path("head").read_bytes())
        return opens(self, name, stage, path, host_outputs)

    monkeypatch.setattr(OrtBackend, "open", meddling)
    with support.refuses(dyninfer.BundleError, str(file), "while it was opened"):
        dyninfer.load(bundle.path, precision="head=fp16")
    assert opened == [file]


def test_a_forked_child_looks_at_a_build_again(bundle: Bundle, tmp_path: Path) -> None:
    file = convert_and_load(bundle, tmp_path)
    with dyninfer.load(bundle.path, precision="head=fp16") as detector:
        file.write_bytes(bundle.stage_path("head").read_bytes())
        child = os.fork()
        if not child:
            try:
                detector.infer({"images": support.coded_images([(1, 1, 1)])})
            except dyninfer.BundleError as error:
                os._exit(7 if str(file) in str(error) else 8)
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_converted_file_that_changes_before_it_is_built_again_is_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "head.onnx"
    file.write_bytes(bundle.stage_path("head").read_bytes())
    spec = BuildSpec(
        backend="onnxruntime",
        precision=own_precision(bundle.manifest) | {"head": Precision.FP16},
        stages_sha256=source_hashes(bundle.manifest),
    )
    converted = Converted({"head": file}, {"head": file_sha256(file)})
    file.write_bytes(file.read_bytes() + b"\x72\x00")
    with support.refuses(EngineBuildError, str(file), "was changed"):
        make_build(bundle, spec, Making(converted))


def test_stages_that_are_run_plainly_or_copied_are_what_was_hashed(
    bundle: Bundle, tmp_path: Path
) -> None:
    head = bundle.stage_path("head")
    head.write_bytes(head.read_bytes() + b"\x72\x00")
    with support.refuses(dyninfer.BundleError, str(head), "changed after the export"):
        PlainStages(bundle).run("head", {})
    with support.refuses(dyninfer.BundleError, str(head), "changed after the export"):
        bundle.copy_stage("head", tmp_path / "copy")
