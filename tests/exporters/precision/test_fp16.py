from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.precision.fp16 import _holds_scale, rounded_to_float16, to_fp16
from dyninfer.exporters.precision.graph import opened
from tests.exporters.precision.helpers import (
    assert_same_frame,
    conv,
    elem_types,
    images,
    run,
    silu,
    two_layers,
    weights,
)
from tests.support import tiny_model


def test_layers_are_float16_and_borders_are_not() -> None:
    source = two_layers()
    converted = to_fp16(source)
    assert_same_frame(converted, source)
    assert all(t.data_type == TensorProto.FLOAT16 for t in converted.graph.initializer)
    types = elem_types(converted)
    assert types["c1"] == types["c2"] == TensorProto.FLOAT16
    for name, array in run(source, images(1)[0]).items():
        np.testing.assert_allclose(run(converted, images(1)[0])[name], array, atol=5e-3)


@pytest.mark.parametrize("name", ["first", "router", "head", "second"])
def test_every_stage_of_a_detector_stays_close(small_bundle, name) -> None:
    source = onnx.load(Bundle.open(small_bundle).stage_path(name))
    converted = to_fp16(source)
    assert_same_frame(converted, source)
    rng = np.random.default_rng(0)
    inputs = {
        v.name: rng.random([a.dim_value or 2 for a in v.type.tensor_type.shape.dim], np.float32)
        for v in source.graph.input
    }
    for output, array in run(source, inputs).items():
        found = run(converted, inputs)[output]
        assert np.abs(found - array).max() <= 5e-3 * np.abs(array).max()


def decode_model(anchor: float) -> onnx.ModelProto:
    """A layer, then boxes: its first four channels at one place, plus ``anchor``."""
    return tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"boxes_xyxy": ["batch", 1, 4]},
        [
            conv("images", "w", "raw"),
            helper.make_node("ReduceMax", ["raw"], ["best"], axes=[2, 3], keepdims=0),
            helper.make_node("Reshape", ["best", "shape"], ["offsets"]),
            helper.make_node("Add", ["offsets", "anchor"], ["boxes_xyxy"]),
        ],
        {
            "w": weights(4, 3, 3, 3),
            "shape": np.array([-1, 1, 4]),
            "anchor": np.full(4, anchor, np.float32),
        },
    )


def test_pixels_above_a_thousand_are_not_rounded_to_whole_ones() -> None:
    source = decode_model(1279.3)
    found = run(to_fp16(source), images(1)[0])["boxes_xyxy"]
    np.testing.assert_allclose(found, run(source, images(1)[0])["boxes_xyxy"], atol=5e-3)
    assert float(np.float16(1279.3)) == pytest.approx(1279.3, abs=1)
    assert abs(float(np.float16(1279.3)) - 1279.3) > 0.1  # what float16 would have made of it


@settings(max_examples=30, deadline=None)
@given(exponent=st.integers(-10, 100))
def test_a_factor_of_any_size_keeps_its_effect(exponent) -> None:
    factor = 2.0**exponent
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Mul", ["c", "factor"], ["large"]),
            helper.make_node("Mul", ["large", "inverse"], ["feature"]),
        ],
        {
            "w": weights(8, 3, 3, 3),
            "factor": np.array(factor, np.float32),
            "inverse": np.array(1 / factor, np.float32),
        },
    )
    sample = images(1)[0]
    expected = run(source, sample)["feature"]
    largest = {"large": float(factor) * float(np.abs(expected).max())}
    found = run(to_fp16(source, largest), sample)["feature"]
    assert np.abs(found - expected).max() <= 2e-2 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("factor", "kept"), [(65504.0, False), (-65504.0, False), (65505.0, True), (-65505.0, True)]
)
def test_a_constant_beyond_float16_keeps_its_node_in_float32(factor: float, kept: bool) -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Mul", ["c", "factor"], ["large"]),
            conv("large", "w2", "feature"),
        ],
        {
            "w": weights(8, 3, 3, 3),
            "factor": np.array([1, factor] * 4, np.float32).reshape(8, 1, 1),
            "w2": weights(8, 8, 3, 3),
        },
    )
    types = elem_types(to_fp16(source))
    assert types["large"] == (TensorProto.FLOAT if kept else TensorProto.FLOAT16)
    assert types["c"] == TensorProto.FLOAT16


