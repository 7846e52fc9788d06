from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import dyninfer
from dyninfer import BackendUnavailable, Bundle, EngineBuildError, EngineRunError, InputError
from dyninfer.bundle.manifest import TensorSpec
from dyninfer.engines import ON_HOST, open_backend
from dyninfer.engines.base import check_tensor
from dyninfer.engines.device_array import DeviceArray
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.engines.ort.runtime import LARGE_MACS, OrtDevice
from dyninfer.engines.ort.tensor import OrtTensor
from tests import support

MAX_BOUND = 32
GATHER_FOLDER = support.ROOT / "engines" / "ort"


@pytest.fixture(params=ON_HOST)
def opened(tmp_path: Path, request: pytest.FixtureRequest):
    """Backend, engine of the first stage of a two-exit bundle, workspace."""
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    if request.param == "openvino":
        pytest.importorskip("openvino")
    backend = open_backend(request.param)
    stage = bundle.manifest.stages["first"]
    engine = backend.open("first", stage, bundle.stage_path("first"), frozenset())
    return backend, engine, backend.workspace()


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"device": "cuda"}, ("CUDAExecutionProvider", "[cuda]")),
        ({"device": "cuda:0"}, ("CUDAExecutionProvider",)),
        ({"device": "cuda:0", "provider": "tensorrt"}, ("TensorrtExecutionProvider",)),
        ({"device": "cuda", "provider": "cpu"}, ("provider 'cpu'", "does not run")),
        ({"device": "cpu", "provider": "cuda"}, ("provider 'cuda'", "does not run")),
        ({"device": "cpu", "provider": "magic"}, ("magic", "unknown")),
        ({"device": "cpu:1"}, ("cpu:1", "unknown")),
        ({"device": "gpu"}, ("gpu", "unknown")),
        ({"device": "cuda:x"}, ("cuda:x", "unknown")),
        ({"device": ""}, ("unknown",)),
        ({"backend": "tensorrt"}, ("tensorrt",)),
        ({"backend": "tensorrt-rtx"}, ("tensorrt-rtx",)),
        ({"backend": "openvinno"}, ("openvinno", "onnxruntime", "openvino")),
    ],
)
def test_what_was_asked_for_and_is_not_there_is_an_error(tmp_path, monkeypatch, options, parts):
    from dyninfer.engines.ort.library import ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(BackendUnavailable, *parts):
        dyninfer.load(path, **options)


def test_a_session_that_silently_fell_back_is_an_error(tmp_path, monkeypatch) -> None:
    from dyninfer.engines.ort.library import ort

    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: names)
    session = ort.InferenceSession

    def without_cuda(path, options, providers, enable_fallback):
        assert not enable_fallback
        assert providers[0][0] == "CUDAExecutionProvider"
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", without_cuda)
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(BackendUnavailable, "CUDAExecutionProvider", "fell back"):
        dyninfer.load(path, device="cuda:0")


def test_the_cpu_is_the_default() -> None:
    for backend in (open_backend(), open_backend("onnxruntime", "cpu", "cpu")):
        assert (backend.name, backend.device) == ("onnxruntime", "cpu")


def test_a_file_that_cannot_be_opened_is_named(tmp_path, opened) -> None:
    backend, engine, _ = opened
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with support.refuses(EngineBuildError, "broken.onnx", "'first'"):
        backend.open("first", engine.stage, path, frozenset())


def test_outputs_must_be_those_of_the_manifest(tmp_path, opened) -> None:
    backend, engine, _ = opened
    path = tmp_path / "two.dyn" / "onnx" / "head.onnx"
    with support.refuses(EngineBuildError, "boxes_xyxy", "value"):
        backend.open("first", engine.stage, path, frozenset())


def test_an_engine_counts_its_runs_and_rows(opened) -> None:
    backend, engine, workspace = opened
    for batch in (1, 4, 2):
        images = np.zeros((batch, 3, 8, 8), np.float32)
        engine.run({"images": backend.from_host(images, workspace), "other": None}, workspace)
    runs = 7 if engine.stage.rows_per_run else 3
    assert (engine.run_count, engine.row_count) == (runs, 7)


