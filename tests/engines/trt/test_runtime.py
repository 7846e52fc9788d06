"""The TensorRT backend gives what ONNX Runtime gives, and nothing happens out of order."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Threshold
from tests import support
from tests.engines.trt.rig import assert_same, make_rig
from tests.engines.trt.standin.library import VERSIONS

EASY, MIDDLE, HARD = (0.9, 0.9), (0.1, 0.9), (0.1, 0.1)
POLICIES = (AlwaysEasy(), AlwaysHard(), Threshold(0.5))


def coded(kinds) -> dict[str, np.ndarray]:
    codes = [(*kind, float(row)) for row, kind in enumerate(kinds)]
    return {"images": support.coded_images(codes), "images_2": support.coded_images(codes, 4)}


def two(kinds) -> dict[str, np.ndarray]:
    return {"images": coded(kinds)["images"]}


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_and_package_gives_the_same_results(tmp_path, version, package, late) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    batches = [[EASY], [HARD], [EASY, MIDDLE, HARD], [HARD, HARD, EASY, MIDDLE, HARD, EASY, HARD]]
    rig = make_rig(version, package, late=late)
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for policy, kinds, _ in itertools.product(POLICIES, batches, range(3)):
            detector.policy = reference.policy = policy
            assert_same(detector.infer(coded(kinds)), reference.infer(coded(kinds)))
        counts = [e.graph_count for e in detector.engines.values()]
        assert all(counts) if package == "cuda-python" else not any(counts)
        assert all(
            detector.engines[name].row_count == engine.row_count
            for name, engine in reference.engines.items()
        )


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 8, 21])
def test_routes_batches_and_chunks_equal_onnx_runtime(tmp_path, batch, speculative) -> None:
    generator = np.random.default_rng(batch)
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with (
        dyninfer.load(path) as reference,
        rig.detector(path, speculative_head=speculative) as detector,
    ):
        for policy in (*POLICIES, Threshold(0.0), Threshold(1.1)):
            detector.policy = reference.policy = policy
            for _ in range(4):
                kinds = [(EASY, HARD)[k] for k in generator.integers(0, 2, batch)]
                assert_same(detector.infer(two(kinds)), reference.infer(two(kinds)))


@pytest.mark.parametrize("version", ["8.6", "10.13", "rtx"])
def test_a_real_detector_equals_onnx_runtime_on_pictures_and_tensors(
    small_bundle, tmp_path, version
) -> None:
    import shutil

    path = tmp_path / "small.dyn"
    shutil.copytree(small_bundle, path)
    images, pictures = support.random_images(5, 64, 96), support.random_pictures(5)
    rig = make_rig(version)
    with dyninfer.load(path, max_batch=4) as reference, rig.detector(path, max_batch=4) as detector:
        easiness = sorted(o.easiness for o in reference.infer({"images": images}))
        middle = Threshold((easiness[2] + easiness[3]) / 2)
        for policy in (AlwaysEasy(), AlwaysHard(), middle):
            detector.policy = reference.policy = policy
            for _ in range(2):
                found = detector.infer({"images": images})
                assert_same(found, reference.infer({"images": images}))
            for a, b in zip(detector(pictures), reference(pictures), strict=True):
                assert a.exit_index == b.exit_index
                np.testing.assert_array_equal(a.class_ids, b.class_ids)
                np.testing.assert_allclose(a.boxes_xyxy, b.boxes_xyxy, atol=1e-2)


def test_threads_share_engines_and_pools_but_neither_streams_nor_buffers(tmp_path) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    rig = make_rig()
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        batches = [
            [(EASY, MIDDLE, HARD)[k] for k in np.random.default_rng(seed).integers(0, 3, 1 + seed)]
            for seed in range(8)
        ]
        expected = [reference.infer(coded(kinds)) for kinds in batches]

        def work(job: int) -> None:
            for turn in range(6):
                index = (job + turn) % len(batches)
                assert_same(detector.infer(coded(batches[index])), expected[index])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(12)))
        streams = {workspace.handle for workspace in rig.workspaces}
        assert len(streams) == len(rig.workspaces) >= 2


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_the_steady_state_makes_nothing_new(tmp_path, package) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    rig = make_rig(package=package)
    kinds = [EASY, MIDDLE, HARD, HARD, EASY, MIDDLE, EASY, HARD]
    with rig.detector(path) as detector:

        def everything() -> None:
            for policy, batch in itertools.product(POLICIES, (8, 1, 3)):
                detector.policy = policy
                detector.infer(coded(kinds[:batch]))
            detector.policy = Threshold(0.5)

        for _ in range(2):  # the first run of a shape prepares, the second captures
            everything()
        held = rig.backend.allocated_bytes
        with rig.machine.steady():
            for _ in range(3):
                everything()
        assert rig.backend.allocated_bytes == held > 0


def test_stages_are_launched_as_graphs_after_their_warm_up(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:
        for _ in range(2):
            detector.infer(two([EASY, HARD]))
        rig.machine.calls.clear()
        detector.infer(two([EASY, HARD]))
        assert rig.machine.calls["cudaGraphLaunch"] == 4  # first, router, head, second
        assert rig.machine.calls["enqueue"] == 0
        assert rig.machine.calls["cudaMemcpyHostToDevice"] == 1


def test_the_host_reads_four_bytes_per_image_before_it_decides(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    read: list[int] = []
    copy = rig.machine.copy

    def watch(target, source, handle, kind):
        if kind == "cudaMemcpyDeviceToHost":
            read.append(target.size)
        return copy(target, source, handle, kind)

    rig.machine.copy = watch
    with rig.detector(path) as detector:
        detector.infer(two([EASY, HARD, EASY, EASY, HARD]))
    # boxes of 16 bytes and scores of 8 in one copy, with what the alignment to 256 leaves between
    assert read == [5 * 4, 256 + 3 * 8, 256 + 2 * 8]


def test_neighbouring_rows_are_gathered_in_one_copy(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    with rig.detector(path) as detector:
        rig.machine.calls.clear()
        detector.infer(two([HARD, HARD, HARD, EASY, EASY, HARD]))
        # images for the second body in two runs of neighbours, the feature for the head in one
        assert rig.machine.calls["cudaMemcpyDeviceToDevice"] == 3
        rig.machine.calls.clear()
        detector.infer(two([HARD] * 6))
        assert rig.machine.calls["cudaMemcpyDeviceToDevice"] == 0


def test_the_speculative_head_is_enqueued_before_the_host_waits_for_the_easiness(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    for speculative in (False, True):
        rig = make_rig()
        events: list[str] = []
        wait, synchronize = rig.machine.wait, rig.machine.synchronize
        enqueue = rig.machine.enqueue

        def watch_wait(event, wait=wait, events=events):
            events.append("wait")
            return wait(event)

        def watch_synchronize(handle, synchronize=synchronize, events=events):
            events.append("wait")
            return synchronize(handle)

        def watch(handle, operation, enqueue=enqueue, events=events):
            if operation.name == "engine":
                events.append("engine")
            return enqueue(handle, operation)

        with rig.detector(path, speculative_head=speculative) as detector:
            rig.machine.wait, rig.machine.synchronize = watch_wait, watch_synchronize
            rig.machine.enqueue = watch
            found = detector.infer(two([EASY, HARD, HARD]))
            rig.machine.wait, rig.machine.synchronize = wait, synchronize
            rig.machine.enqueue = enqueue
            assert [o.exit_index for o in found] == [0, 1, 1]
            assert detector.engines["head"].row_count == (3 if speculative else 1)
            assert events[: events.index("wait")] == ["engine"] * (3 if speculative else 2)


def test_times_come_from_the_device_and_cover_all_stages_that_ran(tmp_path, monkeypatch) -> None:
    host = SimpleNamespace(perf_counter_ns=itertools.count(0, 1000).__next__)
    monkeypatch.setattr("dyninfer.runtime.executor.time", host)  # 1 µs between two looks at it
    path = support.write_two_exits(tmp_path / "two.dyn")
    with make_rig().detector(path) as detector:
        session = detector.session
        images = two([EASY, HARD])["images"]
        with session.workspace() as workspace:
            result = session.run(lambda *_: images, 2, Threshold(0.5), workspace)
            assert not workspace.device_spans()
        # the stand-in's clock: 1 ms for a stage, 0.01 ms for a copy
        spans = [(name, list(rows)) for name, _, rows in result.spans]
        assert spans == [
            ("copy", [0, 1]),
            ("first", [0, 1]),
            ("router", [0, 1]),
            ("gather", [1]),
            ("second", [1]),
            ("gather", [0]),  # on a stream of their own, beside the second body
            ("head", [0]),
            *[("read-back", rows) for rows in ([0, 1], [0], [1], [0], [1])],
        ]
        cost_ms = {"copy": 0.01, "gather": 0.01, "read-back": 0}
        for name, ms, _ in result.spans:  # the host waited less than the stand-in says
            assert ms == pytest.approx(cost_ms.get(name, 1))
        before = len(workspace.track.clock.events)
        for _ in range(20):  # nobody asks for these times; nothing may pile up
            detector.run_stage("first", {"images": images})
        assert len(workspace.track.clock.events) == before


def test_host_arrays_of_the_workspace_need_no_second_copy(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig()
    sources: list[int] = []
    copy = rig.machine.copy

    def watch(target, source, handle, kind):
        if kind == "cudaMemcpyHostToDevice":
            sources.append(source.view.ctypes.data)
        return copy(target, source, handle, kind)

    rig.machine.copy = watch
    with rig.detector(path) as detector:
        detector([np.zeros((9, 9, 3), np.uint8)] * 2)
        (workspace,) = rig.workspaces
        assert sources == [
            workspace.host_array("images", (2, 3, 8, 8), np.dtype(np.float32)).ctypes.data
        ]


def test_nan_easiness_goes_on(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with make_rig().detector(path) as detector:
        found = detector.infer(two([(-1, 0), EASY]))
        assert [o.exit_index for o in found] == [1, 0]
        assert detector.nan_easiness_count == 1


def test_a_static_route_and_a_cascade_without_router_run(tmp_path) -> None:
    for write in (
        lambda path: support.write_static(path),
        lambda path: support.write_two_exits(path, router=False),
    ):
        path = write(tmp_path / f"{len(list(tmp_path.iterdir()))}.dyn")
        with dyninfer.load(path) as reference, make_rig().detector(path) as detector:
            for _ in range(3):
                inputs = two([EASY, HARD, HARD])
                assert_same(detector.infer(inputs), reference.infer(inputs))
