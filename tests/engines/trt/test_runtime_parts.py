"""Memory, rows, pieces, graphs and shapes, each on its own."""

from __future__ import annotations

import gc
import itertools
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

import dyninfer
from dyninfer import AlwaysEasy, EngineBuildError, EngineRunError, Threshold
from dyninfer.bundle.manifest import CascadeRoute, Exit, StaticRoute
from dyninfer.engines.trt import lanes, lost
from dyninfer.engines.trt.memory import Arena, Pool, rounded, row_runs
from dyninfer.runtime.session import Session
from tests import support
from tests.engines.trt.rig import assert_same, make_rig
from tests.engines.trt.standin.library import VERSIONS, engine_bytes

EASY, HARD = (0.9, 0, 0), (0.1, 0, 0)


def images_of(batch: int) -> dict[str, np.ndarray]:
    codes = [((0.9, 0.1)[row % 2], 0, row) for row in range(batch)]
    return {"images": support.coded_images(codes)}


# Memory


@given(st.integers(0, 1 << 30))
def test_blocks_are_never_empty_hold_what_was_asked_for_and_waste_little(size) -> None:
    block = rounded(size)
    assert block >= max(size, 256)
    assert block % 256 == 0
    assert block - size <= max(256, min(2 << 20, 2 * size))


def test_the_pool_gives_what_came_back_and_the_smallest_that_fits() -> None:
    rig = make_rig()
    with rig.cuda.active():
        pool = Pool(rig.cuda, pinned=False)
        small, large = pool.take(1000), pool.take(100_000)
        pool.give(large)
        pool.give(small)
        assert pool.take(900) is small
        assert pool.take(2000) is large
        assert rig.machine.live["device block"] == 2
        pool.give(small)
        pool.give(large)
        pool.close()
        assert pool.allocated_bytes == 0
        assert not rig.machine.leaks()


def test_idle_blocks_are_freed_before_memory_is_said_to_be_short() -> None:
    rig = make_rig(memory=10_000)
    with rig.cuda.active():
        pool = Pool(rig.cuda, pinned=False)
        pool.give(pool.take(6000))
        kept = pool.take(8000)
        assert kept.size >= 8000
        with support.refuses(EngineRunError, "device memory", "max_batch", "MemoryAllocation"):
            pool.take(6000)
        pool.give(kept)
        assert pool.take(6000).size >= 6000


def test_an_arena_grows_only_when_the_work_with_the_old_block_is_over() -> None:
    rig = make_rig()
    cuda = rig.cuda
    with cuda.active():
        stream, other = cuda.new_stream(), cuda.new_stream()
        pool, pinned = Pool(cuda, pinned=False), Pool(cuda, pinned=True)
        arena, mine = Arena(pool, lambda: cuda.synchronize(stream)), pinned.take(600)
        first = arena.block("x", 600)
        assert arena.block("x", 10) is first
        cuda.upload(first.pointer, mine.host[:600], stream)
        second = arena.block("x", 6000)
        assert second is not first
        # the old block is anybody's now: a race if the upload were still under way
        assert pool.take(600) is first
        cuda.upload(first.pointer, mine.host[:600], other)
        cuda.synchronize(other)


