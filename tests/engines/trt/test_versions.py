"""What each generation of TensorRT is told, by modules that have just what it has.

They record calls; that the calls exist in the real libraries is shown in ``test_api.py``.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dyninfer.engines.ort as ort_files
from dyninfer.bundle.manifest import Precision, Stage, TensorSpec
from dyninfer.engines.trt.builder import EngineOptions, build_engine, check_options
from dyninfer.engines.trt.file_types import StageFile
from dyninfer.engines.trt.library import Flavour, Library
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import EngineBuildError
from tests import support

BATCH = BatchProfile(minimum=1, optimum=4, maximum=16)


class Memory(bytes):
    """What the library calls host memory."""


class Cache:
    """A timing cache: the bytes it was made from, and one kernel's time more."""

    def __init__(self, known: bytes) -> None:
        self.known = known

    def serialize(self) -> Memory:
        return Memory(self.known + b"+conv")


class Config:
    def __init__(self, version: str) -> None:
        self.version = version
        self.told: list[tuple[Any, ...]] = []
        self.cache: Cache | None = None

    def set_flag(self, flag: str) -> None:
        self.told.append(("flag", flag))

    def set_preview_feature(self, feature: str, enable: bool) -> None:
        assert enable
        self.told.append(("feature", feature))

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.told.append((pool, size))

    def add_optimization_profile(self, profile: Profile) -> int:
        self.told.append(("profile", profile.shapes))
        return 0

    def create_timing_cache(self, known: bytes) -> Cache:
        return Cache(known)

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.known and not cache.known.startswith(self.version.encode()):
            return False
        self.cache = Cache(cache.known or self.version.encode())
        return True

    def get_timing_cache(self) -> Cache:
        assert self.cache is not None
        return self.cache


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, ...]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = shapes


class Severity:
    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)


class Logger(Severity):
    def __init__(self) -> None:
        pass


def fake_library(
    version: str, *, flags: dict[str, int], builder_flags: str, **features: str
) -> tuple[Any, Library]:
    """A module of this version, and what is called on it."""
    seen = SimpleNamespace(config=Config(version), flags=None)
    images = SimpleNamespace(name="images", shape=(-1, 3, 8, 8))
    seen.layers = []
    network = SimpleNamespace(
        num_inputs=1,
        get_input=lambda _: images,
        get_layer=lambda index: seen.layers[index],
    )

    class Builder:
        def __init__(self, logger: Logger) -> None:
            seen.logger = logger

        def create_network(self, flags: int) -> Any:
            seen.flags = flags
            network.num_layers = len(seen.layers)
            return network

        def create_builder_config(self) -> Config:
            return seen.config

        def create_optimization_profile(self) -> Profile:
            return Profile()

        def build_serialized_network(self, _network: Any, _config: Config) -> Memory | None:
            return seen.fails(seen.logger) if hasattr(seen, "fails") else Memory(b"engine")

    module = SimpleNamespace(
        __version__=version,
        Builder=Builder,
        ILogger=Logger,
        OnnxParser=lambda *_: SimpleNamespace(parse_from_file=lambda _: True),
        ParserError=SimpleNamespace(),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        NetworkDefinitionCreationFlag=SimpleNamespace(**flags),
        BuilderFlag=SimpleNamespace(**{name: name for name in builder_flags.split()}),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere+"),
        PreviewFeature=SimpleNamespace(**features),
        DataType=SimpleNamespace(FLOAT="float32", HALF="float16", UINT8="uint8"),
    )
    return seen, Library(Flavour.TENSORRT, module, version)  # type: ignore[arg-type]


def tensorrt_8() -> tuple[Any, Library]:
    names = "FP16 INT8 OBEY_PRECISION_CONSTRAINTS VERSION_COMPATIBLE"
    shares = {"PROFILE_SHARING_0806": "shared profiles"}
    return fake_library("8.6.1", flags={"EXPLICIT_BATCH": 0}, builder_flags=names, **shares)


def tensorrt_10() -> tuple[Any, Library]:
    flags = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    names = "FP16 INT8 OBEY_PRECISION_CONSTRAINTS VERSION_COMPATIBLE"
    shares = {"PROFILE_SHARING_0806": "shared profiles"}
    return fake_library("10.4.0", flags=flags, builder_flags=names, **shares)


