from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer import CheckpointError
from dyninfer.exporters.cascade.onnx_file import OLDEST_OPSET, read_onnx
from dyninfer.exporters.cascade.options import Layout
from dyninfer.exporters.cascade.original import OriginalDetector
from tests import support
from tests.exporters.cascade import detectors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return detectors.yolov8(3).save(folder / "tiny.onnx")


def change(path: Path, edit) -> Path:
    model = onnx.load(str(path), load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def with_weights_outside(path: Path, location: str) -> Path:
    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == "c0")
        (path.parent / "weights.bin").write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change(path, edit)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with support.refuses(CheckpointError, "no.onnx", "check the path"):
        read_onnx(tmp_path / "no.onnx")
    with support.refuses(CheckpointError, str(tmp_path)):
        read_onnx(tmp_path)


@pytest.mark.parametrize("data", [b"", b"not a model", b"\x80\x04\x95", b"\x08\x08"])
def test_what_is_no_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with support.refuses(CheckpointError, "model.onnx", "ONNX"):
        read_onnx(path)


def test_a_model_cut_short_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with support.refuses(CheckpointError, "tiny.onnx"):
        OriginalDetector(read_onnx(path), Layout.NCHW)


def test_a_model_without_an_ir_version_is_refused(path: Path) -> None:
    with support.refuses(CheckpointError, "ir_version"):
        read_onnx(change(path, lambda model: model.ClearField("ir_version")))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(
    ("kind", "said"), [(TensorProto.FLOAT6E2M3, "6-bit"), (99, "99"), (-1, "-1")]
)
def test_weights_of_a_type_that_cannot_be_read_are_refused(path, kind, said, ordered) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer.add(name="odd", data_type=kind, dims=[1], raw_data=bytes(8))
        if not ordered:
            nodes = list(model.graph.node)
            model.graph.ClearField("node")
            model.graph.node.extend(reversed(nodes))

    change(path, edit)
    if ordered and said == "6-bit":  # nothing reads what no node does
        read_onnx(path)
        return
    with support.refuses(CheckpointError, "tiny.onnx holds no usable graph", said):
        read_onnx(path)


@pytest.mark.parametrize("place", ["start of a slice", "constant in a branch", "in a function"])
def test_a_tensor_that_says_it_has_more_than_it_holds_is_refused(path, place) -> None:
    odd = TensorProto(name="odd", data_type=TensorProto.INT64, dims=[2**40], raw_data=bytes(8))
    constant = helper.make_node("Constant", [], ["odd"], value=odd)

    def edit(model: onnx.ModelProto) -> None:
        if place == "in a function":
            imports = [helper.make_opsetid("", 17)]
            made = helper.make_function("own", "odd", [], ["odd"], [constant], imports)
            model.functions.append(made)
        elif place == "constant in a branch":
            branch = helper.make_graph([constant], "branch", [], [])
            both = {"then_branch": branch, "else_branch": branch}
            model.graph.node.insert(0, helper.make_node("If", ["yes"], ["x"], **both))
        else:
            model.graph.initializer.append(odd)
            ends = ["images", "odd", "odd"]
            model.graph.node.insert(0, helper.make_node("Slice", ends, ["part"]))

    with support.refuses(CheckpointError, "tiny.onnx", "'odd'", "1,099,511,627,776", "damaged"):
        read_onnx(change(path, edit))


def test_operators_that_onnx_runtime_lacks_are_named(path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("EfficientNMS_TRT", [], ["x"], domain="TRT"))

    with support.refuses(CheckpointError, "TRT::EfficientNMS_TRT", "without"):
        read_onnx(change(path, edit))


def test_further_inputs_are_refused(path: Path) -> None:
    more = helper.make_tensor_value_info("prompt", TensorProto.FLOAT, [1, 2])
    with support.refuses(CheckpointError, "prompt (1, 2)", "expected one"):
        read_onnx(change(path, lambda model: model.graph.input.append(more)))


def test_an_input_that_is_no_image_is_refused(path: Path) -> None:
    def flat(model: onnx.ModelProto) -> None:
        del model.graph.input[0].type.tensor_type.shape.dim[2:]

    with support.refuses(CheckpointError, "pictures (?, 3)", "(N, 3, H, W)"):
        read_onnx(change(path, flat))


def test_weights_listed_among_the_inputs_are_no_inputs(path: Path) -> None:
    weight = helper.make_tensor_value_info("c0", TensorProto.FLOAT, None)
    assert read_onnx(change(path, lambda m: m.graph.input.append(weight))).image.name == "pictures"


def test_sparse_weights_are_refused(path: Path) -> None:
    with support.refuses(CheckpointError, "tiny.onnx", "sparse", "dense"):
        read_onnx(change(path, lambda model: model.graph.sparse_initializer.add()))


def test_weights_beside_the_model_are_read(path: Path) -> None:
    before = read_onnx(path)
    image = np.random.default_rng(0).random((1, 3, 32, 64), np.float32)
    expected = OriginalDetector(before, Layout.NCHW).run(image)["output0"]
    after = read_onnx(with_weights_outside(path, "weights.bin"))
    np.testing.assert_array_equal(
        OriginalDetector(after, Layout.NCHW).run(image)["output0"], expected
    )


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "link.bin", ""])
def test_weights_outside_the_models_folder_are_refused(path: Path, location: str) -> None:
    (path.parent.parent / "weights.bin").write_bytes(b"\0" * 4096)
    (path.parent / "link.bin").symlink_to(path.parent.parent / "weights.bin")
    with support.refuses(CheckpointError, repr(location), "outside"):
        read_onnx(with_weights_outside(path, location))


