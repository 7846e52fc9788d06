"""What ONNX Runtime is told of a GPU, as far as that shows without one."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort import gpu, runtime
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.engines.ort.library import ort
from dyninfer.engines.ort.runtime import OrtDevice, open_session, parse_device
from dyninfer.engines.ort.tensor import OrtWorkspace
from dyninfer.errors import BackendUnavailable, EngineBuildError
from dyninfer.exporters.precision.fp16 import to_fp16
from dyninfer.hardware import gpu_name, gpu_title
from tests import support
from tests.exporters.precision.helpers import two_layers

CUDA, TENSORRT, CPU = (f"{name}ExecutionProvider" for name in ("CUDA", "Tensorrt", "CPU"))


def plugin(number: str | None = None, *, name: str = CUDA, pinned: object = None):
    options = {} if number is None else {"device_id": number}
    return SimpleNamespace(ep_name=name, ep_options=options, memory_info=lambda _kind: pinned)


@pytest.fixture
def plugins(monkeypatch):
    """Put plugins' devices beside the CPU's own, as 1.32 lists them."""

    def put(*devices) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
        monkeypatch.setattr(ort, "get_ep_devices", lambda: list(devices), raising=False)

    return put


def test_a_plugins_provider_is_there_as_one_that_is_built_in(plugins) -> None:
    plugins()
    with support.refuses(BackendUnavailable, CUDA):
        parse_device("cuda:0", None)
    plugins(plugin())
    assert parse_device("cuda:0", None) == OrtDevice("cuda", 0, "cuda")
    with support.refuses(BackendUnavailable, TENSORRT):
        parse_device("cuda:0", "tensorrt")


def test_a_plugins_device_is_chosen_by_its_number(monkeypatch, plugins) -> None:
    other = plugin(name="OtherExecutionProvider")
    first, second = plugin(), plugin()
    plugins(other, first, second)
    assert gpu.plugin_device(CUDA, 1) is second
    assert gpu.plugin_device(CUDA, 2) is None
    last, front = plugin("1"), plugin("0")
    plugins(last, front)
    assert gpu.plugin_device(CUDA, 0) is front
    assert gpu.plugin_device(CUDA, 7) is None
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    assert gpu.plugin_device(CUDA, 0) is None  # it is built in


class Told:
    """Session options that note what they are told."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def add_provider(self, *given) -> None:
        self.calls.append(given)

    def add_provider_for_devices(self, *given) -> None:
        self.calls.append(given)


def test_a_plugins_provider_comes_by_the_options_alone(plugins) -> None:
    device = plugin()
    plugins(device)
    searched, numbered = {"cudnn_conv_algo_search": "HEURISTIC"}, {"device_id": "0"}
    for provider, first in (("cuda", []), ("tensorrt", [(TENSORRT, numbered)])):
        told = Told()
        assert gpu.add_providers(told, OrtDevice("cuda", 0, provider).providers, 0) is None
        assert told.calls == [*first, ([device], searched)]
    plugins()
    given = OrtDevice("cuda", 0, "cuda").providers
    assert gpu.add_providers(Told(), given, 0) is given


def test_a_session_of_ones_own_options_runs(tmp_path, monkeypatch) -> None:
    """The CPU's own device in place of a plugin's: ONNX Runtime takes it in the same way."""
    if not hasattr(ort, "get_ep_devices"):
        pytest.skip("this ONNX Runtime lists no devices")
    (cpu,) = [device for device in ort.get_ep_devices() if device.ep_name == CPU]
    path = Bundle.open(support.write_static(tmp_path / "s.dyn")).stage_path("body")
    monkeypatch.setattr(gpu, "plugin_device", lambda *_: cpu)
    monkeypatch.setattr(
        OrtDevice, "providers", property(lambda _: [(CPU, {"device_id": "0"}), CPU])
    )
    session = open_session(path, OrtDevice("cpu", 0, "cpu"), False)
    assert session.get_providers() == [CPU]
    (boxes, _) = session.run(None, {"images": np.zeros((1, 3, 8, 8), np.float32)})
    assert boxes.tolist() == [[[0, 0, 8, 8]]]


def test_pinned_memory_is_a_plugins(plugins, monkeypatch) -> None:
    if not hasattr(ort, "OrtDeviceMemoryType"):
        pytest.skip("this ONNX Runtime knows no plugins")
    device = OrtDevice("cuda", 0, "cuda")
    plugins()
    assert gpu.pinned_zeros(3, np.dtype(np.float32), *device.pinning) is None
    plugins(plugin())  # one that has none to give
    assert gpu.pinned_zeros(3, np.dtype(np.float32), *device.pinning) is None
    plugins(plugin(pinned="pinned"))
    real, asked = ort.OrtValue.ortvalue_from_shape_and_type, []

    def allocate(shape, dtype, **more):
        asked.append(more)
        return real(shape, dtype)

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_shape_and_type", staticmethod(allocate))
    workspace = OrtWorkspace(device)
    images = workspace.host_array("images", (2, 3), np.dtype(np.float32))
    scores = workspace.tensor(("head", "scores"), (4,), np.dtype(np.float16), on_host=True)
    assert asked == [{"memory_info": "pinned"}] * 2
    assert images.shape == (2, 3)
    assert not images.any()
    assert scores.numpy().tolist() == [0] * 4
    assert OrtDevice("cpu", 0, "cpu").pinning is None


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "dyninfer" / "onnxruntime-tensorrt"


