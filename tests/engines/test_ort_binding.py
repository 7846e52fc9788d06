"""What the engines rely on: ONNX Runtime writes all of an output's memory, or none and says so."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer.engines.ort.library import ort

GUARD = 256
MADE = (2, 3, 4)
OTHERS = [(1, 3, 4), (3, 3, 4), (2, 3, 3), (2, 3, 5), (2, 12), (24,), (0, 3, 4), (4, 3, 2)]
CONSTANTS = {
    "zero": np.array([0]),
    "shape": np.array(MADE),
    "nothing": np.array(0, np.float32),
    "seen": np.ones(MADE, np.float32),
    "all": np.array([True, True]),
}


def branch(kind: str, name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node(kind, ["x"], [name])], name, [], [output])


def chosen() -> list[onnx.NodeProto]:
    branches = {"then_branch": branch("Identity", "a"), "else_branch": branch("Neg", "b")}
    return [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "nothing"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], **branches),
    ]


GRAPHS = {
    "a kernel": [helper.make_node("Relu", ["x"], ["y"])],
    "a copy": [helper.make_node("Identity", ["x"], ["y"])],
    "an alias": [helper.make_node("Reshape", ["x", "shape"], ["y"])],
    "a cast to the same": [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
    "dropout": [helper.make_node("Dropout", ["x"], ["y"])],
    "a sum of one": [helper.make_node("Sum", ["x"], ["y"])],
    "a constant": [helper.make_node("Identity", ["seen"], ["y"])],
    "a branch": chosen(),
    "a size that is found": [helper.make_node("Compress", ["x", "all"], ["y"], axis=0)],
    "a sequence's element": [
        helper.make_node("SequenceConstruct", ["x"], ["list"]),
        helper.make_node("Squeeze", ["zero"], ["first"]),
        helper.make_node("SequenceAt", ["list", "first"], ["y"]),
    ],
}


def run(name: str, shape: tuple[int, ...], dtype: type) -> tuple[str, np.ndarray, bool]:
    """What ONNX Runtime says, the memory that was bound, and whether bytes beside it changed."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["a", "b", "c"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(array, key) for key, array in CONSTANTS.items()]
    graph = helper.make_graph(GRAPHS[name], "bound", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    given = np.ones(MADE, np.float32)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(2 * GUARD + size, 0xAB, np.uint8)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, MADE, given.ctypes.data)
    binding.bind_output("y", "cpu", 0, dtype, shape, memory.ctypes.data + GUARD)
    said = ""
    try:
        session.run_with_iobinding(binding)
    except Exception as error:  # its exceptions share no public base class
        said = str(error)
    outside = np.concatenate([memory[:GUARD], memory[GUARD + size :]])
    return said, memory[GUARD : GUARD + size], bool((outside != 0xAB).any())


@pytest.mark.parametrize("name", GRAPHS)
def test_memory_of_the_right_size_is_written(name) -> None:
    said, memory, beside = run(name, MADE, np.float32)
    assert (said, beside) == ("", False)
    np.testing.assert_array_equal(memory.view(np.float32), 1)


@pytest.mark.parametrize("name", GRAPHS)
def test_memory_of_another_size_or_type_is_refused_and_not_written(name) -> None:
    wrong = [(shape, np.float32) for shape in OTHERS] + [(MADE, np.float16), (MADE, np.float64)]
    for shape, dtype in wrong:
        said, memory, beside = run(name, shape, dtype)
        assert said, (shape, dtype)
        assert (memory == 0xAB).all()
        assert not beside