def test_memory_that_is_short_is_one_line_when_opened_or_for_another_caller(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", size=64)
    images = {"images": np.zeros((3, 3, 64, 64), np.float32)}
    with (
        support.refuses(EngineBuildError, "MiB of device memory", "lower max_batch"),
        make_rig(memory=1 << 20).detector(path, max_batch=64),
    ):
        raise AssertionError
    with make_rig(memory=1 << 20).detector(path, max_batch=8) as detector:
        assert len(detector.infer(images)) == 3
        with (
            detector.session.workspace(),
            support.refuses(EngineRunError, "MiB of device memory", "max_batch"),
        ):
            detector.infer(images)
        assert len(detector.infer(images)) == 3


# Rows and pieces


@given(st.lists(st.integers(0, 30), max_size=30))
def test_runs_of_rows_are_the_rows_in_order_and_as_few_as_possible(rows) -> None:
    runs = row_runs(np.array(rows, np.int64), (31, 2))
    spread = [source + step for source, _, count in runs for step in range(count)]
    assert spread == rows
    ends = np.cumsum([0, *(count for _, _, count in runs)])
    assert [target for _, target, _ in runs] == ends[:-1].tolist()
    for (before, _, count), (after, _, _) in itertools.pairwise(runs):
        assert before + count != after


def test_runs_of_neighbours() -> None:
    assert row_runs(np.array([2, 3, 4, 7]), (8,)) == [
        (2, 0, 3),
        (7, 3, 1),
    ]
    assert row_runs(np.array([], np.int64), (0,)) == []


@pytest.mark.parametrize("rows", [[8], [-1, 0], [0, 1, 9]])
def test_rows_beside_the_memory_are_refused(rows) -> None:
    with support.refuses(EngineRunError, "(8, 3)"):
        row_runs(np.array(rows), (8, 3))


@pytest.mark.parametrize("profiles", [[[1, 1, 1]], [[1, 2, 3]], [[1, 4, 16]]])
@pytest.mark.parametrize("version", VERSIONS)
def test_batches_that_an_engine_does_not_take_run_in_pieces(tmp_path, profiles, version) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(version)
    chosen = {"all": {"profiles": profiles}}
    with dyninfer.load(path) as reference, rig.detector(path, max_batch=20, **chosen) as detector:
        for batch in (1, 2, 5, 20, 7):
            for _ in range(3):
                assert_same(detector.infer(images_of(batch)), reference.infer(images_of(batch)))


def test_a_stage_for_single_images_runs_once_for_each(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")

    def one_by_one(manifest: dict) -> None:
        manifest["stages"]["second"]["rows_per_run"] = 1

    support.reseal(path, one_by_one)
    rig = make_rig()
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for _ in range(3):
            assert_same(detector.infer(images_of(8)), reference.infer(images_of(8)))
        assert detector.engines["second"].run_count == 12


# Engines that do not fit


def open_one(rig, tmp_path, **options):
    bundle = dyninfer.Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    path = rig.build(bundle, first=options).stage_path("first")
    return rig.backend.open("first", bundle.manifest.stages["first"], path, frozenset())


def test_an_engine_that_takes_no_single_images_is_refused(tmp_path) -> None:
    with support.refuses(EngineBuildError, "from 4 up", "--batch 1:OPT:MAX"):
        open_one(make_rig(), tmp_path, profiles=[[4, 8, 16]])


def test_an_engine_that_reads_values_on_the_host_is_refused(tmp_path) -> None:
    with support.refuses(EngineBuildError, "on the host", "images"):
        open_one(make_rig(), tmp_path, host_tensors=["images"])


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (support.means_of("pictures", 8, 8, "value"), ("'pictures'", "'images'")),
        (support.means_of("images", 8, 8, "mean"), ("'mean'", "'value'")),
        (support.means_of("images", 8, 9, "value"), ("(?, 3, 8, 9)", "(batch, 3, 8, 8)")),
    ],
)
def test_an_engine_of_another_stage_is_refused(tmp_path, model, parts) -> None:
    bundle = dyninfer.Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    path = tmp_path / "first.engine"
    path.write_bytes(engine_bytes(model))
    with support.refuses(EngineBuildError, "'first'", *parts):
        make_rig().backend.open("first", bundle.manifest.stages["first"], path, frozenset())


@pytest.mark.parametrize("data", [None, b"", b"not an engine"])
def test_a_file_that_is_no_engine_is_named_with_the_library_s_reason(tmp_path, data) -> None:
    bundle = dyninfer.Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    path = tmp_path / "first.engine"
    if data is not None:
        path.write_bytes(data)
    reason = "No such file" if data is None else "Magic tag"
    with support.refuses(EngineBuildError, "first.engine", "'first'", reason):
        make_rig().backend.open("first", bundle.manifest.stages["first"], path, frozenset())