@pytest.mark.usefixtures("cache")
def test_tensorrt_gets_a_profile_of_all_batches(tmp_path) -> None:
    bundle = Bundle.open(support.write_three_exits(tmp_path / "three.dyn"))
    stage, path = bundle.manifest.stages["body_3"], bundle.stage_path("body_3")
    found = gpu.tensorrt_options(stage, path, 16, "a GPU")
    assert found["trt_profile_min_shapes"] == "images:1x3x8x8,value_1:1x3"
    assert found["trt_profile_opt_shapes"] == "images:4x3x8x8,value_1:4x3"
    assert found["trt_profile_max_shapes"] == "images:16x3x8x8,value_1:16x3"
    assert "trt_fp16_enable" not in found
    single = stage.model_copy(update={"rows_per_run": 1})
    assert gpu.tensorrt_options(single, path, 16, "a GPU")["trt_profile_max_shapes"] == (
        "images:1x3x8x8,value_1:1x3"
    )
    spec = stage.inputs[0]
    for changes in ({"name": "in:0"}, {"shape": ("batch", 3, "height", 8)}):
        inputs = (spec.model_copy(update=changes), *stage.inputs[1:])
        odd = stage.model_copy(update={"inputs": inputs})
        assert not [n for n in gpu.tensorrt_options(odd, path, 16, "a GPU") if "profile" in n]


@pytest.mark.usefixtures("cache")
def test_tensorrt_may_round_only_where_the_file_does(tmp_path) -> None:
    bundle = Bundle.open(support.write_static(tmp_path / "s.dyn"))
    stage = bundle.manifest.stages["body"]
    half = to_fp16(two_layers())
    assert half is not None
    quantised = two_layers()
    quantised.graph.node[0].name = "of QuantizeLinear"
    for model, told in (
        (two_layers(), set()),
        (half, {"trt_fp16_enable"}),
        (quantised, {"trt_int8_enable"}),
    ):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        found = gpu.tensorrt_options(stage, path, 1, "a GPU")
        assert {name for name in found if re.search("fp16|int8", name)} == told
        assert all(found[name] == "True" for name in told)


def test_engines_are_kept_for_what_they_depend_on(tmp_path, cache, monkeypatch) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))

    def folder(stage: str, device: str) -> str:
        entry, path = bundle.manifest.stages[stage], bundle.stage_path(stage)
        found = gpu.tensorrt_options(entry, path, 8, device)
        assert found["trt_timing_cache_path"] == found["trt_engine_cache_path"]
        assert Path(found["trt_engine_cache_path"]).parent == cache
        assert Path(found["trt_engine_cache_path"]).stat().st_mode & 0o777 == 0o700
        return found["trt_engine_cache_path"]

    assert folder("first", "a") == folder("first", "a")
    assert len({folder("first", "a"), folder("second", "a"), folder("first", "b")}) == 3
    before = folder("first", "a")
    monkeypatch.setattr(ort, "__version__", "1.99.0")
    assert folder("first", "a") != before
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    entry, path = bundle.manifest.stages["first"], bundle.stage_path("first")
    assert not [n for n in gpu.tensorrt_options(entry, path, 8, "a") if "cache" in n]


def test_what_cannot_be_kept_of_tensorrts_options_is_left_out(tmp_path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "old.engine").write_bytes(b"old")
    options = {"trt_engine_cache_path": str(folder), "trt_profile_min_shapes": "images:1x3"}
    tried = []

    def failing(text: str):
        def open_session(given):
            tried.append(dict(given))
            if len(tried) == 1:
                raise EngineBuildError(text)
            return "session"

        tried.clear()
        return open_session

    partitioned = (
        "User needs to provide all the dynamic shape inputs with associated profiles if they want "
        "to explicitly set profiles through provider options."
    )
    assert gpu.open_with(failing(partitioned), options) == "session"
    assert tried == [options, {"trt_engine_cache_path": str(folder)}]
    old = "TensorRT EP could not deserialize engine from cache: old.engine"
    assert gpu.open_with(failing(old), options) == "session"
    assert tried == [options, options]
    assert list(folder.iterdir()) == []
    with support.refuses(EngineBuildError, "no kernel"):
        gpu.open_with(failing("no kernel"), options)
    assert len(tried) == 1


