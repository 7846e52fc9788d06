"""Operators that keep far more beside their tensors than in them: ended before they do."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dyninfer
from dyninfer import EngineBuildError, EngineRunError
from dyninfer.engines.onnx_growth import UnboundedError
from dyninfer.engines.onnx_guards import with_guards
from dyninfer.engines.ort import memory
from dyninfer.engines.ort.library import ort, told
from dyninfer.engines.ort.runtime import session_options
from tests import support
from tests.engines.test_memory import peak, with_first

node = helper.make_node
MB = 1 << 20
IMAGE = np.full((1, 3, 8, 8), 1, np.float32)


def loop(inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    """Turns that keep a tensor without any values."""
    inner = [node("Identity", ["go"], ["still"]), node("Identity", ["empty"], ["kept"])]
    kinds = {"turn": TensorProto.INT64, "go": TensorProto.BOOL}
    taken = [helper.make_tensor_value_info(name, kind, []) for name, kind in kinds.items()]
    made = [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("kept", TensorProto.FLOAT, [0]),
    ]
    return node("Loop", inputs, outputs, body=helper.make_graph(inner, "body", taken, made))


# of each operator: how often what it collects, and bytes that one of them takes at least
GROWING: dict[str, tuple[Callable[[], list[onnx.NodeProto]], int]] = {
    "NonZero": (
        lambda: [
            node("Expand", ["yes", "huge"], ["mask"]),
            node("Unsqueeze", ["mask", "axes"], ["deep"]),
            node("NonZero", ["deep"], ["found"]),
        ],
        40,
    ),
    "Unique": (
        lambda: [
            node("Squeeze", ["huge", "zero"], ["end"]),
            node("Range", ["start", "end", "step"], ["whole"]),
            node("Unique", ["whole"], ["found"]),
        ],
        161,
    ),
    "NonMaxSuppression": (
        lambda: [
            node("Concat", ["one", "huge", "one"], ["shape"], axis=0),
            node("Expand", ["half", "shape"], ["scores"]),
            node("NonMaxSuppression", ["box", "scores", "one"], ["found"]),
        ],
        24,
    ),
    "GridSample": (
        lambda: [
            node("Concat", ["one", "huge", "one", "two"], ["shape"], axis=0),
            node("Expand", ["half", "shape"], ["grid"]),
            node("GridSample", ["images", "grid"], ["found"]),
        ],
        56,
    ),
    "SplitToSequence": (
        lambda: [
            node("Expand", ["zero", "huge"], ["pieces"]),
            node("SplitToSequence", ["empty", "pieces"], ["sequence"], axis=0),
            node("SequenceLength", ["sequence"], ["found"]),
        ],
        255,
    ),
    "RoiAlign": (
        lambda: [
            node("Cast", ["huge"], ["many"], to=TensorProto.FLOAT),
            node("Sqrt", ["many"], ["side"]),
            node("Concat", ["none", "none", "side", "side"], ["corners"], axis=0),
            node("Unsqueeze", ["corners", "zero"], ["regions"]),
            node("RoiAlign", ["images", "regions", "zero"], ["found"]),
        ],
        48,
    ),
    "Loop": (
        lambda: [
            node("Squeeze", ["huge", "zero"], ["turns"]),
            loop(["turns", "true"], ["nothing"]),
            node("Shape", ["nothing"], ["found"]),
        ],
        248,
    ),
}
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "start": np.array(0),
    "step": np.array(1),
    "axes": np.array([0, 1, 2, 3]),
    "half": np.array([0.5], np.float32),
    "none": np.array([0], np.float32),
    "box": np.array([[[0, 0, 1, 1]]], np.float32),
    "empty": np.zeros(0, np.float32),
    "yes": np.array([True]),
    "true": np.array(True),
    "nought": np.array(0, np.float32),
}


def growing(operator: str, size: int) -> onnx.ModelProto:
    """A first stage in which an operator collects so many times the brightest pixel."""
    nodes = [
        node("ReduceMax", ["images"], ["brightest"], keepdims=0),
        node("Mul", ["brightest", "times"], ["count"]),
        node("Cast", ["count"], ["huge"], to=TensorProto.INT64),
        *GROWING[operator][0](),
        node("Cast", ["found"], ["numbers"], to=TensorProto.FLOAT),
        node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        node("Mul", ["sum", "nought"], ["nil"]),
        node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        node("Add", ["mean", "nil"], ["value"]),
    ]
    constants = {**CONSTANTS, "times": np.array([size], np.float32)}
    read = {name for each in nodes for name in each.input}
    read |= {"empty"} if operator == "Loop" else set()
    kept = {name: array for name, array in constants.items() if name in read}
    return support.tiny_model({"images": ["batch", 3, 8, 8]}, {"value": ["batch", 3]}, nodes, kept)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux tells it")
@pytest.mark.parametrize("operator", GROWING)
def test_an_operator_does_not_collect_gigabytes(bundle, operator, monkeypatch) -> None:
    monkeypatch.setattr(memory, "LEAST", 512 * MB)
    monkeypatch.setattr(memory, "PER_PIXEL", 0)
    size = 300 * MB // GROWING[operator][1]  # more than the 128 MB that it may
    with_first(bundle, growing(operator, size).SerializeToString())
    with dyninfer.load(bundle) as detector:
        before = peak()
        for _ in range(2):
            with support.refuses(EngineRunError, "'first'", operator, "memory", "max_batch"):
                detector.infer({"images": IMAGE})
        assert peak() - before < 200 * MB
        dark = IMAGE / 2**12
        (found,) = detector.infer({"images": dark})
        assert np.isfinite(found.outputs["boxes_xyxy"]).all()


def small(
    nodes: list[onnx.NodeProto], made: str, opset: int = 17, **constants: np.ndarray
) -> bytes:
    """A model that takes ``x`` of any shape."""
    kept = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", taken, [helper.make_empty_tensor_value_info(made)], kept)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()


def run(data: bytes, x: np.ndarray, allowed: int) -> np.ndarray:
    """What a model makes whose operators may take so many bytes beside their tensors."""
    guarded = with_guards(data, allowed)
    assert guarded is not None
    session = ort.InferenceSession(guarded, session_options(), ["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def refused(data: bytes, x: np.ndarray, allowed: int) -> str:
    with pytest.raises(Exception, match="out of data bounds") as raised:
        run(data, x, allowed)
    return told(raised.value)


def mask(name: str = "x") -> list[onnx.NodeProto]:
    return [node("NonZero", [name], ["found"])]


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3), (0, 5), (2, 1, 2, 1, 2)])
def test_a_guard_changes_no_answer(shape) -> None:
    x = np.random.default_rng(0).integers(0, 2, shape).astype(np.float32)
    expected = np.stack(np.nonzero(np.atleast_1d(x)))
    assert np.array_equal(run(small(mask(), "found"), x, 10_000), expected)


def test_every_guard_has_a_name_of_its_own() -> None:
    """ONNX Runtime refuses names that two nodes have where it rewrites a model, as for 8 bits."""
    guarded = with_guards(small([*mask(), node("NonZero", ["x"], ["too"])], "found"), 10_000)
    assert guarded is not None
    names = [one.name for one in onnx.load_model_from_string(guarded).graph.node if one.name]
    assert len(names) == len(set(names)) >= 2
    assert all(name.endswith(" guard of NonZero") for name in names)


def test_bytes_are_counted_to_the_last() -> None:
    data, x = small(mask(), "found"), np.zeros((5, 7), np.float32)  # 35 values with 2 places each
    assert run(data, x, 8 * 70).shape == (2, 0)
    assert "NonZero may take more memory" in refused(data, np.zeros((4, 3, 6), np.float32), 8 * 70)
    data = small([node("Unique", ["x"], ["found"])], "found")
    assert run(data, np.zeros(9, np.float32), 256 * 9).tolist() == [0]
    assert "Unique" in refused(data, np.zeros(10, np.float32), 256 * 9)


def test_few_boxes_may_be_selected_of_many() -> None:
    nodes = [node("NonMaxSuppression", ["x", "scores", "most"], ["found"])]
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (1, 1000, 1))
    scores = np.ones((1, 80, 1000), np.float32)
    few = small(nodes, "found", scores=scores, most=np.array([3]))
    assert len(run(few, boxes, 72 * 80 * 3)) == 80  # all are the same box
    many = small(nodes, "found", scores=scores, most=np.array([2**62]))
    assert "memory" in refused(many, boxes, 72 * 80 * 3)
    none = small([node("NonMaxSuppression", ["x", "scores"], ["found"])], "found", scores=scores)
    assert with_guards(none, 1) is None  # it selects nothing


def test_regions_count_by_their_size_unless_points_are_said() -> None:
    picture = np.zeros((1, 1, 8, 8), np.float32)
    sizes = {"output_height": 2, "output_width": 2}

    def pooled(regions: list[list[float]], **attributes: float) -> bytes:
        nodes = [node("RoiAlign", ["x", "regions", "of"], ["found"], **sizes, **attributes)]
        given = np.array(regions, np.float32).reshape(-1, 4)
        return small(nodes, "found", regions=given, of=np.zeros(len(given), np.int64))

    assert run(pooled([[0, 0, 7, 7]]), picture, MB).shape == (1, 1, 2, 2)
    assert run(pooled([]), picture, MB).shape == (0, 1, 2, 2)
    for far in (1e4, 1e30, np.inf, np.nan):
        assert "memory" in refused(pooled([[0, 0, far, far]]), picture, MB)
    assert "memory" in refused(pooled([[0, 0, 1e5, 1e5], [0, 0, np.nan, 1]]), picture, MB)
    assert run(pooled([[0, 0, 1e4, 1e4]], spatial_scale=1e-3), picture, MB).size == 4
    assert run(pooled([[0, 0, 1e4, 1e4]], sampling_ratio=2), picture, MB).size == 4
    assert "memory" in refused(pooled([[0, 0, 1, 1]], sampling_ratio=2000), picture, MB)
    assert "memory" in refused(pooled([[0, 0, 1, 1]], sampling_ratio=2**62), picture, MB)


def test_an_operator_is_found_within_branches_and_functions() -> None:
    made = [helper.make_tensor_value_info("found", TensorProto.INT64, None)]
    branch = helper.make_graph(mask(), "branch", [], made)
    both = {"then_branch": branch, "else_branch": branch}
    data = small([node("If", ["yes"], ["chosen"], **both)], "chosen", yes=np.array(True))
    assert run(data, np.ones((2, 3), np.float32), 8 * 12).shape == (2, 6)
    assert "memory" in refused(data, np.ones((5, 3), np.float32), 8 * 12)
    model = onnx.load_from_string(small([node("find", ["x"], ["it"], domain="own")], "it"))
    imports = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "find", ["x"], ["found"], mask(), imports))
    data = model.SerializeToString()
    assert run(data, np.ones((2, 3), np.float32), 8 * 12).shape == (2, 6)
    assert "memory" in refused(data, np.ones((5, 3), np.float32), 8 * 12)


def test_turns_count_where_a_tensor_of_each_is_kept() -> None:
    constants = {"true": np.array(True), "empty": np.zeros(0, np.float32)}
    nodes = [node("Cast", ["x"], ["turns"], to=TensorProto.INT64), loop(["turns", "true"], ["all"])]
    data = small(nodes, "all", **constants)
    assert run(data, np.array(5, np.float32), 768 * 5).shape == (5, 0)
    assert "Loop" in refused(data, np.array(7, np.float32), 768 * 5)
    body = nodes[1].attribute[0].g
    body.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [0]))
    nodes[1].input.append("empty")
    assert with_guards(small(nodes, "all", **constants), 1) is None  # of the last alone


def test_another_index_that_is_out_of_bounds_is_told_as_such() -> None:
    own = [
        node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        node("Gather", ["table", "index"], ["y"], name="own"),
    ]
    data = small([*own, *mask("y")], "found", table=np.zeros(1, np.float32))
    assert "'own'" in refused(data, np.array(5, np.float32), MB)


def test_a_function_is_not_taken_for_an_operator_of_its_name() -> None:
    imports = [helper.make_opsetid("", 17)]
    inner = [node("Identity", ["x"], ["y"])]
    model = onnx.load_from_string(small([node("Unique", ["x"], ["it"], domain="own")], "it"))
    model.functions.append(helper.make_function("own", "Unique", ["x"], ["y"], inner, imports))
    assert with_guards(model.SerializeToString(), 1) is None


def test_a_grid_counts_once_for_all_images_and_channels() -> None:
    nodes = [
        node("Cast", ["x"], ["size"], to=TensorProto.INT64),
        node("AffineGrid", ["turn", "size"], ["found"]),
    ]
    turn = np.tile(np.eye(2, 3, dtype=np.float32), (4, 1, 1))
    data = small(nodes, "found", opset=20, turn=turn)
    assert run(data, np.array([4, 9, 5, 7], np.float32), 40 * 35).shape == (4, 5, 7, 2)
    assert "AffineGrid" in refused(data, np.array([4, 1, 6, 6], np.float32), 40 * 35)


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63)])
def test_numbers_of_any_size_are_read(number) -> None:
    sizes = dict.fromkeys(("output_height", "output_width", "sampling_ratio"), number)
    nodes = [node("RoiAlign", ["x", "x", "x"], ["y"], **sizes, spatial_scale=-np.inf)]
    assert with_guards(small(nodes, "y"), MB)
    assert with_guards(small([node("SplitToSequence", ["x"], ["y"], axis=number)], "y"), MB)


def test_what_is_said_twice_or_elsewhere_is_refused() -> None:
    regions = node("RoiAlign", ["x", "x", "x"], ["found"], sampling_ratio=2)
    regions.attribute.append(helper.make_attribute("sampling_ratio", 0))
    split = node("SplitToSequence", ["x"], ["found"])
    split.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="elsewhere")
    two = loop(["x"], ["found"])
    two.attribute.append(two.attribute[0])
    for each in (regions, split, two):
        with pytest.raises(UnboundedError, match="said elsewhere"):
            with_guards(small([each], "found"), MB)


def test_a_file_that_cannot_be_counted_is_not_opened(bundle) -> None:
    model = support.means_of("images", 8, 8, "value")
    model.graph.node.append(loop(["value"], ["found"]))
    model.graph.node[-1].attribute.add(name="body").CopyFrom(model.graph.node[-1].attribute[0])
    with_first(bundle, model.SerializeToString())
    with support.refuses(EngineBuildError, "first.onnx", "a Loop whose body", "memory"):
        dyninfer.load(bundle)