@pytest.mark.parametrize(("macs", "runs"), [(LARGE_MACS - 1, 1), (LARGE_MACS, 5)])
def test_a_large_stage_runs_its_images_one_by_one(tmp_path, macs, runs) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    pictures = support.random_pictures(5)
    with dyninfer.load(path) as detector:
        expected = detector.infer(detector.prepare(pictures))
    support.reseal(path, lambda manifest: manifest["stages"]["first"].update(macs=macs))
    with dyninfer.load(path) as detector:
        found = detector.infer(detector.prepare(pictures))
        assert detector.engines["first"].run_count == runs
        assert detector.engines["first"].row_count == 5
    for one, other in zip(found, expected, strict=True):
        assert one.exit_index == other.exit_index
        for name, array in one.outputs.items():
            np.testing.assert_allclose(array, other.outputs[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("array", "parts"),
    [
        (np.zeros((1, 3, 8, 9), np.float32), ("(1, 3, 8, 9)", "(batch, 3, 8, 8)")),
        (np.zeros((3, 8, 8), np.float32), ("(3, 8, 8)",)),
        (np.zeros((1, 3, 8, 8), np.float64), ("float64", "float32")),
    ],
)
def test_an_engine_refuses_tensors_that_do_not_fit(opened, array, parts) -> None:
    backend, engine, workspace = opened
    with support.refuses(InputError, "first", *parts):
        engine.run({"images": backend.from_host(array, workspace)}, workspace)
    with support.refuses(InputError, "first", "'images'"):
        engine.run({}, workspace)
    assert engine.run_count == 0


def test_a_batch_without_images_is_refused(opened) -> None:
    backend, engine, workspace = opened
    with support.refuses(InputError, "'first'", "no images"):
        engine.run(
            {"images": backend.from_host(np.zeros((0, 3, 8, 8), np.float32), workspace)}, workspace
        )


@pytest.mark.parametrize("rows", [[4], [3, 4], [0, 2, 4], [-1, 2], [-1]])
def test_rows_that_a_tensor_does_not_have_are_refused(rows) -> None:
    tensor = GATHERING.from_host(
        np.arange(12, dtype=np.float32).reshape(4, 3), GATHERING.workspace()
    )
    with support.refuses(EngineRunError, "(4, 3)"):
        GATHERING.gather("a", tensor, np.array(rows), GATHERING.workspace())


def test_values_that_are_not_aligned_are_copied_first(opened) -> None:
    backend, engine, workspace = opened
    images = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    shifted = np.frombuffer(b"x" + images.tobytes(), np.float32, offset=1).reshape(images.shape)
    tensor = backend.from_host(shifted, workspace)
    assert tensor.pointer % 4 == 0
    found = engine.run({"images": tensor}, workspace)["value"]
    np.testing.assert_allclose(found.numpy(), images.mean((2, 3)), rtol=1e-5)


def test_a_buffer_is_never_taken_for_another_type() -> None:
    workspace = GATHERING.workspace()
    rows = np.array([0, 2])
    for dtype in (np.float16, np.float32, np.float16):
        array = np.arange(12, dtype=dtype).reshape(4, 3)
        gathered = GATHERING.gather("a", GATHERING.from_host(array, workspace), rows, workspace)
        assert gathered.dtype == dtype
        np.testing.assert_array_equal(gathered.numpy(), array[rows])


def test_a_buffer_that_cannot_be_had_is_one_line() -> None:
    workspace = GATHERING.workspace()
    for count in (2**48, 2**70):
        with support.refuses(EngineRunError, "max_batch"):
            workspace.tensor(("stage", "output"), (count,), np.dtype(np.float32), on_host=True)
    assert workspace.allocated_bytes == 0


def test_batches_of_the_inputs_must_agree() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 2))
    check_tensor((3, 2), np.dtype(np.float32), spec, 3, "stage")
    with support.refuses(InputError, "4 in the batch"):
        check_tensor((3, 2), np.dtype(np.float32), spec, 4, "stage")


def test_host_memory_is_seen_without_a_copy(opened) -> None:
    backend, engine, workspace = opened
    images = np.ones((2, 3, 8, 8), np.float32)
    tensor = backend.from_host(images, workspace)
    assert tensor.pointer == images.ctypes.data
    assert np.shares_memory(tensor.numpy(), images)
    output = engine.run({"images": tensor}, workspace)["value"]
    seen = output.numpy()
    assert seen.ctypes.data == output.pointer
    seen[0, 0] = 7
    assert output.numpy()[0, 0] == 7