def tensorrt_11() -> tuple[Any, Library]:
    flags = {"STRONGLY_TYPED": 0}
    return fake_library("11.4.1", flags=flags, builder_flags="VERSION_COMPATIBLE")


GATHERING = Path(ort_files.__file__).with_name("gather_rows_float32.onnx")
"""Any ONNX file: the stand-in does not look at it, but the builder wants one."""


def source(
    precision: Precision = Precision.FP32, rows_per_run: int | None = None, onnx: Path = GATHERING
) -> StageFile:
    spec = TensorSpec(name="images", dtype="float32", shape=("batch", 3, 8, 8))
    stage = Stage(
        file="onnx/body.onnx",
        sha256="0" * 64,
        inputs=(spec,),
        outputs=(),
        parameters=0,
        macs=0,
        rows_per_run=rows_per_run,  # type: ignore[arg-type]  # 1 or None
    )
    return StageFile("body", stage, precision, onnx)


@pytest.mark.parametrize(
    ("version", "flags"),
    [(tensorrt_8, 0b01), (tensorrt_10, 0b11), (tensorrt_11, 0b01)],
)
def test_networks_get_the_flags_that_a_version_has(version: Any, flags: int) -> None:
    seen, library = version()

    assert build_engine(library, source(), EngineOptions(BATCH)) == b"engine"
    assert seen.flags == flags


@pytest.mark.parametrize(
    ("version", "told"), [(tensorrt_8, ["shared profiles"]), (tensorrt_10, []), (tensorrt_11, [])]
)
def test_only_tensorrt_8_must_be_told_to_share_profiles(version: Any, told: list[str]) -> None:
    seen, library = version()
    build_engine(library, source(), EngineOptions(BATCH))

    assert [feature for what, feature in seen.config.told if what == "feature"] == told


class Layer:
    """A layer of TensorRT's network; of what was never set, it says what is fastest."""

    def __init__(self, name: str, *makes: str) -> None:
        self.name = name
        self.precision = "fastest"
        self.makes = list(makes)

    @property
    def num_outputs(self) -> int:
        return len(self.makes)

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype=self.makes[index].removesuffix("!"))

    def set_output_type(self, index: int, dtype: str) -> None:
        self.makes[index] = f"{dtype}!"


