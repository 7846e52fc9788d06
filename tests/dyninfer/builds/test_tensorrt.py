from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dyninfer.builds import tensorrt
from dyninfer.builds.files import Converted, Making, make_build
from dyninfer.builds.spec import IO, BuildSpec, BuildTarget, own_precision, this_system
from dyninfer.builds.tensorrt import TensorRTBuilder, default_batch, device_target
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.engines.trt.builder import EngineOptions
from dyninfer.engines.trt.cuda import DeviceProperties
from dyninfer.engines.trt.file_types import StageFile
from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import EngineBuildError
from tests import support

pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
T4 = DeviceProperties("Tesla T4", (7, 5), 40, 16 << 30)
H100 = DeviceProperties("H100", (9, 0), 132, 80 << 30)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))


@pytest.fixture
def library() -> Library:
    return load_library(Flavour.RTX)


def builder_on(library: Library, gpu: DeviceProperties) -> TensorRTBuilder:
    return TensorRTBuilder(library, device_target(library, gpu))


def wanted_by(builder: TensorRTBuilder, bundle: Bundle) -> BuildSpec:
    return builder.wanted(bundle.manifest, own_precision(bundle.manifest), 8)


def test_the_usual_batch_is_four_or_the_most_there_may_be() -> None:
    assert [str(default_batch(most)) for most in (1, 2, 8, 64)] == [
        "1:1:1",
        "1:2:2",
        "1:4:8",
        "1:4:64",
    ]


def test_tensorrt_builds_for_the_very_gpu(library: Library) -> None:
    other = Library(Flavour.TENSORRT, SimpleNamespace(), "10.4.0")  # type: ignore[arg-type]
    nano = DeviceProperties("Orin", (8, 7), 8, (8 << 30) - (700 << 20))

    target = device_target(other, nano)

    assert target == BuildTarget(
        compute_capabilities=("8.7",),
        system=this_system(),
        gpu_name="Orin",
        multiprocessors=8,
        memory_gib=7,
    )
    assert str(target) == f"Orin (sm87, 8 multiprocessors, 7 GiB), {this_system()}"
    assert device_target(library, nano).gpu_name is None


def test_tensorrt_rtx_builds_for_a_kind_of_gpu_not_for_one(
    bundle: Bundle, library: Library
) -> None:
    spec = wanted_by(builder_on(library, T4), bundle)

    assert spec.target == BuildTarget(compute_capabilities=("7.5",), system=this_system())
    assert str(spec.batch) == "1:4:8"


@pytest.mark.parametrize(("gpu", "told"), [(T4, ("7.5",)), (H100, ())])
def test_the_compiler_is_told_the_gpu_if_it_lists_it(
    bundle: Bundle,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    gpu: DeviceProperties,
    told: tuple[str, ...],
) -> None:
    seen: list[tuple[str, ...]] = []

    def record(_: Library, source: StageFile, options: EngineOptions, *__: object) -> bytes:
        seen.append(options.compute_capabilities)
        return source.name.encode()

    monkeypatch.setattr(tensorrt, "build_engine", record)
    builder = builder_on(library, gpu)
    builder.make(bundle, wanted_by(builder, bundle))

    assert seen == [told] * len(bundle.manifest.stages)


def test_progress_names_the_stage_and_every_engine_is_kept(
    bundle: Bundle, library: Library
) -> None:
    target = BuildTarget(compute_capabilities=("8.6",), system=this_system())
    builder = TensorRTBuilder(library, target, EngineOptions(BatchProfile.parse("1:2:4")))
    reported: dict[str, float] = {}

    opened = builder.make(
        bundle,
        wanted_by(builder, bundle),
        Making(report=lambda stage, share, _: reported.__setitem__(stage, share)),
    )

    assert reported == dict.fromkeys(bundle.manifest.stages, 1.0)
    assert str(opened.build.spec.batch) == "1:2:4"
    for stage in bundle.manifest.stages:
        path = opened.stage_path(stage)
        assert path is not None
        assert path.suffix == ".engine"
        assert path.is_file()


def test_a_precision_that_was_never_converted_names_the_command(
    bundle: Bundle, library: Library
) -> None:
    precision = own_precision(bundle.manifest) | {"head": Precision.INT8}
    builder = builder_on(library, T4)
    wanted = builder.wanted(bundle.manifest, precision, 8)

    with support.refuses(EngineBuildError, "head=int8", "--images FOLDER", "--for sm75"):
        builder.make(bundle, wanted)
    assert not (bundle.path / "engines").exists()


@pytest.mark.parametrize("options", [{}, {IO: "fp16"}], ids=["fp32", "fp16"])
def test_tensorrt_8_builds_no_engine_from_files_with_float16_scales(
    bundle: Bundle, library: Library, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    precision = own_precision(bundle.manifest) | {"head": Precision.INT8}
    builder = builder_on(library, T4)
    made = builder.wanted(bundle.manifest, precision, 8).model_copy(update={"options": options})
    files = Converted({"head": bundle.stage_path("head")})
    make_build(bundle, made, Making(files), lambda name, _: name.encode())

    assert builder.converted(bundle, precision) is not None
    monkeypatch.setattr(Library, "keeps_types", False)
    assert (builder.converted(bundle, precision) is None) is bool(options)