def test_outputs_stay_in_the_same_memory_and_nothing_grows_after_the_largest_batch(opened) -> None:
    backend, engine, workspace = opened

    def run(batch: int) -> int:
        images = backend.from_host(np.full((batch, 3, 8, 8), batch, np.float32), workspace)
        output = engine.run({"images": images}, workspace)["value"]
        np.testing.assert_allclose(output.numpy(), batch)
        return output.pointer

    pointer = run(8)
    size = workspace.allocated_bytes
    assert size > 0
    assert [run(batch) for batch in (1, 8, 3, 8, 8, 2)] == [pointer] * 6
    assert workspace.allocated_bytes == size
    run(9)
    assert workspace.allocated_bytes > size


def test_a_detector_allocates_nothing_after_its_warm_up(workspaces, detector, small_bundle) -> None:
    images = support.random_images(4, 64, 96)
    easiness = sorted(output.easiness for output in detector.infer({"images": images}))
    policies = [dyninfer.AlwaysEasy(), dyninfer.AlwaysHard(), dyninfer.Threshold(easiness[2])]
    pictures = support.random_pictures(4)

    def everything() -> int:
        for policy in policies:
            detector.policy = policy
            detector(pictures)
            for batch in (4, 1, 3):
                detector.infer({"images": images[:batch]})
        return sum(workspace.allocated_bytes for workspace in workspaces)

    warm = everything()
    assert warm > images.nbytes
    assert [everything() for _ in range(3)] == [warm] * 3
    assert len(workspaces) == 1
    assert small_bundle.is_dir()


@pytest.mark.parametrize("opened", ["onnxruntime"], indirect=True)  # OpenVINO runs row by row
def test_the_bindings_of_all_batches_are_kept_until_a_buffer_grows(opened) -> None:
    backend, engine, workspace = opened

    def run(batch: int) -> float:
        images = backend.from_host(np.full((batch, 3, 8, 8), batch, np.float32), workspace)
        return float(engine.run({"images": images}, workspace)["value"].numpy()[-1, -1])

    assert [run(batch) for batch in (8, 1, 3)] == [8, 1, 3]
    kept = {batch: workspace.bound("first", batch) for batch in (8, 1, 3)}
    assert None not in kept.values()
    assert [run(batch) for batch in (3, 8, 1)] == [3, 8, 1]
    assert all(workspace.bound("first", batch) is bound for batch, bound in kept.items())
    assert run(9) == 9
    assert [workspace.bound("first", batch) for batch in (8, 1, 3)] == [None] * 3
    assert [run(batch) for batch in (8, 1, 9)] == [8, 1, 9]


@pytest.mark.parametrize("opened", ["onnxruntime"], indirect=True)
def test_a_caller_keeps_no_more_bindings_than_it_may(opened) -> None:
    backend, engine, workspace = opened
    for batch in (64, *range(1, 50)):
        images = backend.from_host(np.full((batch, 3, 8, 8), batch, np.float32), workspace)
        value = engine.run({"images": images}, workspace)["value"]
        np.testing.assert_allclose(value.numpy(), batch)
    kept = [batch for batch in range(1, 65) if workspace.bound("first", batch)]
    assert kept == list(range(50 - MAX_BOUND, 50))


def test_two_hundred_mixed_batches_take_no_more_memory(workspaces, two_exits) -> None:
    generator = np.random.default_rng(0)
    pictures = [np.full((8, 8, 3), (0, 0, shade), np.uint8) for shade in (20, 230)]
    batches = [
        [pictures[kind] for kind in generator.integers(0, 2, generator.integers(1, 9))]
        for _ in range(200)
    ]

    def memory() -> int:
        return sum(workspace.allocated_bytes for workspace in workspaces)

    tracemalloc.start()
    for batch in batches:  # every size of every split
        two_exits(batch)
    before, grown = memory(), []
    for _ in range(3):
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        for batch in batches:
            two_exits(batch)
        gc.collect()
        grown.append(tracemalloc.get_traced_memory()[0] - held)
    tracemalloc.stop()
    assert memory() == before
    # of 900 images each time: what leaks does so every time, and a busy machine's threads do not
    assert min(grown) < 16_384


