"""How many calls of CUDA an image takes, and how many contexts and bytes are kept."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Forced, InputError, Threshold
from dyninfer.engines.trt.targets import BatchProfile
from tests import support
from tests.engines.trt.rig import DEVICE, assert_same, make_rig
from tests.engines.trt.standin.library import profiles_of
from tests.engines.trt.test_runtime import EASY, HARD, MIDDLE, coded, two

PICTURE = np.zeros((9, 9, 3), np.uint8)
MIXED = [EASY, HARD, EASY, HARD, HARD, EASY, EASY, HARD]


def calls_of(rig, run, warm: int = 3) -> Counter:
    """What one run asks of CUDA in the steady state, by name."""
    for _ in range(warm):
        run()
    rig.machine.calls.clear()
    with rig.machine.steady():
        run()
    # beside CUDA's functions the stand-in counts kinds of copies, and what TensorRT enqueues
    return Counter({n: c for n, c in rig.machine.calls.items() if "To" not in n and n != "enqueue"})


@pytest.mark.parametrize("way", [0, 1])
def test_a_single_image_takes_at_most_20_calls_with_its_times_and_12_without(tmp_path, way) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        detector.policy = Threshold([0.0, 1.1][way])
        found = calls_of(rig, lambda: detector(PICTURE))
        assert found.total() <= 20, found
        found = calls_of(rig, lambda: detector.infer(two([HARD])))
        assert found.total() <= 12, found
        assert found["cudaEventElapsedTime"] == found["cudaEventRecord"] == 0  # nobody asked


def test_a_mixed_batch_of_eight_takes_at_most_45_calls(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        pictures = [PICTURE] * 8
        detector.policy = Forced([int(kind is HARD) for kind in MIXED])
        assert calls_of(rig, lambda: detector(pictures)).total() <= 45
        detector.policy = Threshold(0.5)
        found = calls_of(rig, lambda: detector.infer(two(MIXED)))
        assert found.total() <= 30, found
        assert found["cudaMemcpyBatchAsync"] == 2  # what the head reads, and the hard pictures


def test_three_exits_take_one_set_of_copies_for_each_split(tmp_path) -> None:
    rig = make_rig()
    kinds = [EASY, MIDDLE, HARD, HARD, EASY, MIDDLE, EASY, HARD]
    with rig.detector(support.write_three_exits(tmp_path / "three.dyn")) as detector:
        found = calls_of(rig, lambda: detector.infer(coded(kinds)))
        copies = found["cudaMemcpyBatchAsync"] + found["cudaMemcpyAsync"]
        # two splits of two parts; sent are two sizes of images; read are two signals, three exits
        assert copies == 2 * 2 + 2 + 2 + 3, found


@pytest.mark.parametrize("driver", [12060, 13000])
@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_copies_go_one_by_one_where_cuda_takes_no_batches(tmp_path, package, driver) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package=package, driver_version=driver)
    with dyninfer.load(path) as reference, rig.detector(path) as detector:
        for _ in range(3):
            assert_same(detector.infer(two(MIXED)), reference.infer(two(MIXED)))
    batches = package == "cuda-python" and driver >= 12080
    assert bool(rig.machine.calls["cudaMemcpyBatchAsync"]) == batches


def test_the_host_waits_once_for_each_exit_and_once_for_what_decides(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        found = calls_of(rig, lambda: detector.infer(two(MIXED)))
        assert found["cudaStreamSynchronize"] + found["cudaEventSynchronize"] == 3
        for policy in (AlwaysEasy(), AlwaysHard(), Forced([1] * 8)):
            detector.policy = policy
            found = calls_of(rig, lambda: detector.infer(two(MIXED)))
            assert found["cudaStreamSynchronize"] + found["cudaEventSynchronize"] == 1


def test_no_context_is_made_on_a_gpu_that_nobody_asked_for(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        detector([PICTURE] * 2)
    assert rig.machine.contexts == {DEVICE}
    assert rig.machine.current == 0


@pytest.mark.parametrize("write", [support.write_two_exits, support.write_three_exits])
@pytest.mark.parametrize("batch", ["1:4:8", "1:1:8"])
def test_a_pass_over_batch_sizes_and_thresholds_leaves_few_contexts(tmp_path, write, batch) -> None:
    rig, profiles = make_rig(), profiles_of(BatchProfile.parse(batch))
    with rig.detector(write(tmp_path / "x.dyn"), all={"profiles": profiles}) as detector:
        names = detector.manifest.image_tensors
        for threshold, batch in itertools.product((0.0, 0.5, 1.1), range(1, 9)):
            detector.policy = Threshold(threshold)
            inputs = coded([*MIXED[:-1], MIDDLE][:batch])
            detector.infer({name: inputs[name] for name in names})
        most = 2 * len(profiles) * len(detector.engines)
        assert rig.machine.live["execution context"] <= most


def test_a_size_that_comes_often_gets_a_context_and_a_graph_of_its_own(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:

        def sizes() -> None:
            for batch in (1, 3, 5):
                detector.infer(two([HARD] * batch), policy=AlwaysHard())

        assert calls_of(rig, sizes, warm=20)["cudaGraphLaunch"] == 3 * 3


def test_buffers_are_there_for_the_largest_batch_when_a_detector_is_opened(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn", size=64)) as detector:
        held, image = rig.backend.allocated_bytes, 3 * 64 * 64 * 4
        assert held >= (8 + 8 + 8) * image  # on the host, on the device, and those that go on
        for batch in (1, 8, 3):
            images = np.zeros((batch, 3, 64, 64), np.float32)
            images[::2] = 1  # a batch that is split
            detector([PICTURE] * batch)
            detector.infer({"images": images})
        # a caller's own arrays, and what the second stream works in
        assert rig.backend.allocated_bytes - held <= 8 * image + (1 << 16)


def test_after_a_warm_up_nothing_is_made_any_more(tmp_path) -> None:
    rig = make_rig()
    with rig.detector(support.write_three_exits(tmp_path / "three.dyn")) as detector:
        detector.warm_up(batches=[4, 1])
        rig.machine.calls.clear()
        with rig.machine.steady():
            for policy in (AlwaysEasy(), AlwaysHard(), Threshold(0.5)):
                detector.infer(coded([EASY, MIDDLE, HARD, HARD]), policy=policy)
                detector.infer(coded([HARD]), policy=policy)
        assert rig.machine.calls["enqueue"] == 0  # all of it as graphs


def test_a_warm_up_leaves_counts_of_failures_and_the_results_as_they_are(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as reference, make_rig().detector(path) as detector:
        detector.warm_up()
        reference.warm_up()
        assert not any(detector.failure_counts.to_dict().values())
        assert_same(detector.infer(two(MIXED)), reference.infer(two(MIXED)))


@pytest.mark.parametrize("batches", [[0], [9], [1, 2.5], [True], ["8"]])
def test_a_warm_up_for_a_batch_that_cannot_be_is_refused(tmp_path, batches) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as detector, support.refuses(InputError, "1 to max_batch", "8"):
        detector.warm_up(batches)


def test_the_head_of_the_easy_images_runs_beside_the_second_body(tmp_path) -> None:
    rig = make_rig()
    ran: list[tuple[int, str]] = []
    enqueue = rig.machine._enqueue

    def watch(stream, operation):
        if operation.name in ("engine", "cudaMemcpyDeviceToHost"):
            ran.append((stream.handle, operation.name))
        enqueue(stream, operation)

    rig.machine._enqueue = watch
    with rig.detector(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        detector.infer(two(MIXED))
    streams = [stream for stream, name in ran if name == "engine"]
    first, router, head, second = streams
    assert first == router == second != head
    assert (head, "cudaMemcpyDeviceToHost") in ran  # and its results are not waited for by second
