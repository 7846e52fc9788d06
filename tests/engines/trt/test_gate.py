"""A gate for TensorRT's engines, which are measured themselves where there is a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.progress import Progress

from dyninfer.builds import tensorrt
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Making
from dyninfer.builds.spec import parse_precision
from dyninfer.builds.tensorrt import TensorRTBuilder
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.cli import build_gate
from dyninfer.cli.build_conversions import Conversions
from dyninfer.cli.build_gate import GatedBuild
from dyninfer.cli.build_options import BackendChoice, BuildOptions
from dyninfer.engines import open_backend
from dyninfer.engines.trt.backend import TrtBackend
from dyninfer.errors import BackendUnavailable, InputError, VerificationError
from tests import support
from tests.dyninfer.cli import frail
from tests.engines.trt.rig import Rig, make_rig
from tests.engines.trt.standin.library import engine_bytes, profiles_of

LIMITS = {"flips": 1.0, "differ": 2.0}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return frail.write_pictures(tmp_path / "pictures", range(10, 240, 20))


class Compiler:
    """In place of TensorRT's: what it makes of a stage in some precisions has half the weights."""

    def __init__(self) -> None:
        self.stage, self.worse = "second", set[Precision]()
        self.built: list[str] = []

    def __call__(self, _library, source, options, *_others) -> bytes:
        self.built.append(source.name)
        model = onnx.load(source.onnx)
        if source.name == self.stage and source.precision in self.worse:
            for tensor in model.graph.initializer:
                array = numpy_helper.to_array(tensor)
                if array.ndim and array.dtype in (np.float32, np.float16):
                    half = (array / 2).astype(array.dtype)
                    tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
        return engine_bytes(model, profiles=profiles_of(options.batch))