def test_numbers_that_are_made_of_whole_ones_stay_in_float32() -> None:
    """How many pixels there are is no number for float16 to round."""
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Size", ["c"], ["size"]),
            helper.make_node("Cast", ["size"], ["count"], to=TensorProto.FLOAT),
            helper.make_node("Shape", ["c"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
            helper.make_node("Div", ["c", "count"], ["shares"]),
            helper.make_node("Add", ["shares", "zeros"], ["sum"]),
            conv("sum", "w2", "feature"),
        ],
        {"w": weights(8, 3, 3, 3), "w2": weights(8, 8, 3, 3)},
    )
    converted = to_fp16(source)
    types = elem_types(converted)
    assert types["count"] == types["zeros"] == TensorProto.FLOAT
    assert types["c"] == types["shares"] == types["sum"] == TensorProto.FLOAT16
    sample = images(1)[0]
    expected = run(source, sample)["feature"]
    found = run(converted, sample)["feature"]
    np.testing.assert_allclose(found, expected, atol=2e-2 * np.abs(expected).max())


def test_a_measured_overflow_keeps_the_nodes_around_it_in_float32() -> None:
    loud, quiet = np.float32(1e6), np.float32(1e-6)
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"deep": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            *silu("c1", "s1"),
            conv("s1", "w2", "c2"),
            *silu("c2", "s2"),
            conv("s2", "w3", "deep"),
        ],
        {
            "w1": weights(8, 3, 3, 3) * loud,
            "w2": weights(8, 8, 3, 3, seed=1) * quiet,
            "w3": weights(8, 8, 3, 3, seed=2),
        },
    )
    sample = images(1)[0]
    expected = run(source, sample)["deep"]
    # ONNX Runtime's CPU leaves out pairs of casts; the reference rounds every result
    with np.errstate(all="ignore"):
        (overflown,) = ReferenceEvaluator(to_fp16(source)).run(["deep"], sample)
    assert not np.isfinite(overflown).all()
    converted = to_fp16(source, {"c1": 1e7, "s1": 1e7})
    types = elem_types(converted)
    assert types["c2"] == types["s2"] == TensorProto.FLOAT
    with np.errstate(all="ignore"):
        (found,) = ReferenceEvaluator(converted).run(["deep"], sample)
    np.testing.assert_allclose(found, expected, atol=1e-2 * np.abs(expected).max())
    everything = dict.fromkeys(types, 10000000.0)
    assert to_fp16(source, everything) is None


@pytest.mark.parametrize(
    ("op", "limit"),
    [("Exp", 20.0), ("Log", 1e-9), ("Softplus", 20.0), ("Exp", -30.0), ("Log", 1e6)],
)
def test_functions_without_room_in_float16_are_computed_in_float32(op, limit) -> None:
    """exp(20) is beyond float16's range, and log(1e-9) of what float16 makes zero."""
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            helper.make_node("Mul", ["c1", "nothing"], ["zero"]),
            helper.make_node("Add", ["zero", "limit"], ["argument"]),
            helper.make_node(op, ["argument"], ["value"]),
            helper.make_node("Div", ["value", "expected"], ["one"]),
            conv("one", "w2", "feature"),
        ],
        {
            "w1": weights(8, 3, 3, 3),
            "w2": weights(8, 8, 3, 3, seed=1),
            "nothing": np.array(0, np.float32),
            "limit": np.array(limit, np.float32),
            "expected": np.array(
                {"Exp": np.exp, "Log": np.log, "Softplus": lambda x: np.log1p(np.exp(x))}[op](
                    limit
                ),
                np.float32,
            ),
        },
    )
    converted = to_fp16(source)
    types = elem_types(converted)
    assert types["value"] == types["one"] == TensorProto.FLOAT
    assert types["c1"] == types["feature_half"] == TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("largest", "half"), [(16376.0, True), (16376.1, False), (math.nan, False)]
)
def test_a_tensor_that_held_nan_or_a_quarter_of_the_largest_stays_in_float32(largest, half) -> None:
    """A measured NaN is no small number, though it is not above any limit."""
    source = two_layers()
    converted = to_fp16(source, {"c2": largest})
    types = elem_types(converted)
    assert types["c2"] == (TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    assert types["c1"] == TensorProto.FLOAT16


def test_a_weight_keeps_its_sign_and_is_zero_only_where_it_was() -> None:
    """2^-24 is the smallest that float16 has."""
    source = tiny_model(
        {"images": ["batch", 5]},
        {"out": ["batch", 5]},
        [helper.make_node("Mul", ["images", "w"], ["out"])],
        {"w": np.array([0, 1e-9, -1e-9, 1, -2], np.float32)},
    )
    (stored,) = to_fp16(source).graph.initializer
    expected = np.array([0, 2.0**-24, -(2.0**-24), 1, -2], np.float16)
    np.testing.assert_array_equal(numpy_helper.to_array(stored), expected)


@pytest.mark.parametrize(
    ("scale", "holds"),
    [
        (511.75, True),  # 128 of it are the largest number of float16
        (512.0, False),
        (300.5 * 2.0**-24, True),  # rounded by less than a 512th
        (200.5 * 2.0**-24, False),
        (2.0**-24, True),
        (0.4 * 2.0**-24, False),
    ],
)
def test_a_scale_is_held_with_its_outermost_step_and_to_a_quarter_of_one(scale, holds) -> None:
    model = tiny_model(
        {"images": ["batch", 2]},
        {"out": ["batch", 2]},
        [
            helper.make_node("QuantizeLinear", ["images", "scale"], ["rounded"]),
            helper.make_node("DequantizeLinear", ["rounded", "scale"], ["out"]),
        ],
        {"scale": np.array(scale, np.float32)},
    )
    assert [_holds_scale(node) for node in opened(model).graph] == [holds] * 2


def test_a_resize_by_what_is_computed_stays_in_float32() -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 16, 16]},
        [
            conv("images", "w", "c"),
            helper.make_node("Abs", ["stored"], ["scales"]),
            helper.make_node("Resize", ["c", "", "scales"], ["up"], mode="nearest"),
            conv("up", "w2", "feature"),
        ],
        {
            "w": weights(8, 3, 3, 3),
            "w2": weights(8, 8, 3, 3),
            "stored": np.array([1, 1, 2, 2], np.float32),
        },
    )
    types = elem_types(to_fp16(source))
    assert (types["c"], types["up"]) == (TensorProto.FLOAT16, TensorProto.FLOAT)