def half_file(path: Path) -> Path:
    """A convolution in float16, whose exponential is kept in float32, and its largest places."""
    weight = numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float16), "weight")
    node = helper.make_node
    nodes = [
        node("Cast", ["images"], ["half"], "to half", to=TensorProto.FLOAT16),
        node("Conv", ["half", "weight"], ["sums"], "conv"),
        node("Cast", ["sums"], ["exact"], "to float", to=TensorProto.FLOAT),
        node("Exp", ["exact"], ["powers"], "exp"),
        node("ArgMax", ["powers"], ["places"], "argmax", axis=1),
        node("Cast", ["powers"], ["short"], "back", to=TensorProto.FLOAT16),
        node("Relu", ["short"], ["y"], "relu"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    places = helper.make_tensor_value_info("places", TensorProto.INT64, None)
    graph = helper.make_graph(nodes, "stage", [images], [y, places], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_tensorrt_8_computes_in_what_the_file_says(tmp_path: Path) -> None:
    path = half_file(tmp_path / "half.onnx")
    for precision, more in ((Precision.FP16, []), (Precision.INT8, ["INT8"])):
        seen, library = tensorrt_8()
        seen.layers = [
            Layer("to half", "float16"),
            Layer("conv", "float16"),
            Layer("to float", "float32"),
            Layer("exp", "float32"),
            Layer("exp_12", "float32"),
            Layer("argmax", "float32", "int32"),
            Layer("relu", "float16"),
            Layer("(Unnamed Layer* 7) [Shuffle]", "float32"),
        ]
        build_engine(library, source(precision, onnx=path), EngineOptions(BATCH))
        flags = [flag for what, flag in seen.config.told if what == "flag"]
        assert flags == [*more, "FP16", "OBEY_PRECISION_CONSTRAINTS"]
        kept = {layer.name: layer.makes for layer in seen.layers if layer.precision == "float32"}
        assert kept == {"exp": ["float32!"], "exp_12": ["float32!"]}
        others = [layer for layer in seen.layers if layer.name not in kept]
        assert not any(made.endswith("!") for layer in others for made in layer.makes)


@pytest.mark.parametrize(
    ("version", "precision", "told"),
    [
        (tensorrt_8, Precision.FP32, []),
        (tensorrt_8, Precision.INT8, ["INT8"]),
        (tensorrt_10, Precision.INT8, []),
        (tensorrt_11, Precision.FP16, []),
    ],
)
def test_later_versions_are_told_no_types_nor_any_of_a_file_in_float32(
    version: Any, precision: Precision, told: list[str]
) -> None:
    seen, library = version()
    build_engine(library, source(precision), EngineOptions(BATCH))

    assert [flag for what, flag in seen.config.told if what == "flag"] == told


THREE = [(1, 1, 1), (2, 4, 4), (5, 16, 16)]


@pytest.mark.parametrize(("rows_per_run", "parts"), [(None, THREE), (1, [(1, 1, 1)])])
def test_a_profile_for_each_part_of_the_range_but_for_stages_of_single_images(
    rows_per_run: int | None, parts: list[tuple[int, int, int]]
) -> None:
    seen, library = tensorrt_10()
    build_engine(library, source(rows_per_run=rows_per_run), EngineOptions(BATCH))

    told = [shapes["images"] for what, shapes in seen.config.told if what == "profile"]
    assert told == [tuple((size, 3, 8, 8) for size in part) for part in parts]


@pytest.mark.parametrize("version", [tensorrt_8, tensorrt_10, tensorrt_11])
def test_workspace_and_compatibility_are_told(version: Any) -> None:
    seen, library = version()
    options = EngineOptions(
        BATCH, workspace_bytes=1 << 30, version_compatible=True, hardware_compatible=True
    )
    check_options(library, options)
    build_engine(library, source(), options)

    assert ("workspace", 1 << 30) in seen.config.told
    assert ("flag", "VERSION_COMPATIBLE") in seen.config.told
    assert seen.config.hardware_compatibility_level == "ampere+"
    assert not hasattr(seen.config, "num_compute_capabilities")
    assert not hasattr(seen.config, "progress_monitor")


def test_a_timing_cache_is_made_then_used_and_started_over_by_another_version(
    tmp_path: Path,
) -> None:
    path = tmp_path / "kernels.cache"
    options = EngineOptions(BATCH, timing_cache=path)
    for version, expected in (
        (tensorrt_10, b"10.4.0+conv"),
        (tensorrt_10, b"10.4.0+conv+conv"),
        (tensorrt_11, b"11.4.1+conv"),
    ):
        _, library = version()
        check_options(library, options)
        build_engine(library, source(), options)
        assert path.read_bytes() == expected


@pytest.mark.parametrize("place", ["folder", "file/cache"])
def test_an_engine_is_there_though_its_timings_cannot_be_written(tmp_path, caplog, place) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    _, library = tensorrt_10()

    options = EngineOptions(BATCH, timing_cache=tmp_path / place)

    assert build_engine(library, source(), options) == b"engine"
    assert f"timings of kernels are not kept in {tmp_path / place}" in caplog.text


def test_a_build_that_fails_says_what_the_logger_heard_last() -> None:
    seen, library = tensorrt_10()

    def fails(logger: Any) -> None:
        logger.log(Severity.ERROR, "tactic 3 ran\nout of memory")
        logger.log(Severity.WARNING, "weights were clipped")

    seen.fails = fails
    with support.refuses(EngineBuildError, "TensorRT 10.4.0", "'body'", "tactic 3 ran out of"):
        build_engine(library, source(), EngineOptions(BATCH))
    seen.fails = lambda _: None
    with support.refuses(EngineBuildError, "gave no reason"):
        build_engine(library, source(), EngineOptions(BATCH))


def test_a_builder_that_cannot_start_says_so() -> None:
    seen, library = tensorrt_10()

    def no_driver(logger: Any) -> None:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    library.module.Builder = no_driver  # type: ignore[method-assign,misc]
    with support.refuses(EngineBuildError, "error: 35", "nvidia-smi"):
        build_engine(library, source(), EngineOptions(BATCH))
    assert seen.flags is None
