"""Devices, providers and options of sessions, as ONNX Runtime is told them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort import backend, runtime
from dyninfer.engines.ort.library import ort
from dyninfer.engines.ort.runtime import (
    OrtDevice,
    PlainStages,
    open_session,
    parse_device,
    session_options,
    share_thread_pool,
)
from dyninfer.engines.ort.tensor import OrtWorkspace
from tests import support

SMALL_MACS = 1_000_000_000


@pytest.mark.parametrize(
    ("device", "provider", "expected", "name"),
    [
        ("cpu", None, OrtDevice("cpu", 0, "cpu"), "cpu"),
        ("cpu", "cpu", OrtDevice("cpu", 0, "cpu"), "cpu"),
        ("cuda", None, OrtDevice("cuda", 0, "cuda"), "cuda:0"),
        ("cuda:0", "cuda", OrtDevice("cuda", 0, "cuda"), "cuda:0"),
        ("cuda:12", "tensorrt", OrtDevice("cuda", 12, "tensorrt"), "cuda:12"),
    ],
)
def test_a_device_and_its_provider(monkeypatch, device, provider, expected, name) -> None:
    names = [f"{each}ExecutionProvider" for each in ("Tensorrt", "CUDA", "CPU")]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    found = parse_device(device, provider)
    assert found == expected
    assert found.name == name
    assert found.place == (expected.device_type, expected.device_id)


def test_providers_lean_on_those_behind_them() -> None:
    number = {"device_id": "2"}
    searched = number | {"cudnn_conv_algo_search": "HEURISTIC"}
    cuda, cpu = ("CUDAExecutionProvider", searched), "CPUExecutionProvider"
    assert OrtDevice("cpu", 0, "cpu").providers == [cpu]
    assert OrtDevice("cuda", 2, "cuda").providers == [cuda, cpu]
    assert OrtDevice("cuda", 2, "tensorrt").providers == [
        ("TensorrtExecutionProvider", number),
        cuda,
        cpu,
    ]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_options_of_a_session(shared: bool, small: bool) -> None:
    options = session_options("shared" if shared else None, small)
    assert options.use_per_session_threads is not shared
    assert options.enable_mem_pattern is small
    assert options.log_severity_level == 4  # nothing is printed beside what is raised
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.get_session_config_entry("session.load_model_format") == "ONNX"
    if not shared:
        assert options.get_session_config_entry("session.force_spinning_stop") == "1"
        assert options.get_session_config_entry("session.intra_op.spin_duration_us") == "100"


@pytest.mark.parametrize(
    ("threads", "lone", "expected"),
    [(None, False, 0), (3, False, 3), (3, True, 1), (None, True, 1)],
)
def test_the_threads_of_a_session(threads, lone, expected) -> None:
    options = session_options(threads, lone=lone)
    assert options.intra_op_num_threads == expected  # 0 is one on every core
    assert options.use_per_session_threads


def test_what_is_opened_to_measure_uses_all_cores_and_reserves_no_block(tmp_path) -> None:
    path = Bundle.open(support.write_two_exits(tmp_path / "two.dyn")).stage_path("first")
    options = open_session(path, parse_device("cpu", None)).get_session_options()
    for found in (options, session_options()):
        assert (found.intra_op_num_threads, found.enable_mem_pattern) == (0, False)


def test_the_thread_pool_of_a_process_is_made_once(monkeypatch) -> None:
    made = []
    monkeypatch.setattr(runtime, "_pool_ready", False)
    monkeypatch.setattr(ort, "set_global_thread_pool_sizes", lambda *sizes: made.append(sizes))
    share_thread_pool()
    share_thread_pool()
    assert made == [(0, 1)]  # as many threads within an operator as there are cores; one between


@pytest.mark.parametrize(
    ("macs", "small", "threads"),
    [(0, True, 1), (SMALL_MACS, True, 0), (SMALL_MACS + 1, False, 0)],
)
def test_only_small_stages_have_memory_patterns(
    tmp_path, monkeypatch, macs, small, threads
) -> None:
    told = []
    real = backend.open_session

    def opening(*arguments, **options):
        told.append(options["small"])
        return real(*arguments, **options)

    monkeypatch.setattr(backend, "open_session", opening)
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    stage = bundle.manifest.stages["first"].model_copy(update={"macs": macs})
    path = bundle.stage_path("first")
    engine = backend.OrtBackend().open("first", stage, path, frozenset())
    assert told == [small]
    assert engine._session.get_session_options().intra_op_num_threads == threads


def test_a_gpu_is_waited_for_before_and_after_a_run() -> None:
    done = []
    binding = SimpleNamespace(
        synchronize_inputs=lambda: done.append("inputs"),
        synchronize_outputs=lambda: done.append("outputs"),
    )
    session = SimpleNamespace(run_with_iobinding=lambda *_: done.append("run"))
    backend.run_binding(session, binding, False)
    assert done == ["inputs", "run", "outputs"]
    done.clear()
    backend.run_binding(session, binding, True)
    assert done == ["run"]


def test_plain_stages_open_each_file_once(tmp_path, monkeypatch) -> None:
    opened = []
    real = runtime.open_session
    monkeypatch.setattr(
        runtime, "open_session", lambda path, *a, **o: opened.append(path) or real(path, *a, **o)
    )
    sized, limit = [], runtime.tensor_memory
    monkeypatch.setattr(runtime, "tensor_memory", lambda n: sized.append(n) or limit(n))
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    other = tmp_path / "other.onnx"
    other.write_bytes(bundle.stage_path("second").read_bytes())
    stages = PlainStages(bundle, {"second": other})
    images = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    for batch in (images, images[:1]):
        tensors = {"images": batch, "more": np.zeros(1)}
        made = stages.run("first", tensors)
        np.testing.assert_allclose(made["value"], batch.mean((2, 3)), rtol=1e-5)
        stages.run("second", tensors)
    assert [path.name for path in opened] == ["first.onnx", "other.onnx"]
    assert sized == [8 * 8 * 8, 0] * 2  # room for eight images of 8x8, the least to open them


def test_a_host_array_is_of_the_same_buffer_until_that_must_grow() -> None:
    workspace = OrtWorkspace(parse_device("cpu", None))
    first = workspace.host_array("images", (2, 3), np.dtype(np.float32))
    for shape in ((3, 2), (6,), (1, 5)):
        again = workspace.host_array("images", shape, np.dtype(np.float32))
        assert (again.shape, again.dtype) == (shape, np.float32)
        assert again.ctypes.data == first.ctypes.data
    larger = workspace.host_array("images", (7,), np.dtype(np.float32))
    assert not np.shares_memory(larger, first)
    assert (
        workspace.host_array("images", (6,), np.dtype(np.float32)).ctypes.data == larger.ctypes.data
    )
    assert not np.shares_memory(workspace.host_array("more", (7,), np.dtype(np.float32)), larger)


def test_a_host_array_has_one_tensor_where_nothing_is_copied() -> None:
    for device, same in (("cpu", True), ("cuda", False)):
        workspace = OrtWorkspace(OrtDevice(device, 0, device))
        images = workspace.host_array("images", (2, 3), np.dtype(np.float32))
        others = workspace.host_array("others", (2, 3), np.dtype(np.float32))
        tensor = workspace.over_array(images)
        assert tensor.pointer == images.ctypes.data
        assert (workspace.over_array(images) is tensor) is same
        assert (workspace.over_array(others) is workspace.over_array(others)) is same
        assert workspace.over_array(others) is not tensor
        own = np.zeros((2, 3), np.float32)
        assert workspace.over_array(own) is not workspace.over_array(own)  # the caller's, not kept
        flat = workspace.host_array("images", (6,), images.dtype)
        assert workspace.over_array(flat).shape == (6,)