@pytest.mark.usefixtures("cache")
def test_a_stage_is_opened_with_these_options(tmp_path, monkeypatch) -> None:
    """On a CPU, from which ONNX Runtime says that TensorRT is not there: in one line."""
    path = support.write_static(tmp_path / "s.dyn")
    names = [TENSORRT, CUDA, CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    given = []
    real = runtime.open_limited

    def noting(model, options, providers, **more):
        given.append(providers)
        return real(model, options, [CPU], **more)

    monkeypatch.setattr(runtime, "open_limited", noting)
    with support.refuses(BackendUnavailable, TENSORRT, "fell back to"):
        dyninfer.load(path, device="cuda:0", provider="tensorrt", max_batch=2)
    (((name, options), (second, _), third),) = given
    assert (name, second, third) == (TENSORRT, CUDA, CPU)
    assert options["device_id"] == "0"
    assert options["trt_profile_max_shapes"] == "images:2x3x8x8"


def test_rows_are_gathered_without_tensorrt(monkeypatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    given = []
    real = runtime.open_limited

    def noting(model, options, providers, **more):
        given.append([p if isinstance(p, str) else p[0] for p in providers])
        return real(model, options, [CPU], **more)

    monkeypatch.setattr(runtime, "open_limited", noting)
    backend = OrtBackend("cuda:0", "tensorrt")
    with support.refuses(BackendUnavailable, CUDA, "fell back to"):
        backend._gather_session(np.dtype(np.float32))
    assert given == [[CUDA, CPU]]


def test_a_gpu_is_called_by_its_name(monkeypatch) -> None:
    def get(device, number: int) -> int:
        device._obj.value = 10 + number
        return 101 if number > 1 else 0

    def get_name(name, size: int, device) -> int:
        assert size == len(name)
        name.value = f"GPU {device.value}".encode()
        return 0

    def get_attribute(value, attribute: int, _device) -> int:
        assert attribute == 16
        value._obj.value = 8
        return 0

    driver = {"cuInit": lambda _: 0, "cuDeviceGet": get, "cuDeviceGetName": get_name}
    driver["cuDeviceGetAttribute"] = get_attribute
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(**driver))
    assert gpu_name(1) == "GPU 11"
    assert gpu_title("Orin", 8) == "Orin, 8 multiprocessors" != gpu_title("Orin", 16)
    assert gpu_title("Tesla T4", 40) == "Tesla T4"
    assert gpu_name(2) == "cuda:2"

    def none(_name: str):
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert gpu_name(0) == "cuda:0"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_cannot_be_loaded_says_why(tmp_path, monkeypatch, provider) -> None:
    path = support.write_static(tmp_path / "s.dyn")
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = tmp_path / "capi" / f"libonnxruntime_providers_{provider}.so"
    library.parent.mkdir()
    library.write_bytes(b"no library")
    monkeypatch.setattr(ort, "__file__", str(tmp_path / "__init__.py"))
    real, fails = runtime.open_limited, provider == "tensorrt"

    def open_limited(model, options, _providers, **more):
        if fails:
            raise RuntimeError("Please install TensorRT libraries")
        return real(model, options, [CPU], **more)

    monkeypatch.setattr(runtime, "open_limited", open_limited)
    said = (f"{library}: ", "cuDNN and TensorRT")
    with support.refuses(BackendUnavailable, runtime.PROVIDERS[provider], *said):
        dyninfer.load(path, device="cuda:0", provider=provider)
    library.unlink()
    other = EngineBuildError if fails else BackendUnavailable
    with support.refuses(other, "Please install" if fails else "fell back to"):
        dyninfer.load(path, device="cuda:0", provider=provider)


@pytest.mark.usefixtures("cache")
def test_the_options_are_known_to_the_installed_package(tmp_path) -> None:
    """Only onnxruntime-gpu has the libraries that read them."""
    try:
        files = importlib.metadata.files("onnxruntime-gpu") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("onnxruntime-gpu is not installed")
    known = {
        kind: Path(str(file.locate())).read_bytes()
        for kind in ("cuda", "tensorrt")
        for file in files
        if file.name == f"libonnxruntime_providers_{kind}.so"
    }
    bundle = Bundle.open(support.write_static(tmp_path / "s.dyn"))
    stage, path = bundle.manifest.stages["body"], bundle.stage_path("body")
    told = {*gpu.tensorrt_options(stage, path, 8, "a GPU"), "trt_fp16_enable", "trt_int8_enable"}
    assert [name for name in told if name.encode() not in known["tensorrt"]] == []
    assert b"cudnn_conv_algo_search" in known["cuda"]
    for message in (gpu._NO_PROFILE, gpu._OLD_CACHE):
        assert message.encode() in known["tensorrt"]
