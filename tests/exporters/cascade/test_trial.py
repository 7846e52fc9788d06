"""When a stage gives what its detector's file gives, and which tensors are too large for any."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer import CheckpointError
from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.cascade.tensor_sizes import check_tensor_sizes, check_weights
from dyninfer.exporters.cascade.trial import difference, same_rows
from tests import support

PATH = Path("tiny.onnx")


def rows(*best: float, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (1, K, 4), the largest number 40, and scores (1, K, 2) of one image."""
    count = len(best)
    boxes = np.tile(np.linspace(10, 40, count)[:, None], 4) + shift
    scores = np.stack([np.array(best), np.full(count, 0.01)], 1)
    return boxes[None], scores[None]


def order(pair, *places: int):
    return tuple(array[:, list(places)] for array in pair)


def test_surer_rows_are_there_in_any_order_of_either_list() -> None:
    wanted = rows(0.9, 0.5, 0.05)
    assert same_rows(order(wanted, 2, 0, 1), wanted, 1e-6)
    for found in (order(wanted, 0, 1, 1), order(wanted, 0, 0, 2)):
        assert not same_rows(found, wanted, 1e-6)
        assert not same_rows(wanted, found, 1e-6)
    unsure = rows(0.9, 0.5, 0.0499)
    assert same_rows(order(unsure, 0, 1, 1), unsure, 1e-6)


@pytest.mark.parametrize(("off", "same"), [(0.99, True), (1.01, False)])
def test_rows_differ_relative_to_the_largest_box_and_to_1(off, same) -> None:
    wanted = rows(0.9, 0.5)
    assert same_rows(rows(0.9, 0.5, shift=40 * 0.05 * off), wanted, 0.05) is same
    assert same_rows(rows(0.9 - 0.05 * off, 0.5), wanted, 0.05) is same


def test_lists_of_more_than_500_rows_have_an_order() -> None:
    for count, same in ((500, True), (501, False)):
        wanted = rows(*np.linspace(0.9, 0.1, count))
        assert same_rows(order(wanted, *reversed(range(count))), wanted, 1e-6) is same


