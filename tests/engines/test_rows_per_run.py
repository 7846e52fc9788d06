from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import dyninfer
from dyninfer import Bundle, EngineBuildError, EngineRunError
from dyninfer.bundle.inside import file_sha256
from dyninfer.engines import open_backend
from dyninfer.engines.ort.runtime import LARGE_MACS
from dyninfer.engines.ort.tensor import OrtTensor
from tests import support

TWO = ("first", "head", "router", "second")


def one_at_a_time(bundle: Path, stages: Sequence[str]) -> Path:
    """Fix the batch of a bundle's stages at 1, in their files, and say so in the manifest."""
    changes = {}
    for stage in stages:
        path = bundle / "onnx" / f"{stage}.onnx"
        model = onnx.load(str(path))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = 1
        path.write_bytes(model.SerializeToString())
        changes[stage] = file_sha256(path)

    def change(manifest) -> None:
        for stage, sha256 in changes.items():
            manifest["stages"][stage] |= {"sha256": sha256, "rows_per_run": 1}

    support.reseal(bundle, change)
    return bundle


@pytest.fixture
def dynamic(tmp_path: Path):
    with dyninfer.load(support.write_two_exits(tmp_path / "dynamic.dyn"), max_batch=64) as opened:
        yield opened


@pytest.fixture(params=[TWO, ("first",), ("second",), ("head",), ("router",)], ids="+".join)
def fixed(request: pytest.FixtureRequest, tmp_path: Path):
    path = one_at_a_time(support.write_two_exits(tmp_path / "fixed.dyn"), request.param)
    with dyninfer.load(path, max_batch=64) as opened:
        yield opened


def coded(batch: int, seed: int = 0) -> np.ndarray:
    codes = np.random.default_rng(seed).random((batch, 3), np.float32)
    return support.coded_images([(a, b, float(row)) for row, (a, b, _) in enumerate(codes)])


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 33])
@pytest.mark.parametrize(
    "policy", [dyninfer.AlwaysEasy(), dyninfer.AlwaysHard(), dyninfer.Threshold(0.5)], ids=str
)
def test_stages_for_single_images_give_what_stages_for_batches_give(
    dynamic, fixed, batch, policy
) -> None:
    images = coded(batch, seed=batch)
    for detector in (dynamic, fixed):
        detector.policy = policy
    expected, found = (d.infer({"images": images}) for d in (dynamic, fixed))
    assert [raw.exit_index for raw in found] == [raw.exit_index for raw in expected]
    for name in ("boxes_xyxy", "class_scores"):
        np.testing.assert_array_equal(support.stacked(found, name), support.stacked(expected, name))


def test_a_workspace_that_grew_and_shrank_still_gives_every_row_its_own(tmp_path) -> None:
    path = one_at_a_time(support.write_two_exits(tmp_path / "fixed.dyn"), TWO)
    with dyninfer.load(path, max_batch=64) as detector:
        detector.policy = dyninfer.AlwaysHard()
        for batch in (1, 9, 2, 17, 1):
            found = support.stacked(detector.infer({"images": coded(batch)}), "boxes_xyxy")
            np.testing.assert_allclose(found[:, 0, 0], 1000 + np.arange(batch), atol=1e-3)


def test_three_exits_of_single_images_split_as_batches_do(tmp_path) -> None:
    names = ("body_1", "router_1", "head_1", "body_2", "router_2", "head_2", "body_3")
    path = support.write_three_exits(tmp_path / "dynamic.dyn")
    other = one_at_a_time(support.write_three_exits(tmp_path / "fixed.dyn"), names)
    images = coded(24)
    inputs = {"images": images, "images_2": np.ascontiguousarray(images[:, :, :4, :4])}
    with dyninfer.load(path, max_batch=64) as one, dyninfer.load(other, max_batch=64) as two:
        one.policy = two.policy = dyninfer.Threshold(0.5)
        expected, found = one.infer(inputs), two.infer(inputs)
    exits = [raw.exit_index for raw in found]
    assert exits == [raw.exit_index for raw in expected]
    assert set(exits) == {0, 1, 2}
    np.testing.assert_array_equal(
        support.stacked(found, "boxes_xyxy"), support.stacked(expected, "boxes_xyxy")
    )


def test_threads_do_not_share_rows(tmp_path) -> None:
    path = one_at_a_time(support.write_two_exits(tmp_path / "fixed.dyn"), TWO)

    def boxes(batch: int) -> np.ndarray:
        return support.stacked(detector.infer({"images": coded(batch, batch)}), "boxes_xyxy")

    with dyninfer.load(path, max_batch=64) as detector:
        sizes = [1, 5, 2, 8, 3] * 8
        expected = {batch: boxes(batch) for batch in set(sizes)}
        with ThreadPoolExecutor(4) as pool:
            for batch, found in zip(sizes, pool.map(boxes, sizes), strict=True):
                np.testing.assert_array_equal(found, expected[batch])