def test_what_tensorrt_refuses_at_run_time_is_one_line_with_its_reason(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:
        detector.infer(images_of(2))
        rig.fake.refuses_runs = True
        with support.refuses(EngineRunError, "'first'", "TensorRT 10.13.0", "Cask convolution"):
            detector.infer(images_of(3))
        rig.fake.refuses_runs, rig.fake.refuses_contexts = False, True
        with support.refuses(EngineRunError, "'first'", "out of memory while making a context"):
            detector.infer(images_of(4))
        rig.fake.refuses_contexts = False
        assert len(detector.infer(images_of(4))) == 4


# Graphs


@pytest.mark.parametrize("where", ["run", "cudaStreamEndCapture", "cudaGraphInstantiate"])
@pytest.mark.parametrize("version", ["8.6", "rtx"])
def test_a_capture_that_fails_is_said_once_and_the_stage_runs_without(
    tmp_path, caplog, where, version
) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(version)
    if where == "run":
        rig.fake.refuses_capture = True
    else:
        rig.machine.failures[where] = "cudaErrorStreamCaptureInvalidated"
    with (
        caplog.at_level(logging.WARNING, logger="dyninfer"),
        dyninfer.load(path) as reference,
        rig.detector(path) as detector,
    ):
        for batch in (4, 4, 4, 2, 2, 2):
            assert_same(detector.infer(images_of(batch)), reference.infer(images_of(batch)))
        assert not any(engine.graph_count for engine in detector.engines.values())
    said = [r.getMessage() for r in caplog.records if "without a CUDA graph" in r.getMessage()]
    # TensorRT-RTX is asked first, and asked again: its kernels may not be compiled yet
    asked_first = (version, where) == ("rtx", "run")
    assert len(said) == (0 if asked_first else 4)  # once for each stage
    assert all("\n" not in line for line in said)


def test_a_graph_is_captured_as_soon_as_tensorrt_rtx_has_compiled_its_kernels(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig("rtx")
    rig.fake.refuses_capture = True
    with rig.detector(path) as detector:
        for _ in range(3):
            detector.infer(images_of(2))
        assert not any(engine.graph_count for engine in detector.engines.values())
        rig.fake.refuses_capture = False
        detector.infer(images_of(2))
        assert all(engine.graph_count == 1 for engine in detector.engines.values())


def test_a_stage_may_run_again_before_anybody_has_read_what_it_made(tmp_path) -> None:
    rig = make_rig()
    engine, workspace = open_one(rig, tmp_path), rig.backend.workspace()
    for value in (0.1, 0.2, 0.3):
        images = np.full((2, 3, 8, 8), value, np.float32)
        made = engine.run({"images": rig.backend.from_host(images, workspace)}, workspace)
        array = workspace.host_array("images", (2, 3, 8, 8), np.dtype(np.float32))
        array[...] = value
        made = engine.run({"images": rig.backend.from_host(array, workspace)}, workspace)
    np.testing.assert_allclose(made["value"].numpy(), 0.3, rtol=1e-6)
    rig.backend.close()


def test_contexts_that_were_not_used_for_long_make_room(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lanes, "OFTEN", 1)
    monkeypatch.setattr(lanes, "MOST", 3)
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for batch in (1, 2, 3, 4, 5, 6, 1, 2, 3, 3, 3, 6):
            assert_same(detector.infer(images_of(batch)), reference.infer(images_of(batch)))
        assert rig.machine.live["execution context"] <= 3 * 4


def test_a_context_makes_room_only_when_its_work_is_over(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lanes, "MOST", 1)
    rig = make_rig()
    engine = open_one(rig, tmp_path, profiles=[[1, 1, 1], [2, 2, 2], [3, 3, 3]])
    workspace = rig.backend.workspace()
    for batch in (3, 2, 1):  # falling, so that no buffer has to grow, for which it would wait
        made = engine.run(
            {"images": rig.backend.from_host(images_of(batch)["images"], workspace)}, workspace
        )
    assert made["value"].numpy().shape == (1, 3)
    assert not rig.machine.violations
    rig.backend.close()


# Shapes that depend on the data


def picky_head() -> tuple:
    """A body that keeps only the boxes whose score is above a half: NonZero and Gather."""
    outputs = {"boxes_xyxy": ["batch", "kept", 4], "class_scores": ["batch", "kept", 2]}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[0, 1], keepdims=0),
        helper.make_node("ReduceMax", ["mean"], ["columns"], axes=[0], keepdims=0),
        helper.make_node("Greater", ["columns", "half"], ["above"]),
        helper.make_node("NonZero", ["above"], ["found"]),
        helper.make_node("Squeeze", ["found", "first_axis"], ["kept_rows"]),
        helper.make_node("ReduceMean", ["images"], ["identity"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["identity", "last_axis"], ["column"]),
        helper.make_node("Add", ["column", "corners"], ["all_boxes"]),
        helper.make_node("Gather", ["all_boxes", "kept_rows"], ["boxes_xyxy"], axis=1),
        helper.make_node("Mul", ["column", "scores"], ["all_scores"]),
        helper.make_node("Gather", ["all_scores", "kept_rows"], ["class_scores"], axis=1),
    ]
    constants = {
        "half": np.array(0.5, np.float32),
        "first_axis": np.array([0]),
        "last_axis": np.array([3]),
        "corners": np.arange(32, dtype=np.float32).reshape(1, 8, 4),
        "scores": np.linspace(0.1, 0.9, 16, dtype=np.float32).reshape(1, 8, 2),
    }
    return support.tiny_model({"images": ["batch", 3, 8, 8]}, outputs, nodes, constants)


def write_picky(path):
    route = StaticRoute(body="body")
    return support.write_tiny_bundle(path, {"body": picky_head()}, route, {"images": 8})


def columns(batch: int, bright: int) -> dict[str, np.ndarray]:
    images = np.full((batch, 3, 8, 8), 0.1, np.float32)
    images[..., :bright] = 1
    return {"images": images}


@pytest.mark.parametrize("version", VERSIONS)
def test_outputs_whose_shape_depends_on_the_data(tmp_path, caplog, version) -> None:
    path = write_picky(tmp_path / "picky.dyn")
    rig = make_rig(version)
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for batch, bright in ((1, 3), (1, 8), (2, 0), (2, 5), (1, 1), (2, 8)):
            found = detector.infer(columns(batch, bright))
            assert found[0].outputs["boxes_xyxy"].shape == (bright, 4)
            assert_same(found, reference.infer(columns(batch, bright)))
        assert detector.engines["body"].graph_count == 0  # such a stage cannot be captured
        assert not caplog.records  # and nobody tries
        with rig.machine.steady():
            detector.infer(columns(2, 7))


def test_memory_that_is_short_within_tensorrt_s_own_call_is_told(tmp_path) -> None:
    path = write_picky(tmp_path / "picky.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:
        detector.infer(columns(4, 1))
        rig.machine.failures["cudaMalloc"] = "cudaErrorMemoryAllocation"
        with support.refuses(EngineRunError, "MiB of device memory"):
            detector.infer(columns(4, 8))  # the boxes do not fit where one was
        rig.machine.failures.clear()
        assert len(detector.infer(columns(2, 8))) == 2


def test_a_shape_of_the_run_before_is_not_taken_for_this_one(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(write_picky(tmp_path / "picky.dyn")) as detector:
        detector.infer(columns(1, 3))
        rig.fake.forgets_shapes = True
        with support.refuses(EngineRunError, "shape of output", "boxes_xyxy"):
            detector.infer(columns(1, 5))


def test_a_shape_that_depends_on_the_data_does_not_go_with_pieces(tmp_path) -> None:
    path = write_picky(tmp_path / "picky.dyn")
    rig = make_rig()
    profile = {"all": {"profiles": [[1, 2, 2]]}}
    with (
        rig.detector(path, **profile) as detector,
        support.refuses(EngineRunError, "takes 2 at once", "max_batch to 2"),
    ):
        detector.infer(columns(3, 1))


def test_other_dynamic_axes_are_asked_of_the_engine(tmp_path) -> None:
    """An axis that the manifest names but that follows from the input's shape."""
    body = support.detecting_body("images", 8, 0)
    for value in body.graph.output:
        value.type.tensor_type.shape.dim[1].dim_param = "anchors"
    route = StaticRoute(body="body")
    path = support.write_tiny_bundle(tmp_path / "x.dyn", {"body": body}, route, {"images": 8})
    rig = make_rig()
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for _ in range(3):
            assert_same(detector.infer(images_of(3)), reference.infer(images_of(3)))
        assert detector.engines["body"].graph_count == 1


def test_a_body_without_head_sends_only_the_rows_that_leave(tmp_path) -> None:
    models = {
        "cheap": support.detecting_body("images", 8, 0),
        "router": support.tiny_model(
            {"boxes_xyxy": ["batch", 1, 4]},
            {"easiness": ["batch"]},
            [helper.make_node("ReduceMin", ["boxes_xyxy"], ["easiness"], axes=[1, 2], keepdims=0)],
        ),
        "costly": support.detecting_body("images", 8, 1000),
    }
    exits = (Exit(body="cheap", router="router"), Exit(body="costly"))
    path = support.write_tiny_bundle(
        tmp_path / "pair.dyn", models, CascadeRoute(exits=exits), {"images": 8}
    )
    codes = [(0, 0, float(row % 2)) for row in range(6)]
    inputs = {"images": support.coded_images(codes)}
    with dyninfer.load(path) as reference, make_rig().detector(path) as detector:
        for policy in (Threshold(0.5), AlwaysEasy()):
            detector.policy = reference.policy = policy
            for _ in range(3):
                assert_same(detector.infer(inputs), reference.infer(inputs))


def test_a_closed_engine_says_so(tmp_path) -> None:
    rig = make_rig()
    engine = open_one(rig, tmp_path)
    workspace = rig.backend.workspace()
    engine.close()
    with support.refuses(EngineRunError, "'first' was closed"):
        engine.run({"images": rig.backend.from_host(images_of(1)["images"], workspace)}, workspace)
    rig.backend.close()
    rig.backend.close()


def test_a_workspace_that_cannot_be_freed_is_logged_and_all_else_is_freed(tmp_path, caplog) -> None:
    rig = make_rig()
    engine = open_one(rig, tmp_path)
    workspace = rig.backend.workspace()
    made = engine.run(
        {"images": rig.backend.from_host(images_of(1)["images"], workspace)}, workspace
    )
    made["value"].numpy()
    rig.machine.failures["cudaStreamSynchronize"] = "cudaErrorInvalidValue"
    workspace.close()
    assert "could not be freed" in caplog.text
    assert rig.machine.live["stream"] == rig.machine.live["event"] == 0
    assert rig.machine.live["execution context"] == 0


@pytest.mark.parametrize("call", ["cudaFree", "cudaFreeHost", "cudaEventDestroy"])
def test_a_refusal_to_free_one_thing_keeps_no_other(tmp_path, caplog, call) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    bundle = dyninfer.Bundle.open(path)
    session = Session(bundle, rig.backend, rig.build(bundle))
    with dyninfer.Detector(bundle, session, 8) as detector:
        detector([np.zeros((9, 9, 3), np.uint8)] * 3, policy=dyninfer.Forced([0, 1, 0]))
        rig.machine.failures[call] = "cudaErrorInvalidValue"
    kinds = {"cudaFree": "device block", "cudaFreeHost": "host block", "cudaEventDestroy": "event"}
    assert set(rig.machine.leaks()) == {kinds[call]}
    assert caplog.text.count("could not be freed: CUDA failed in " + call) == 1


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_an_error_that_the_process_does_not_survive_says_so_and_close_lets_go_of_all(
    tmp_path, caplog, package
) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package=package)
    bundle = dyninfer.Bundle.open(path)
    session = Session(bundle, rig.backend, rig.build(bundle), degrade=True)
    with dyninfer.Detector(bundle, session, 8) as detector:
        detector.infer(images_of(4))
        said = "cudaErrorIllegalAddress" if package == "cuda-python" else "illegal memory access"
        rig.machine.lose(said)
        with support.refuses(EngineRunError, said, "restart the process"):
            detector.infer(images_of(4))
    assert rig.machine.live["execution context"] == rig.machine.live["library engine"] == 0
    assert rig.backend.allocated_bytes == 0
    assert "restart the process" in caplog.text
    with rig.cuda.active():
        gc.collect()  # the error held a stream, which PyCUDA frees with its last reference


def test_tensorrt_s_own_report_of_a_lost_gpu_says_to_restart(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        rig.fake.refuses_runs = "Cuda Runtime (unspecified launch failure)"
        with support.refuses(EngineRunError, "launch failure", "restart the process"):
            detector.infer(images_of(1))
        rig.fake.refuses_runs = True
        with pytest.raises(EngineRunError) as passing:
            detector.infer(images_of(1))
        assert "restart" not in str(passing.value)


def test_the_codes_of_a_lost_gpu_are_those_of_which_cuda_says_so() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")
    said = {
        int(code)
        for code in runtime.cudaError_t
        if "terminated and relaunched" in " ".join((code.__doc__ or "").split())
    }
    if not said:
        pytest.skip("this cuda-bindings explains none of its codes")
    assert said == lost.CODES