@pytest.fixture
def compiler(monkeypatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(tensorrt, "build_engine", made)
    return made


@pytest.fixture
def rig(monkeypatch) -> Rig:
    """The stand-in's GPU; each backend that is opened on it is closed by whoever was given it."""
    made = make_rig()
    flavour, platform = made.fake.library.flavour, made.backend.platform
    monkeypatch.setattr(
        build_gate, "open_backend", lambda *_: TrtBackend(flavour, platform=platform)
    )
    return made


def gated(
    rig: Rig, path: Path, pictures: Path, precision: str, folder: Path, **travel: str
) -> GatedBuild:
    asked = BuildOptions(images=[pictures], precision=precision, device="cuda:1")
    bundle = Bundle.open(path)
    folder.mkdir()
    builder = replace(TensorRTBuilder.on(rig.backend.platform), travel=travel)
    wanted = builder.wanted(bundle.manifest, parse_precision(precision, bundle.manifest), 8)
    conversions = Conversions(asked, bundle, wanted, folder, Progress(disable=True))
    return GatedBuild(conversions, builder, wanted, LIMITS, Making(replace=True))


def test_engines_are_measured_where_they_can_run(rig, compiler, tmp_path, pictures) -> None:
    compiler.worse = {Precision.FP16}
    path = frail.write_cascade(tmp_path / "c.dyn", "is robust")
    made = gated(rig, path, pictures, "fp16", tmp_path / "work").make()
    gate = made.build.gate
    assert gate is not None
    assert [(fall.stage, fall.after.value) for fall in gate.fell_back] == [("second", "fp32")]
    assert "of the detections at exit 1 differ" in gate.fell_back[0].why
    assert gate.measured_on == "tensorrt 10.13.0, Stand-in GPU 1"
    assert gate.found["differ"] == 0
    precision = {name: p.value for name, p in made.build.spec.precision.items()}
    assert (precision["first"], precision["second"]) == ("fp16", "fp32")
    assert list((path / "engines").glob("*/build.json")) == [made.path / "build.json"]
    assert not rig.machine.leaks()


def test_engines_in_float32_that_differ_are_refused(rig, compiler, tmp_path, pictures) -> None:
    compiler.worse = {Precision.FP32}
    path = frail.write_cascade(tmp_path / "c.dyn", "is robust")
    with support.refuses(
        VerificationError, "nothing was built", "at exit 1 differ", "no stage is left"
    ):
        gated(rig, path, pictures, "fp32", tmp_path / "work").make()
    assert support.files_below(path / "engines").keys() <= {".lock"}
    assert not rig.machine.leaks()


def test_without_the_gpu_conversions_stand_for_engines(
    monkeypatch, rig, compiler, tmp_path, pictures
) -> None:
    def none(name, device):
        if name == "onnxruntime":
            return open_backend(name, device)
        raise BackendUnavailable("no GPU")

    monkeypatch.setattr(build_gate, "open_backend", none)
    compiler.worse = {Precision.FP16}  # nobody can see that
    path = frail.write_cascade(tmp_path / "c.dyn", "loses digits")
    gate = gated(rig, path, pictures, "fp16", tmp_path / "work").make().build.gate
    assert gate is not None
    assert [(fall.stage, fall.after.value) for fall in gate.fell_back] == [("first", "fp32")]
    rounded = ", float16 rounded after every layer, instead of the engines"
    assert gate.measured_on.endswith(rounded)
    around = gated(rig, path, pictures, "second=int8", tmp_path / "int8", io="fp16").make()
    assert around.build.gate is not None
    assert around.build.gate.measured_on.endswith(rounded)  # of what surrounds the 8 bits
    with support.refuses(InputError, "cannot run here", "leave out --gate"):
        gated(rig, path, pictures, "fp32", tmp_path / "more").make()
    assert len(list((path / "engines").glob("*/build.json"))) == 2


def test_files_with_options_of_their_own_are_run_for_the_gate(
    monkeypatch, tmp_path, pictures
) -> None:
    """What an option changes comes after the conversion, so that only the build itself shows it."""
    opened: list[str] = []

    def noting(name, device):
        opened.append(name)
        return open_backend(name, device)

    monkeypatch.setattr(build_gate, "open_backend", noting)
    bundle = Bundle.open(frail.write_static(tmp_path / "s.dyn", "is robust"))
    asked = BuildOptions(backend=BackendChoice.ONNXRUNTIME, images=[pictures], precision="fp16")
    builder = ConversionBuilder()
    plain = builder.wanted(bundle.manifest, parse_precision("fp16", bundle.manifest), 8)
    for number, options in enumerate(({}, {"other": "yes"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        wanted = plain.model_copy(update={"options": options})
        conversions = Conversions(asked, bundle, wanted, folder, Progress(disable=True))
        made = GatedBuild(conversions, builder, wanted, LIMITS, Making(replace=True)).make()
        assert made.build.gate is not None
        rounded = "float16 rounded" in made.build.gate.measured_on
        assert (opened, rounded) == (["onnxruntime"], not options)
        opened.clear()


FIVE = ["first", "router", "head", "second", "last"]


@pytest.mark.parametrize(
    ("asked", "travel", "stage", "worse", "expected", "rebuilt", "halves"),
    [
        # in float16 it hands on what it did; in float32 the next stage reads another type
        ("fp16", {"io": "fp16"}, "second", {"fp16"}, "fp32", ["second", "last"], {"map"}),
        (
            "int8",
            {"io": "fp16"},
            "second",
            {"int8", "fp16"},
            "fp32",
            ["second", "second", "last"],
            {"map"},
        ),
        ("fp16", {"io": "fp16"}, "first", {"fp16"}, "fp32", ["first", "head", "second"], {"deep"}),
        ("fp16", {}, "first", {"fp16"}, "fp32", ["first"], set()),
        (
            "int8",
            {"io": "fp16", "input": "uint8"},
            "last",
            {"int8"},
            "fp16",
            ["last"],
            {"map", "deep"},
        ),
    ],
    ids=["read by one", "twice", "read by two", "in fp32", "pixels"],
)
def test_a_fall_back_builds_the_stages_again_that_differ(
    rig, compiler, tmp_path, pictures, asked, travel, stage, worse, expected, rebuilt, halves
) -> None:
    compiler.stage, compiler.worse = stage, {Precision(name) for name in worse}
    path = frail.write_maps(tmp_path / "m.dyn", "is robust")
    made = gated(rig, path, pictures, asked, tmp_path / "work", **travel).make()
    assert compiler.built == [*FIVE, *rebuilt]
    precision = {name: p.value for name, p in made.build.spec.precision.items()}
    plan = parse_precision(asked, Bundle.read(path).manifest)
    assert precision == {name: p.value for name, p in plan.items()} | {stage: expected}
    assert all(built.build_seconds >= 0 for built in made.build.stages.values())

    assert {*made.build.tensors} - {"images"} == halves
    gate = made.build.gate
    assert gate is not None
    assert (gate.measured_on, gate.found["differ"]) == ("tensorrt 10.13.0, Stand-in GPU 1", 0)
    assert not rig.machine.leaks()
    assert not rig.machine.violations
