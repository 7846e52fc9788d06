"""Stages that ask for gigabytes: refused before they get them, and nothing else is lost."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import dyninfer
from dyninfer import EngineBuildError, EngineRunError
from dyninfer.engines.onnx_growth import MAX_NODES, UnboundedError, computed_when_opened
from dyninfer.engines.ort import memory
from dyninfer.engines.ort.memory import FOLDING_IS_LIMITED
from dyninfer.engines.ort.runtime import PlainStages
from tests import support

HUGE = 2**30  # numbers: 4 GB
WHITE = np.full((1, 3, 8, 8), 1, np.float32)

node = helper.make_node
OPERATORS: dict[str, Callable[[], list[onnx.NodeProto]]] = {
    "ConstantOfShape": lambda: [node("ConstantOfShape", ["huge"], ["many"])],
    "Expand": lambda: [node("Expand", ["number", "huge"], ["many"])],
    "Tile": lambda: [node("Tile", ["number", "huge"], ["many"])],
    "Range": lambda: [
        node("Squeeze", ["huge", "first"], ["end"]),
        node("Range", ["start", "end", "step"], ["whole"]),
        node("Cast", ["whole"], ["many"], to=TensorProto.FLOAT),
    ],
    "Pad": lambda: [
        node("Concat", ["first", "huge"], ["pads"], axis=0),
        node("Pad", ["number", "pads"], ["many"]),
    ],
    "OneHot": lambda: [
        node("Squeeze", ["huge", "first"], ["depth"]),
        node("OneHot", ["first", "depth", "two"], ["many"], axis=0),
    ],
    "Resize": lambda: [
        node("Concat", ["one", "one", "one", "huge"], ["sizes"], axis=0),
        node("Reshape", ["number", "ones"], ["picture"]),
        node("Resize", ["picture", "", "", "sizes"], ["many"]),
    ],
    "MatMul": lambda: [
        node("Sqrt", ["count"], ["root"]),
        node("Cast", ["root"], ["side"], to=TensorProto.INT64),
        node("Concat", ["side", "one"], ["tall"], axis=0),
        node("Concat", ["one", "side"], ["wide"], axis=0),
        node("Expand", ["number", "tall"], ["column"]),
        node("Expand", ["number", "wide"], ["row"]),
        node("MatMul", ["column", "row"], ["many"]),
    ],
}
CONSTANTS = {
    "first": np.array([0]),
    "one": np.array([1]),
    "ones": np.array([1, 1, 1, 1]),
    "start": np.array(0),
    "step": np.array(1),
    "number": np.array([0.5], np.float32),
    "two": np.array([0, 1], np.float32),
    "nothing": np.array(0, np.float32),
}


def asking(operator: str, *, known: bool, size: int = HUGE) -> onnx.ModelProto:
    """A first stage in which an operator makes many numbers of which 0 times is added.

    Its size is a constant, or follows from the brightest pixel.
    """
    constants = dict(CONSTANTS)
    if known:
        constants["count"] = np.array([size], np.float32)
        counted = []
    else:
        constants["times"] = np.array([size], np.float32)
        counted = [
            node("ReduceMax", ["images"], ["brightest"], keepdims=0),
            node("Mul", ["brightest", "times"], ["count"]),
        ]
    cast = node("Cast", ["count"], ["huge"], to=TensorProto.INT64)
    summed = [
        node("ReduceMax", ["many"], ["most"], keepdims=0),
        node("Mul", ["most", "nothing"], ["zero"]),
        node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        node("Add", ["mean", "zero"], ["value"]),
    ]
    nodes = [*counted, cast, *OPERATORS[operator](), *summed]
    read = {name for each in nodes for name in each.input}
    kept = {name: array for name, array in constants.items() if name in read}
    return support.tiny_model({"images": ["batch", 3, 8, 8]}, {"value": ["batch", 3]}, nodes, kept)


def with_first(bundle: Path, data: bytes, stage: str = "first") -> Path:
    file = f"onnx/{stage}.onnx"
    (bundle / file).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest()}
    support.reseal(bundle, lambda manifest: manifest["stages"][stage].update(entry))
    return bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def peak(figure: str = "VmHWM") -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.findall(rf"{figure}:\s*(\d+) kB", status)[0]) << 10


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("known", [False, True])
def test_an_operator_does_not_get_gigabytes(bundle, operator, known) -> None:
    if known and not (FOLDING_IS_LIMITED or sys.platform == "linux"):
        pytest.skip("ONNX Runtime before 1.27 computes constants without a limit there")
    with_first(bundle, asking(operator, known=known).SerializeToString())
    before = peak() if sys.platform == "linux" else 0
    if known and not FOLDING_IS_LIMITED:
        with support.refuses(EngineBuildError, "'first'", "more memory", "constants"):
            dyninfer.load(bundle)
        assert peak() - before < 2 * memory.LEAST
        return
    with dyninfer.load(bundle) as detector:
        for _ in range(2):
            with support.refuses(EngineRunError, "'first'", "GB is wanted", "max_batch"):
                detector.infer({"images": WHITE})
        if not known:  # a dark picture asks for little
            assert len(detector.infer({"images": WHITE / 2**20})) == 1
    if sys.platform == "linux":
        assert peak() - before < 2 * memory.LEAST


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_no_larger_than_the_limit_is_made(bundle, operator) -> None:
    with_first(bundle, asking(operator, known=False, size=2**20).SerializeToString())
    with dyninfer.load(bundle) as detector:
        (found,) = detector.infer({"images": WHITE})
    assert np.isfinite(found.outputs["boxes_xyxy"]).all()


def test_others_that_run_a_bundle_limit_it_too(bundle) -> None:
    with_first(bundle, asking("Expand", known=False).SerializeToString())
    stages = PlainStages(dyninfer.Bundle.open(bundle))
    with support.refuses(EngineRunError, "'first'", "GB is wanted"):
        stages.run("first", {"images": WHITE})


def test_an_image_is_answered_by_the_exit_before(bundle) -> None:
    with dyninfer.load(bundle) as detector:
        (expected,) = detector.infer({"images": WHITE}, policy=dyninfer.AlwaysEasy())
    model = onnx.load(str(bundle / "onnx/second.onnx"))
    (mean,) = (each for each in model.graph.node if each.op_type == "ReduceMean")
    name, mean.output[0] = mean.output[0], "before"
    after = list(model.graph.node).index(mean) + 1
    for made in (
        node("Mul", ["before", "most"], [name]),
        node("ReduceMax", ["grown"], ["most"], keepdims=0),
        node("Expand", ["before", "huge"], ["grown"]),
    ):
        model.graph.node.insert(after, made)
    huge = numpy_helper.from_array(np.array([HUGE // 3, 1, 3]), "huge")
    model.graph.initializer.append(huge)
    with_first(bundle, model.SerializeToString(), "second")
    with dyninfer.load(bundle, on_failure="degrade") as detector:
        (found,) = detector.infer({"images": WHITE}, policy=dyninfer.AlwaysHard())
    assert found.degraded
    assert (found.outputs["boxes_xyxy"] == expected.outputs["boxes_xyxy"]).all()


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read as Linux tells it")
def test_many_values_do_not_add_up_when_a_file_is_opened(bundle, monkeypatch) -> None:
    monkeypatch.setattr(memory, "_FOLDED", 64 << 20)
    monkeypatch.setattr(memory, "LEAST", 64 << 20)
    made = [f"made{number}" for number in range(40)]
    values = [numpy_helper.from_array(np.array([n], np.float32)) for n in range(40)]
    nodes = [
        node("ConstantOfShape", ["size"], [name], value=value)
        for name, value in zip(made, values, strict=True)
    ]
    nodes += [
        node("Sum", made, ["many"]),
        node("ReduceMax", ["many"], ["most"], keepdims=0),
        node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
        node("Add", ["mean", "most"], ["value"]),
    ]
    sizes = {"size": np.array([2**22])}  # 16 MB each
    model = support.tiny_model(
        {"images": ["batch", 3, 8, 8]}, {"value": ["batch", 3]}, nodes, sizes
    )
    assert computed_when_opened(model.SerializeToString()) == 42
    with_first(bundle, model.SerializeToString())
    before = peak()
    if not FOLDING_IS_LIMITED:
        with support.refuses(EngineBuildError, "'first'", "more memory", "constants"):
            dyninfer.load(bundle)
        assert peak() - before < 200 << 20
        return
    with dyninfer.load(bundle) as detector:
        assert peak() - before < 200 << 20  # 40 of them are 640
        with support.refuses(EngineRunError, "'first'", "GB is wanted"):
            detector.infer({"images": WHITE})


def kept_after_a_call_and_when_closed(bundle: Path, sparing: bool) -> tuple[int, int]:
    """Bytes of this process after a call that needs 256 MB, over those after one that does not."""
    with_first(bundle, asking("Expand", known=False, size=2**26).SerializeToString())
    with dyninfer.load(bundle) as detector:
        detector.infer({"images": WHITE / 2**20})
        if sparing:
            for engine in detector.engines.values():
                engine.spare_memory()
            del engine
        before = peak("VmRSS")
        detector.infer({"images": WHITE})
        called = peak("VmRSS") - before
    return called, peak("VmRSS") - before


@pytest.mark.skipif(sys.platform != "linux", reason="memory in use is read as Linux tells it")
@pytest.mark.parametrize("sparing", [False, True])
def test_memory_is_given_back_where_it_is_to_be_spared_and_when_closed(bundle, sparing) -> None:
    called, closed = support.in_fresh_process(kept_after_a_call_and_when_closed, bundle, sparing)
    assert called < 128 << 20 if sparing else called > 128 << 20
    assert closed < 128 << 20


def sparse() -> onnx.SparseTensorProto:
    values = numpy_helper.from_array(np.ones(1, np.float32), "weight")
    return helper.make_sparse_tensor(
        values, numpy_helper.from_array(np.array([5]), "places"), [HUGE]
    )


def unbounded(kind: str) -> onnx.ModelProto:
    """A first stage with something of which no file tells how large it becomes."""
    model = support.means_of("images", 8, 8, "value")
    graph = model.graph
    text = helper.make_tensor("text", TensorProto.STRING, [1], [b"a"])
    match kind:
        case "sparse initializer":
            graph.sparse_initializer.append(sparse())
        case "sparse constant":
            graph.node.append(node("Constant", [], ["weight"], sparse_value=sparse()))
        case "text initializer":
            graph.initializer.append(text)
        case "text constant":
            graph.node.append(node("Constant", [], ["text"], value=text))
        case "text attribute":
            graph.node.append(node("Constant", [], ["text"], value_strings=["a"]))
        case "text within a branch":
            constant = node("Constant", [], ["text"], value=text)
            made = helper.make_tensor_value_info("text", TensorProto.STRING, [1])
            branch = helper.make_graph([constant], "branch", [], [made])
            graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
            both = {"then_branch": branch, "else_branch": branch}
            graph.node.append(node("If", ["yes"], ["said"], **both))
        case "text made of numbers":
            graph.node.append(node("Cast", ["value"], ["text"], to=TensorProto.STRING))
        case "counts of text":
            graph.node.append(node("TfIdfVectorizer", ["value"], ["counts"]))
        case "maps":
            graph.node.append(node("ZipMap", ["value"], ["maps"], domain="ai.onnx.ml"))
        case "text operator":
            graph.node.append(node("StringConcat", ["a", "b"], ["c"]))
        case "functions":
            imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
            for level in range(21):
                inner = "Identity" if level == 20 else f"f{level + 1}"
                twice = [
                    node(inner, ["a"], ["b"], domain="" if level == 20 else "own"),
                    node(inner, ["b"], ["c"], domain="" if level == 20 else "own"),
                ]
                model.functions.append(
                    helper.make_function("own", f"f{level}", ["a"], ["c"], twice, imports)
                )
            model.opset_import.append(imports[1])
            graph.node.append(node("f0", ["value"], ["called"], domain="own"))
    return model


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("sparse initializer", "sparse tensors"),
        ("sparse constant", "sparse tensors"),
        ("text initializer", "text"),
        ("text constant", "text"),
        ("text attribute", "text"),
        ("text within a branch", "text"),
        ("text made of numbers", "text"),
        ("counts of text", "text"),
        ("maps", "maps"),
        ("text operator", "text"),
        ("functions", f"{MAX_NODES:,} nodes"),
    ],
)
def test_what_grows_beyond_any_limit_is_refused(bundle, kind, word) -> None:
    data = unbounded(kind).SerializeToString()
    with pytest.raises(UnboundedError, match=word):
        computed_when_opened(data)
    with_first(bundle, data)
    with support.refuses(EngineBuildError, "first.onnx", word, "memory"):
        dyninfer.load(bundle)


def counted(nodes: list[onnx.NodeProto], *, inputs: tuple[str, ...] = ("images",)) -> int:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in inputs]
    weight = numpy_helper.from_array(np.ones(3, np.float32), "weight")
    graph = helper.make_graph(nodes, "g", values, [], [weight])
    return computed_when_opened(helper.make_model(graph).SerializeToString())


def test_what_depends_on_no_input_is_counted() -> None:
    assert counted([]) == 0
    assert counted([node("Relu", ["images"], ["a"]), node("Relu", ["a"], ["b"])]) == 0
    assert counted([node("Relu", ["weight"], ["a"]), node("Relu", ["a"], ["b"])]) == 2
    assert counted([node("Relu", ["a"], ["b"]), node("Relu", ["weight"], ["a"])]) == 2  # any order
    assert counted([node("Add", ["weight", "images"], ["a"])]) == 0
    # an initializer of the same name is what old files have as an input with its value
    assert counted([node("Relu", ["weight"], ["a"])], inputs=("images", "weight")) == 1
    # a shape may be known where the values are not
    assert counted([node("Shape", ["images"], ["s"]), node("Neg", ["s"], ["a"])]) == 2
    body = helper.make_graph(
        [node("Relu", ["weight"], ["x"]), node("Relu", ["images"], ["y"])], "b", [], []
    )
    branches = {"then_branch": body, "else_branch": body}
    assert counted([node("If", ["images"], ["a"], **branches), node("Relu", ["a"], ["b"])]) == 2
    assert counted([node("If", ["weight"], ["a"], **branches), node("Relu", ["a"], ["b"])]) == 4


def test_memory_grows_with_images_and_cores_up_to_the_machines_own(monkeypatch) -> None:
    monkeypatch.setattr(memory, "_memory_of_process", lambda: 64 << 30)
    monkeypatch.setattr(memory, "usable_cores", lambda: 2)
    assert memory.tensor_memory(0) == memory.LEAST
    assert memory.tensor_memory(8 * 640 * 640) == memory.LEAST + 8 * 640 * 640 * 2048
    monkeypatch.setattr(memory, "usable_cores", lambda: 16)
    assert memory.tensor_memory(1000) == memory.LEAST + 4 * 1000 * 2048
    assert memory.tensor_memory(2**40) == 48 << 30


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_memory_is_what_ulimit_leaves() -> None:
    code = "from dyninfer.engines.ort import memory; print(memory.tensor_memory(2**40))"
    command = ["sh", "-c", f'ulimit -v 8000000; "{sys.executable}" -c "{code}"']
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=support.ROOT)
    assert int(found.stdout) == 8_000_000 * 1024 * 3 // 4


def test_outputs_that_a_manifest_describes_are_limited_too(bundle) -> None:
    def grow(manifest) -> None:
        for stage in ("head", "second"):
            manifest["stages"][stage]["outputs"][0]["shape"] = ["batch", 2**27, 4]

    support.reseal(bundle, grow)
    with support.refuses(EngineBuildError, "'two'", "32 GB", "batch of 8", "1.5 GB"):
        dyninfer.load(bundle)


def test_a_child_of_a_fork_opens_a_bundle_while_a_thread_of_the_parent_did(bundle) -> None:
    code = """
import os, sys, threading, dyninfer
from dyninfer.engines.ort.memory import limited_tensors
inside = threading.Event()
def hold():
    with limited_tensors(1 << 30):
        inside.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
inside.wait()
if not (child := os.fork()):
    dyninfer.load(sys.argv[1]).close()
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork")
    subprocess.run([sys.executable, "-c", code, bundle], check=True, timeout=60, cwd=support.ROOT)