def test_a_resize_keeps_its_scales_and_runs_in_float16() -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 16, 16]},
        [
            conv("images", "w", "c"),
            helper.make_node("Resize", ["c", "", "scales"], ["up"], mode="nearest"),
            *silu("up", "feature"),
        ],
        {"w": weights(8, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)},
    )
    converted = to_fp16(source)
    assert_same_frame(converted, source)
    assert elem_types(converted)["up"] == TensorProto.FLOAT16
    found = run(converted, images(1)[0])["feature"]
    np.testing.assert_allclose(found, run(source, images(1)[0])["feature"], atol=5e-3)


def test_a_constant_that_a_kept_node_shares_is_there_in_both_types() -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"pooled": ["batch", 8]},
        [
            conv("images", "w", "c"),
            helper.make_node("Mul", ["c", "shared"], ["scaled"]),
            helper.make_node("ReduceMean", ["scaled"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "shared"], ["pooled"]),
        ],
        {"w": weights(8, 3, 3, 3), "shared": np.array(1.1, np.float32)},
    )
    converted = to_fp16(source)
    assert_same_frame(converted, source)
    types = {t.data_type for t in converted.graph.initializer if "shared" in t.name}
    assert types == {TensorProto.FLOAT, TensorProto.FLOAT16}


def test_a_graph_within_the_graph_reads_float32() -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["c", factor], [f"{factor}_c"])],
            factor,
            [],
            [helper.make_tensor_value_info(f"{factor}_c", TensorProto.FLOAT, None)],
        )
        for factor in ("one", "two")
    ]
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w", "c"),
            helper.make_node(
                "If", ["bright"], ["d"], then_branch=branches[0], else_branch=branches[1]
            ),
            *silu("d", "feature"),
        ],
        {
            "w": weights(8, 3, 3, 3),
            "one": np.array(1, np.float32),
            "two": np.array(2, np.float32),
            "bright": np.array(False),
        },
    )
    converted = to_fp16(source)
    assert_same_frame(converted, source)
    assert elem_types(converted)["c"] == TensorProto.FLOAT16
    found, expected = (run(model, images(1)[0])["feature"] for model in (converted, source))
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_a_stage_without_layers_stays_as_it_is() -> None:
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"boxes_xyxy": ["batch", 3]},
        [helper.make_node("ReduceMean", ["images"], ["boxes_xyxy"], axes=[2, 3], keepdims=0)],
    )
    assert to_fp16(source) is None


def test_what_a_gpu_makes_of_float16_is_shown_on_any_machine() -> None:
    """ONNX Runtime's CPU computes 300 * 300 in float32, and so hides that float16 ends at 65504."""
    source = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 3, 8, 8]},
        [
            helper.make_node("Mul", ["images", "up"], ["a"]),
            helper.make_node("Mul", ["a", "up"], ["b"]),
            helper.make_node("Mul", ["b", "down"], ["feature"]),
        ],
        {"up": np.array(300, np.float32), "down": np.array(1 / 9e4, np.float32)},
    )
    half = to_fp16(source)
    assert half is not None
    sample = {"images": np.linspace(0, 1, 192, dtype=np.float32).reshape(1, 3, 8, 8)}
    with np.errstate(over="ignore"):
        expected = ReferenceEvaluator(half).run(None, sample)[0]
    assert np.isinf(expected).sum() == 52  # of 192, those above 0.728
    assert np.isfinite(run(half, sample)["feature"]).all()
    np.testing.assert_array_equal(run(rounded_to_float16(half), sample)["feature"], expected)