def test_an_engine_for_single_images_counts_a_start_for_every_row(tmp_path) -> None:
    path = one_at_a_time(support.write_two_exits(tmp_path / "fixed.dyn"), ("first",))
    with dyninfer.load(path, max_batch=64) as detector:
        detector.infer({"images": coded(5)})
        assert (detector.engines["first"].run_count, detector.engines["first"].row_count) == (5, 5)
        assert detector.engines["router"].run_count == 1


def test_outputs_of_a_steady_state_stay_in_one_place(tmp_path) -> None:
    bundle = Bundle.open(one_at_a_time(support.write_two_exits(tmp_path / "fixed.dyn"), ("first",)))
    backend = open_backend()
    engine = backend.open(
        "first", bundle.manifest.stages["first"], bundle.stage_path("first"), frozenset()
    )
    workspace = backend.workspace()
    images = backend.from_host(coded(4), workspace)
    pointers = {engine.run({"images": images}, workspace)["value"].pointer for _ in range(3)}
    assert len(pointers) == 1
    assert workspace.allocated_bytes == 4 * 3 * 4


def test_a_row_of_a_tensor_is_a_view() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    tensor = OrtTensor.over_array(array)
    row = tensor.run_of_rows(2, 1)
    assert row.shape == (1, 2, 3)
    np.testing.assert_array_equal(row.numpy(), array[2:3])
    np.testing.assert_array_equal(
        row.run_of_rows(0, 1).as_matrix().numpy(), array[2:3].reshape(1, 6)
    )
    array[2] = -1
    assert (row.numpy() == -1).all()
    assert row.pointer == array[2:].ctypes.data


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float16])
def test_a_row_of_memory_that_onnx_runtime_allocated_is_a_view(dtype) -> None:
    from dyninfer.engines.ort.library import ort
    from dyninfer.engines.ort.runtime import parse_device

    array = np.arange(24).astype(dtype).reshape(4, 2, 3)
    value = ort.OrtValue.ortvalue_from_numpy(array)
    tensor = OrtTensor.over_value(value, parse_device("cpu", None))
    assert tensor.dtype == dtype
    assert tensor.run_of_rows(3, 1).pointer == value.data_ptr() + 3 * 6 * array.itemsize
    np.testing.assert_array_equal(tensor.run_of_rows(3, 1).numpy(), array[3:])


@pytest.mark.parametrize("dtype", [np.int64, np.float64, np.int8, np.uint16])
def test_what_no_stage_may_make_is_refused_by_its_type(dtype) -> None:
    from dyninfer.engines.ort.library import ort
    from dyninfer.engines.ort.runtime import parse_device

    value = ort.OrtValue.ortvalue_from_numpy(np.zeros(3, dtype))
    with support.refuses(EngineRunError, value.data_type(), "float32"):
        OrtTensor.over_value(value, parse_device("cpu", None))


def test_a_stage_for_single_images_with_another_dynamic_axis_is_refused(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn", router=False)
    model = support.tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"boxes_xyxy": ["batch", "found", 4], "class_scores": ["batch", "found", 2]},
        [
            helper.make_node("Slice", ["images", "begin", "four", "axes"], ["cut"]),
            helper.make_node("Slice", ["images", "begin", "two", "axes"], ["narrow"]),
            helper.make_node("ReduceMean", ["cut"], ["boxes_xyxy"], axes=[1], keepdims=0),
            helper.make_node("ReduceMean", ["narrow"], ["class_scores"], axes=[1], keepdims=0),
        ],
        {
            "begin": np.array([0]),
            "four": np.array([4]),
            "two": np.array([2]),
            "axes": np.array([3]),
        },
    )
    data = model.SerializeToString()
    (path / "onnx" / "second.onnx").write_bytes(data)
    entry = support.stage_entry(model, "onnx/second.onnx", data).model_dump(mode="json")
    support.reseal(path, lambda m: m["stages"].update(second=entry | {"rows_per_run": 1}))
    with support.refuses(EngineBuildError, "'second'", "found", "one image at a time"):
        dyninfer.load(path)
    # where that is not the file's own limit, a large stage has its batches whole instead
    large = {"rows_per_run": None, "macs": LARGE_MACS}
    support.reseal(path, lambda m: m["stages"]["second"].update(large))
    with dyninfer.load(path) as detector:
        detector.infer({"images": coded(3)}, policy=dyninfer.AlwaysHard())
        assert detector.engines["second"].run_count == 1