def gather_model(dtype: int) -> onnx.ModelProto:
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["rows"])
    data = helper.make_tensor_value_info("data", dtype, None)
    gathered = helper.make_tensor_value_info("gathered", dtype, None)
    node = helper.make_node("Gather", ["data", "rows"], ["gathered"], axis=0)
    graph = helper.make_graph([node], "gather", [data, rows], [gathered])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_committed_gather_models_are_a_single_gather_along_the_batch(dtype) -> None:
    model = onnx.load(GATHER_FOLDER / f"gather_rows_{dtype}.onnx")
    element = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[dtype]
    expected = gather_model(element)

    def meaning(made: onnx.ModelProto) -> list:
        nodes = [
            (n.op_type, list(n.input), list(n.output), {a.name: a.i for a in n.attribute})
            for n in made.graph.node
        ]
        values = [
            (v.name, v.type.tensor_type.elem_type) for v in (*made.graph.input, *made.graph.output)
        ]
        return [nodes, values, list(made.graph.initializer)]

    found = meaning(model)
    for node in found[0]:
        node[3].setdefault("axis", 0)
    assert found == meaning(expected)
    assert not model.metadata_props
    assert [entry.version for entry in model.opset_import] == [17]


@settings(deadline=None, max_examples=40)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float16]),
    data=st.data(),
)
def test_gather_gives_the_rows_that_numpy_gives(shape, dtype, data) -> None:
    backend, workspace = GATHERING, GATHERING.workspace()
    rows = np.array(data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=6)))
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    for gather in (backend.gather, backend.gather_by_session):
        tensor = gather("x", backend.from_host(array, workspace), rows, workspace)
        assert tensor.shape == (len(rows), *shape[1:])
        assert tensor.dtype == dtype
        np.testing.assert_array_equal(tensor.numpy(), array[rows])


GATHERING = open_backend()


@pytest.mark.parametrize("rows", [[0], [3], [0, 1, 2, 3], [1, 2]])
def test_rows_that_follow_each_other_are_not_copied(rows) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    workspace = GATHERING.workspace()
    tensor = GATHERING.gather("a", GATHERING.from_host(array, workspace), np.array(rows), workspace)
    np.testing.assert_array_equal(tensor.numpy(), array[rows])
    assert np.shares_memory(tensor.numpy(), array)
    assert tensor.pointer == array[rows[0] :].ctypes.data
    assert workspace.allocated_bytes == 0


@pytest.mark.parametrize("rows", [[0, 2], [2, 1], [0, 0], [0, 2, 2, 3], [1, 0, 2]])
def test_other_rows_are_copied(rows) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = GATHERING.from_host(array, GATHERING.workspace())
    gathered = GATHERING.gather("a", tensor, np.array(rows), GATHERING.workspace())
    assert not np.shares_memory(gathered.numpy(), array)
    np.testing.assert_array_equal(gathered.numpy(), array[rows])


def test_a_copy_on_the_device_is_made_anew_once_a_stage_wrote_new_values(monkeypatch) -> None:
    from dyninfer.engines.ort.library import ort

    on_host = ort.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", lambda array, *_: on_host(array))
    array = np.zeros(3, np.float32)
    tensor, gpu = OrtTensor.over_array(array), OrtDevice("cuda", 0, "cuda")
    moved = tensor.on(gpu)
    assert tensor.on(gpu) is moved
    array[:] = 1
    tensor.renewed()
    assert tensor.on(gpu) is not moved


def test_values_that_are_not_in_host_memory_are_read_anew_every_time() -> None:
    on_device = np.zeros(3, np.float32)
    owner = SimpleNamespace(numpy=on_device.copy)
    tensor = OrtTensor(owner, 64, (3,), on_device.dtype, ("cuda", 0))
    for value in (0, 1, 2):
        on_device[:] = value
        assert tensor.numpy().tolist() == [value] * 3


@pytest.mark.parametrize("opened", ["onnxruntime"], indirect=True)
def test_after_the_deadline_a_stage_that_is_begun_all_the_same_is_not_stopped(opened) -> None:
    backend, engine, workspace = opened
    workspace.deadline = SimpleNamespace(passed=True)  # and nothing that would interrupt
    images = backend.from_host(np.full((1, 3, 8, 8), 0.5, np.float32), workspace)
    np.testing.assert_allclose(engine.run({"images": images}, workspace)["value"].numpy(), 0.5)