def of_parts(factor: float = 1.0, rise: float = 0.0, places: tuple[int, ...] = (0, 1, 2)):
    """Images (N, 3, 2, 2) -> boxes (N, 3, 4), times a factor, and scores (N, 3, 4)."""
    constants = {"factor": np.float32(factor), "rise": np.float32(rise), "shape": [0, 3, 4]}
    constants["places"] = places
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["parts"]),
        helper.make_node("Gather", ["parts", "places"], ["plain"], axis=1),
        helper.make_node("Mul", ["plain", "factor"], ["boxes_xyxy"]),
        helper.make_node("Add", ["plain", "rise"], ["class_scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("images", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [value(name, TensorProto.FLOAT, ["n", 3, 4]) for name in ("boxes_xyxy", "class_scores")],
        [numpy_helper.from_array(np.array(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def planned(
    precision: Precision = Precision.FP32, rounded: bool = False, rows: int = 3, most: float = 4
):
    """``most`` is the largest value, in the first row; the others' are a half and a quarter."""
    images = np.random.default_rng(0).random((4, 1, 3, 2, 2)).astype(np.float32) * most / 4
    images[:, 0, :, 0, 0] = most, most / 2, most / 4
    expected = [(image.reshape(3, 4)[:rows], image.reshape(3, 4)) for image in images]
    return SimpleNamespace(
        samples=[(image, {}) for image in images],
        expected=expected,
        file=SimpleNamespace(precision=precision, rounded=rounded),
        plan=SimpleNamespace(rows=rows),
    )


@pytest.mark.parametrize("most", [4, 0.5])
@pytest.mark.parametrize("changed", ["factor", "rise"])
def test_a_stage_may_differ_by_rounding_and_more_where_a_file_rounds_itself(changed, most) -> None:
    """Relative to the largest value, or to 1 where that is less."""
    for rounding, bound in (
        ({}, 1e-4),
        ({"rounded": True}, 5e-2),
        ({"precision": Precision.FP16}, 5e-2),
        ({"precision": Precision.INT8}, 5e-2),
    ):
        for share, fine in ((0.98, True), (1.02, False)):
            rise = max(1, most) * share * bound
            off = {"factor": 1 + rise / most} if changed == "factor" else {"rise": rise}
            told = difference(of_parts(**off), planned(**rounding, most=most), (1, 2, 3))
            assert (told == "") is fine, (rounding, share)
            if not fine:
                assert told == "a batch of 1 gives other results than its images one by one"


def test_ranked_rows_may_swap_places_though_nothing_is_rounded() -> None:
    for places in ((1, 0, 2), (0, 2, 1), (2, 0, 1)):
        assert difference(of_parts(1.00005, places=places), planned(), (1, 2, 3)) == ""
    assert "gives other results" in difference(of_parts(places=(0, 1, 1)), planned(), (1,))


@pytest.mark.parametrize(
    ("rounded", "rows", "fine"), [(True, 500, True), (True, 501, False), (False, 3, False)]
)
def test_other_rows_may_swap_places_in_lists_of_files_that_round(rounded, rows, fine) -> None:
    detector = planned(rounded=rounded)
    turned = [(image[:, ::-1].copy(), {}) for image, _ in detector.samples]
    detector.samples = turned
    detector.expected = [(image.reshape(3, 4), image.reshape(3, 4)) for image, _ in turned]
    detector.plan.rows = rows
    assert (difference(of_parts(places=(2, 0, 1)), detector, (1, 2)) == "") is fine


def test_what_a_stage_gives_beside_results_is_told() -> None:
    assert difference(of_parts(), planned(), (1, 2, 3)) == ""
    told = difference(of_parts(), planned(rows=2), (2, 1))
    assert told == "a batch of 2 gives (2, 3, 4), not (2, 2, 4)"
    wrong = of_parts()
    wrong.graph.initializer[2].CopyFrom(numpy_helper.from_array(np.array([1, 3, 4]), "shape"))
    assert difference(wrong, planned(), (1,)) == ""
    assert "Reshape" in difference(wrong, planned(), (1, 2))


def of_sizes(dims: list, kind: int = TensorProto.FLOAT):
    """A model that makes one tensor of this shape."""
    x, y = (helper.make_tensor_value_info(name, kind, dims) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("dims", "kind", "fine"),
    [
        (["n", 2**14, 2**14], TensorProto.FLOAT, True),
        (["n", 2**14, 2**14 + 1], TensorProto.FLOAT, False),
        ([2, 2**14, 2**14], TensorProto.FLOAT, False),
        (["n", 2**15, 2**15], TensorProto.UINT8, True),
        (["n", 2**15, 2**14], TensorProto.FLOAT16, True),
        (["n", 2**15, 2**14 + 1], TensorProto.FLOAT16, False),
        (["n", 2**14, 2**13], TensorProto.INT64, True),
        (["n", 2**14, 2**13 + 1], TensorProto.INT64, False),
    ],
)
def test_a_tensor_takes_a_gigabyte_at_most_for_one_image(dims, kind, fine) -> None:
    if fine:
        check_tensor_sizes(of_sizes(dims, kind), PATH)
        return
    shape = "x".join("1" if axis == "n" else str(axis) for axis in dims)
    size = "2" if dims[0] == 2 else "1"
    with support.refuses(CheckpointError, f"of {shape}, {size} GB, expected at most 1 GB"):
        check_tensor_sizes(of_sizes(dims, kind), PATH)


@pytest.mark.parametrize("computed", [False, True], ids=["a constant shape", "a computed shape"])
@pytest.mark.parametrize(("side", "fine"), [(2**14, True), (2**15, False)])
def test_what_a_model_makes_in_between_counts_as_what_it_reads_and_writes(
    side, fine, computed
) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    named = "half" if computed else "shape"
    nodes = [
        *[helper.make_node("Add", ["half", "half"], ["shape"])] * computed,
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["most"], axes=[0, 1], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([side, side]) // (1 + computed), named)
    graph = helper.make_graph(nodes, "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    if fine:
        check_tensor_sizes(model, PATH)
        return
    with support.refuses(CheckpointError, "the tensor 'large' of 32768x32768, 4 GB, expected"):
        check_tensor_sizes(model, PATH)


@pytest.mark.parametrize(("kind", "fine"), [(TensorProto.UINT8, True), (TensorProto.FLOAT, False)])
def test_what_is_made_of_a_weight_has_its_type(kind, fine) -> None:
    model = of_sizes([1])
    model.graph.initializer.append(TensorProto(name="w", data_type=kind, dims=[2**15, 2**15]))
    model.graph.node.insert(0, helper.make_node("Identity", ["w"], ["large"]))
    if fine:
        check_tensor_sizes(model, PATH)
        return
    with support.refuses(CheckpointError, "the tensor 'large' of 32768x32768, 4 GB"):
        check_tensor_sizes(model, PATH)


@pytest.mark.parametrize(
    ("kind", "raw", "values", "fine"),
    [
        (TensorProto.FLOAT, 40, 10, True),
        (TensorProto.INT4, 40, 80, True),
        (TensorProto.UINT8, 1000, 8000, True),
        (TensorProto.UINT8, 1000, 9000, False),
        (TensorProto.FLOAT, 0, 0, True),
        (TensorProto.FLOAT, 0, 1000, False),
    ],
)
def test_a_stored_tensor_has_at_most_eight_values_in_a_byte(kind, raw, values, fine) -> None:
    model = of_sizes([3])
    tensor = TensorProto(name="w", data_type=kind, dims=[values], raw_data=bytes(raw))
    model.graph.initializer.append(tensor)
    if fine:
        check_weights(model, PATH)
        return
    with support.refuses(CheckpointError, f"'w' has {values:,} values and holds far fewer"):
        check_weights(model, PATH)
