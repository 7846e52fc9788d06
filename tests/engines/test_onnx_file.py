"""Weights that a stage's file keeps elsewhere: in other files, or at an address in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import dyninfer
from dyninfer import EngineBuildError
from dyninfer.engines.onnx_file import find_shared
from dyninfer.engines.ort.runtime import PlainStages
from tests import support

SECRET = b"a secret of some length, beside the bundle"
IN_MEMORY = "*/_ORT_MEM_ADDR_/*"


def elsewhere(location: str, offset: int = 0) -> TensorProto:
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def adding(weight: TensorProto, *, place: str) -> onnx.ModelProto:
    """A first stage that adds what is elsewhere, which stands in this place of the file."""
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0)]
    constant = helper.make_node("Constant", [], ["weight"], value=weight)
    output = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [3])
    branch = helper.make_graph([constant], "branch", [], [output])
    yes = numpy_helper.from_array(np.array(True), "yes")
    if place == "branch":
        made = helper.make_node(
            "If", ["yes"], ["weight"], then_branch=branch, else_branch=branch, name="location"
        )
        nodes.append(made)
    elif place == "node":
        nodes.append(constant)
    nodes.append(helper.make_node("Add", ["mean", "weight"], ["value"]))
    initializers = [yes, weight] if place == "initializer" else [yes]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    value = helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "first", [images], [value], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_first(bundle: Path, data: bytes, file: str = "onnx/first.onnx") -> Path:
    (bundle / file).write_bytes(data)
    entry = {"file": file, "sha256": hashlib.sha256(data).hexdigest()}
    support.reseal(bundle, lambda manifest: manifest["stages"]["first"].update(entry))
    return bundle


@pytest.mark.parametrize("place", ["initializer", "node", "branch"])
@pytest.mark.parametrize("where", ["beside", "above", "memory"])
def test_weights_elsewhere_are_refused(tmp_path, place, where) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    (bundle / "onnx" / "other.data").write_bytes(SECRET)
    (tmp_path / "other.data").write_bytes(SECRET)
    memory = np.frombuffer(SECRET, np.uint8).ctypes.data
    weight = {
        "beside": elsewhere("other.data"),
        "above": elsewhere("../../other.data"),
        "memory": elsewhere(IN_MEMORY, memory),
    }[where]
    with_first(bundle, adding(weight, place=place).SerializeToString())
    with support.refuses(EngineBuildError, "'first'", "first.onnx", "outside of the file"):
        dyninfer.load(bundle)
    with support.refuses(EngineBuildError, "'first'", "first.onnx", "outside of the file"):
        PlainStages(dyninfer.Bundle.open(bundle)).run("first", {})


def overlong(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, 0])


def test_it_does_not_matter_how_the_file_is_written(tmp_path) -> None:
    model = adding(elsewhere("other.data"), place="initializer")
    data = model.graph.SerializeToString()
    key, path = b"\x0a\x08location", tmp_path / "a.onnx"
    # longer numbers than needed; the sizes of what they stand in grow with them
    weight = model.graph.initializer[1].SerializeToString()
    entry = model.graph.initializer[1].external_data[0].SerializeToString()
    longer = entry.replace(key, overlong(0x0A) + overlong(8) + b"location")
    changed = weight.replace(
        bytes([0x6A, len(entry)]) + entry, overlong(0x6A) + overlong(len(longer)) + longer
    )
    graph = data.replace(bytes([0x2A, len(weight)]) + weight, b"")
    graph += overlong(0x2A) + overlong(len(changed)) + changed
    path.write_bytes(b"\x08\x08" + overlong(0x3A) + overlong(len(graph)) + graph)
    assert onnx.ModelProto.FromString(path.read_bytes()).graph.initializer[1].external_data
    with support.refuses(EngineBuildError, "outside of the file"):
        find_shared(path, "a file", None)


@pytest.mark.parametrize("junk", [b"\x0b\x0c", b"\x07", b"\xff" * 11, b"\x0a\xff\xff\xff\x07"])
def test_what_is_no_message_is_not_read_in_another_way_by_others(tmp_path, junk) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(junk + adding(elsewhere("x"), place="initializer").SerializeToString())
    with support.refuses(EngineBuildError, "a.onnx", "broken at byte 0"):
        find_shared(path, "a file", None)


def test_a_tensor_may_be_called_location(tmp_path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["location"], axes=[2, 3], keepdims=0),
        helper.make_node("Relu", ["location"], ["value"], name="location"),
    ]
    model = support.tiny_model(
        {"images": ["batch", 3, 8, 8]}, {"value": ["batch", 3]}, nodes, {"location_": np.zeros(9)}
    )
    model.metadata_props.add(key="location", value="other.data")
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(with_first(bundle, model.SerializeToString())) as detector:
        assert len(detector.infer({"images": np.full((1, 3, 8, 8), 0.5, np.float32)})) == 1


def test_a_file_is_read_as_onnx_whatever_it_is_called(tmp_path) -> None:
    from dyninfer.engines.ort.library import ort

    bundle = support.write_two_exits(tmp_path / "two.dyn")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "first.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(str(bundle / "onnx" / "first.onnx"), options)
    data = (tmp_path / "first.ort").read_bytes()
    with support.refuses(EngineBuildError, "'first'", "first.ort"):
        dyninfer.load(with_first(bundle, data, "onnx/first.ort"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_leaves_what_is_elsewhere_in_sight(tmp_path_factory, data) -> None:
    """Whatever protobuf reads as weights elsewhere, is refused."""
    whole = bytearray(adding(elsewhere("other.data"), place="branch").SerializeToString())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.onnx"
    path.write_bytes(whole)
    try:
        find_shared(path, "a file", None)
    except EngineBuildError:
        return
    try:
        model = onnx.ModelProto.FromString(bytes(whole))
    except Exception:  # protobuf's own error: nobody reads it
        return
    branches = [a.g for node in model.graph.node for a in node.attribute if a.g.node]
    tensors = [a.t for branch in branches for node in branch.node for a in node.attribute]
    assert not any(
        tensor.data_location and any(e.key == "location" for e in tensor.external_data)
        for tensor in tensors
    )