def test_weights_that_are_missing_or_short_are_refused(path: Path) -> None:
    with support.refuses(CheckpointError, "'gone.bin'", "not there"):
        read_onnx(with_weights_outside(path, "gone.bin"))
    path = detectors.yolov8(3).save(path)
    with_weights_outside(path, "weights.bin")
    (path.parent / "weights.bin").write_bytes(b"\0\0")
    with support.refuses(CheckpointError, "tiny.onnx"):
        OriginalDetector(read_onnx(path), Layout.NCHW)


def test_an_old_opset_is_converted_and_a_newer_one_kept(tmp_path: Path) -> None:
    old = detectors.Sketch()
    rows = old.add("Transpose", old.cells(84, 8), perm=[0, 2, 1])
    old.output(old.add("Sigmoid", rows), "output0", ["batch", 84, 32])
    image = np.random.default_rng(0).random((1, 3, 32, 64), np.float32)
    for opset in (11, 12, 13, 17, 20, 21):
        file = read_onnx(old.save(tmp_path / f"{opset}.onnx", opset=opset))
        (found,) = (entry.version for entry in file.model.opset_import)
        assert found == (17 if opset < OLDEST_OPSET else opset)
        assert OriginalDetector(file, Layout.NCHW).run(image)["output0"].shape == (1, 84, 32)


def computing(node: onnx.NodeProto, **constants: np.ndarray):
    """An edit that adds a node with its constants, whose ``huge`` comes to one number of zero."""

    def edit(model: onnx.ModelProto) -> None:
        graph = model.graph
        last = graph.node[-1]
        name, last.output[0] = last.output[0], "before"
        kept = [
            helper.make_node("ReduceMin", ["huge"], ["least"], keepdims=0),
            helper.make_node("Mul", ["least", "nothing"], ["zero"]),
            helper.make_node("Add", ["before", "zero"], [name]),
        ]
        graph.node.extend([node, *kept])
        stored = {**constants, "nothing": np.array(0, np.float32)}
        graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in stored.items())

    return edit


SIDE = np.array([100_000, 100_000])
ONE = np.ones((1, 1), np.float32)


def inside_an_if(node: onnx.NodeProto) -> onnx.NodeProto:
    output = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    side = helper.make_node("Constant", [], ["own side"], value=numpy_helper.from_array(SIDE))
    graph = helper.make_graph([side, node], "branch", [], [output])
    return helper.make_node("If", ["true"], ["huge"], then_branch=graph, else_branch=graph)


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("ConstantOfShape", ["side"], ["huge"]), {"side": SIDE}),
        (helper.make_node("Expand", ["one", "side"], ["huge"]), {"one": ONE, "side": SIDE}),
        (helper.make_node("Tile", ["one", "side"], ["huge"]), {"one": ONE, "side": SIDE}),
        (
            helper.make_node("Pad", ["one", "pads"], ["huge"]),
            {"one": ONE, "pads": np.tile(SIDE, 2)},
        ),
        (
            inside_an_if(helper.make_node("ConstantOfShape", ["own side"], ["inside"])),
            {"true": np.array(True)},
        ),
    ],
    ids=["constant", "expand", "tile", "pad", "inside an if"],
)
def test_a_constant_of_forty_gigabytes_is_refused_before_it_is_made(path, node, constants) -> None:
    with support.refuses(CheckpointError, "tiny.onnx", "GB, expected at most 1 GB"):
        read_onnx(change(path, computing(node, **constants)))


def test_a_weight_that_claims_a_trillion_numbers_is_refused(path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = [10**6, 10**6]

    with support.refuses(CheckpointError, "tiny.onnx"):
        OriginalDetector(read_onnx(change(path, edit)), Layout.NCHW)


def test_tensors_that_share_the_bytes_of_their_weights_count_each(path: Path) -> None:
    with_weights_outside(path, "weights.bin")
    with (path.parent / "weights.bin").open("r+b") as file:
        file.truncate(2**30)  # takes no room on the disk

    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == "c0")
        for number in range(3):
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = f"again {number}"

    with support.refuses(CheckpointError, "tiny.onnx", "over 2 GB"):
        read_onnx(change(path, edit))


@pytest.mark.parametrize("location", ["a\0b", "x" * 5000, "loop/x"])
def test_weights_at_what_is_no_path_are_refused(path: Path, location: str) -> None:
    (path.parent / "loop").symlink_to("loop")
    with support.refuses(CheckpointError, "tiny.onnx", "reads weights from"):
        read_onnx(with_weights_outside(path, location))


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with support.refuses(CheckpointError, "pipe.onnx", "pipe"):
        read_onnx(tmp_path / "pipe.onnx")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "not an ONNX file but an HTML page; export"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but a Git LFS pointer to it; export"),
        (b"PK\x03\x04" + bytes(60), "but a zip archive, as PyTorch's checkpoints are; export"),
        (b"\xff\xff\xff not a model", "is not an ONNX file; export"),
    ],
)
def test_what_is_no_onnx_file_is_named(tmp_path, data, told) -> None:
    path = tmp_path / "yolo.onnx"
    path.write_bytes(data)
    with support.refuses(CheckpointError, told):
        read_onnx(path)
