"""Detectors whose cost no shape tells: the process that reads them is ended, and says so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dyninfer import CheckpointError, ExportError, InputError
from dyninfer.exporters import limited
from dyninfer.exporters.cascade import export, write
from dyninfer.exporters.cascade.export import export_cascade
from dyninfer.exporters.cascade.onnx_file import read_onnx
from dyninfer.exporters.cascade.options import DetectorSource, Layout
from dyninfer.exporters.cascade.original import OriginalDetector
from tests import support
from tests.exporters.cascade import detectors

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
MODULE = "tests.exporters.cascade.limited_work"


@pytest.fixture
def source(tmp_path: Path) -> DetectorSource:
    return DetectorSource(detectors.yolov8(3).save(tmp_path / "tiny.onnx"))


def spoiled(source: DetectorSource, nodes: list[onnx.NodeProto], **constants) -> DetectorSource:
    """The detector, with 0 times the one number ``spoilt`` added to what it gives."""
    model = onnx.load(str(source.path))
    last = model.graph.node[-1]
    name, last.output[0] = last.output[0], "before"
    constants["nothing"] = np.array(0, np.float32)
    model.graph.node.extend(
        [
            *nodes,
            helper.make_node("Mul", ["spoilt", "nothing"], ["zero"]),
            helper.make_node("Add", ["before", "zero"], [name]),
        ]
    )
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in constants.items())
    source.path.write_bytes(model.SerializeToString())
    return source


def endless() -> list[onnx.NodeProto]:
    """A loop of 2^62 rounds that no optimiser can leave out."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["a"], ["b"])],
        "body",
        [value(n, k, []) for n, k in zip(("round", "go", "a"), (INT64, BOOL, FLOAT), strict=True)],
        [value("on", BOOL, []), value("b", FLOAT, [])],
    )
    return [
        helper.make_node("ReduceMax", ["pictures"], ["start"], keepdims=0),
        helper.make_node("Loop", ["rounds", "true", "start"], ["spoilt"], body=body),
    ]


def swelling() -> list[onnx.NodeProto]:
    """As many zeros as the picture's largest level times 10^11: no shape tells."""
    return [
        helper.make_node("ReduceMax", ["pictures"], ["level"], keepdims=0),
        helper.make_node("Mul", ["level", "many"], ["wanted"]),
        helper.make_node("Cast", ["wanted"], ["count"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["count", "one"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["spoilt"], keepdims=0),
    ]


def refused_without_a_trace(source: DetectorSource, tmp_path: Path, *parts: str) -> None:
    before = support.files_below(tmp_path)
    with support.refuses(CheckpointError, "tiny.onnx", *parts):
        export_cascade([source, source], tmp_path / "pair.dyn")
    assert support.files_below(tmp_path) == before


def test_a_detector_that_never_ends_is_given_up(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(limited, "SILENCE_S", 6.0)
    source = spoiled(source, endless(), rounds=np.array(2**62), true=np.array(True))
    refused_without_a_trace(source, tmp_path, "6 s")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_detector_that_takes_all_memory_is_refused(source, tmp_path) -> None:
    many, one = np.array(1e11, np.float32), np.array([1])
    refused_without_a_trace(spoiled(source, swelling(), many=many, one=one), tmp_path)


def test_verification_runs_the_file_itself_with_limited_memory(source) -> None:
    many, one = np.array(1e9, np.float32), np.array([1])
    file = read_onnx(spoiled(source, swelling(), many=many, one=one).path)
    original = OriginalDetector(file, Layout.NCHW, detectors.HEIGHT * detectors.WIDTH)
    image = np.zeros((1, 3, detectors.HEIGHT, detectors.WIDTH), np.float32)
    assert original.run(image)
    with support.refuses(CheckpointError, "tiny.onnx", "3.73 GB is wanted"):
        original.run(image + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_the_limit_is_what_was_asked_for(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "MEMORY", 64 << 20)
    refused_without_a_trace(source, tmp_path)


def test_where_no_child_can_be_started_nothing_is_limited(source, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(limited, "subprocess", None)
    steps: list[str] = []
    made = export_cascade([source, source], tmp_path / "pair.dyn", progress=steps.append)
    assert steps == ["reading first", "reading second", "writing first", "writing second"]
    assert set(made.manifest.stages) == {"first", "second"}


@pytest.mark.parametrize(
    ("does", "error", "parts"),
    [
        ("refuse", InputError, ("no such thing",)),
        ("fail", ExportError, ("some.onnx", "ZeroDivisionError: division by zero")),
        ("fail without a word", ExportError, ("AssertionError: AssertionError",)),
        ("exhaust", CheckpointError, ("some.onnx", "4 GB of memory")),
        ("crash", CheckpointError, ("some.onnx", "status -", "last words")),
        ("leave", CheckpointError, ("some.onnx", "status 7")),
    ],
)
def test_what_becomes_of_a_child_is_told_by_an_error_of_the_right_class(does, error, parts) -> None:
    steps: list[str] = []
    with support.refuses(error, *parts):
        limited.run_limited(
            MODULE, write.write_stages, {"do": does}, 4 << 30, "some.onnx", steps.append
        )
    assert steps == ["begun"]


def test_a_full_disk_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        limited.run_limited(MODULE, write.write_stages, {"do": "fill"}, 4 << 30, "x", print)
    assert caught.value.errno == 28


def test_what_a_child_prints_is_no_answer() -> None:
    found = limited.run_limited(MODULE, write.write_stages, {"do": "answer"}, 4 << 30, "x", print)
    assert found["pid"] != os.getpid()
    assert found["memory"] in (4 << 30, None)