def gpu_backend() -> OrtBackend:
    backend = OrtBackend()
    backend._device = OrtDevice("cuda", 1, "cuda")
    backend.device = backend._device.name
    return backend


def test_a_forked_child_goes_on_where_neither_a_gpu_nor_shared_threads_are_at_work() -> None:
    OrtBackend().after_fork()
    OrtBackend(threads=1).after_fork()
    with support.refuses(BackendUnavailable, "threads='shared' after it"):
        OrtBackend(threads="shared").after_fork()
    with support.refuses(BackendUnavailable, "CUDA does not survive a fork"):
        gpu_backend().after_fork()


@pytest.mark.parametrize("opened", ["onnxruntime"], indirect=True)
def test_a_second_session_of_one_thread_is_for_processors_with_threads_of_their_own(
    tmp_path, opened
) -> None:
    backend, engine, _ = opened
    path = tmp_path / "two.dyn" / "onnx" / "first.onnx"
    for other in (OrtBackend(threads="shared"), gpu_backend()):
        assert not other.open_lone(engine, path)
    assert not backend.open_lone(SimpleNamespace(name="first", stage=engine.stage), path)
    assert engine.lone_session is None
    assert backend.open_lone(engine, path)
    assert engine.lone_session.get_session_options().intra_op_num_threads == 1


def test_arrays_on_another_device_are_refused() -> None:
    def on(number: int | None) -> DeviceArray:
        return DeviceArray(64, (1, 2), np.dtype(np.float32), number, None, lambda _: None)

    gpu = gpu_backend()
    for number in (None, 1):
        assert gpu.from_device("x", on(number), None).pointer == 64
    for backend, number, place in (
        (gpu, 0, "'cuda:0', expected this detector's 'cuda:1'"),
        (OrtBackend(), 0, "'cuda:0', expected this detector's 'cpu'"),
        (OrtBackend(), None, "a GPU, expected this detector's 'cpu'"),
    ):
        with support.refuses(InputError, f"x is on {place}"):
            backend.from_device("x", on(number), None)


def test_gather_uses_its_buffer_again_and_different_names_do_not_share() -> None:
    workspace = GATHERING.workspace()
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    tensor = GATHERING.from_host(array, workspace)
    first = GATHERING.gather("a", tensor, np.array([0, 1, 3]), workspace)
    second = GATHERING.gather("b", tensor, np.array([2, 2]), workspace)
    again = GATHERING.gather("a", tensor, np.array([3, 2]), workspace)
    assert first.pointer == again.pointer != second.pointer
    np.testing.assert_array_equal(second.numpy(), array[[2, 2]])
    np.testing.assert_array_equal(again.numpy(), array[[3, 2]])


def test_threads_share_one_gather_session(monkeypatch) -> None:
    from dyninfer.engines.ort.library import ort

    backend = open_backend()
    made, session = [], ort.InferenceSession
    start = threading.Barrier(4)

    def slowly(path, *arguments, **options):
        made.append(path)
        time.sleep(0.05)
        return session(path, *arguments, **options)

    monkeypatch.setattr(ort, "InferenceSession", slowly)
    tensor = backend.from_host(np.arange(6, dtype=np.float32).reshape(3, 2), backend.workspace())

    def gather(row: int) -> list[float]:
        start.wait()
        gathered = backend.gather_by_session("x", tensor, np.array([row]), backend.workspace())
        return gathered.numpy().tolist()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(gather, (0, 1, 2, 0)))
    assert found == [[[0, 1]], [[2, 3]], [[4, 5]], [[0, 1]]]
    assert len(made) == 1


IN_A_FRESH_PROCESS = """
import sys
import numpy as np
import onnxruntime as ort
import dyninfer

bundle, order = sys.argv[1:]
stage = f"{bundle}/onnx/first.onnx"
if order == "application's pool first":
    ort.set_global_thread_pool_sizes(1, 1)
images = np.zeros((1, 3, 8, 8), np.float32)
with dyninfer.load(bundle, threads="shared" if order == "shared pool" else None) as detector:
    detector.infer({"images": images})
    options = ort.SessionOptions()
    options.use_per_session_threads = order == "own pools"
    ort.InferenceSession(stage, options, providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("order", ["own pools", "shared pool", "application's pool first"])
def test_sessions_of_the_application_and_of_dyninfer_live_side_by_side(tmp_path, order) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS, str(path), order], check=True)
