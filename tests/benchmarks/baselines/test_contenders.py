from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import dyninfer
from dyninfer.benchmarks.baselines import of_torch
from dyninfer.benchmarks.baselines.contestants import Contestants
from dyninfer.benchmarks.baselines.setup import CallKind, Kind
from dyninfer.benchmarks.baselines.worker import Runner, open_contender
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BackendUnavailable, BundleError, InputError
from dyninfer.exporters.dynamicdet import export
from dyninfer.runtime.engine_choice import EngineChoice
from tests import support

BOTH_CALLS = (Kind.DYNINFER, Kind.SINGLE_GRAPH, Kind.LAST_EXIT)


@pytest.fixture
def small(small_bundle, small_checkpoint, small_yaml, tmp_path, monkeypatch) -> Contestants:
    load = export.load_model  # no variant that is recognised
    monkeypatch.setattr(export, "load_model", lambda path, _config: load(path, small_yaml))
    return contestants(small_bundle, tmp_path, (small_checkpoint,))


def contestants(bundle, folder, sources=()) -> Contestants:
    made = Contestants(bundle, Bundle.open(bundle).manifest, EngineChoice(), folder, tuple(sources))
    made.write_inputs()
    return made


def opened(plan: Contestants, name: str):
    return open_contender(plan.setup_of(name))


def expected(plan: Contestants, way: int):
    return open_contender(plan.setup(Kind.DYNINFER)).outputs(way)


def assert_same(found, reference) -> None:
    for name, array in reference.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["single-graph-if", "naive", "pytorch-eager", "pytorch-folded"])
@pytest.mark.parametrize("way", [0, 1])
def test_contenders_find_what_dyninfer_finds(small, name, way) -> None:
    assert_same(opened(small, name).outputs(way), expected(small, way))


def test_pytorch_in_half_precision_finds_about_the_same(small, monkeypatch) -> None:
    exact = opened(small, "pytorch-folded").outputs(1)["boxes_xyxy"]
    monkeypatch.setattr(of_torch, "use_half", lambda *_: True)
    half = opened(small, "pytorch-folded")
    rough = half.outputs(1)["boxes_xyxy"]
    assert rough.dtype == np.float16
    assert np.median(np.abs(exact - rough.astype(np.float32))) < 1
    assert half.note == "in half precision"


def test_half_precision_is_for_a_gpu_beside_fp16_engines() -> None:
    assert of_torch.use_half("fp16", "cuda")
    assert not of_torch.use_half("fp16", "cpu")
    assert not of_torch.use_half(None, "cuda")


def test_the_ways_differ_and_the_last_exit_alone_finds_what_hard_images_show(small) -> None:
    easy, hard = (expected(small, way) for way in (0, 1))
    assert easy["boxes_xyxy"].shape != hard["boxes_xyxy"].shape or not np.allclose(
        easy["boxes_xyxy"], hard["boxes_xyxy"]
    )
    alone = opened(small, "always-last-exit")
    assert_same(alone.outputs(1), hard)
    assert_same(alone.outputs(0), hard)


def test_dyninfers_two_calls_run_the_exit_that_was_asked_for(small) -> None:
    contender = open_contender(small.setup(Kind.DYNINFER))
    engines = contender._detector.engines
    for call in CallKind:
        before = {name: engine.run_count for name, engine in engines.items()}
        contender.action(0, call)()
        ran = {name for name, engine in engines.items() if engine.run_count > before[name]}
        assert ran == {"first", "router", "head"}
        contender.action(1, call)()
        assert engines["second"].run_count == before["second"] + 1


def test_the_last_exit_alone_opens_nothing_else(small) -> None:
    contender = opened(small, "always-last-exit")
    assert list(contender._engines) == ["first", "second"]
    contender.action(1, CallKind.ENGINES)()
    contender.action(1, CallKind.API)()
    assert [engine.run_count for engine in contender._engines.values()] == [2, 2]


@pytest.mark.parametrize("way", [0, 1])
def test_bound_outputs_are_those_of_the_ordinary_call(small, way) -> None:
    graph = opened(small, "single-graph-if")
    run = graph.action(way, CallKind.ENGINES)
    # whatever the binding does not keep alive is overwritten: the threshold of the other way
    taken = [np.array(0 if way else 2, np.float32) for _ in range(100)]
    bound = run()
    assert len(taken) == 100
    for array, reference in zip(bound, graph.outputs(way).values(), strict=True):
        np.testing.assert_array_equal(array, reference)


class Mean(nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


class First(nn.Module):
    def forward(self, value):
        return value[:, 0]


class Boxes(nn.Module):
    """What ``support.detection_nodes`` computes."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, value):
        value = value.mean((2, 3)) if value.dim() == 4 else value
        corners = torch.tensor([0.0, 0.0, 8.0, 8.0]) + self.offset
        boxes = value[:, 2, None, None] + corners
        return boxes, torch.tensor([[[0.25, 0.75]]]).expand(len(value), 1, 2)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_finds_what_dyninfer_finds(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    modules = {"first": Mean(), "router": First(), "head": Boxes(0), "second": Boxes(1000)}
    monkeypatch.setattr(of_torch, "_modules", lambda *_: (modules, ""))
    plan = contestants(support.write_two_exits(tmp_path / "two.dyn"), tmp_path)
    contender = opened(plan, "torch-compile")
    assert "compiled in" in contender.note
    for way in range(2):
        assert_same(contender.outputs(way), expected(plan, way))


def test_a_bundle_whose_source_is_not_there_has_no_pytorch(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = support.write_two_exits(tmp_path / "two.dyn")
    with pytest.raises(BundleError, match=r"is not in .*--source"):
        opened(contestants(path, tmp_path), "pytorch-eager")


@pytest.mark.parametrize("family", ["cascade", "onnx"])
def test_onnx_files_have_no_pytorch(tmp_path, family) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    support.reseal(path, lambda payload: payload.update(family=family))
    with pytest.raises(BackendUnavailable, match="made from ONNX files"):
        opened(contestants(path, tmp_path), "pytorch-folded")


def test_three_exits_run_to_every_one(tmp_path) -> None:
    plan = contestants(support.write_three_exits(tmp_path / "three.dyn"), tmp_path)
    for name in ("naive", "single-graph-if"):
        contender = opened(plan, name)
        for way, offset in enumerate((0, 1000, 2000)):
            found = contender.outputs(way)
            assert_same(found, expected(plan, way))
            assert found["boxes_xyxy"][0, 0, 0] == pytest.approx(offset, abs=1.01)
    alone = opened(plan, "always-last-exit")
    assert_same(alone.outputs(2), expected(plan, 2))
    assert list(alone._engines) == ["body_1", "body_3"]
    assert list(alone._inputs) == ["images"]


@pytest.mark.parametrize(
    "write", [support.write_select_detectors, support.write_select_classifiers]
)
def test_a_chooser_runs_for_every_branch_but_not_for_the_last_alone(tmp_path, write) -> None:
    plan = contestants(write(tmp_path / "select.dyn"), tmp_path)
    for name in ("naive", "single-graph-if"):
        contender = opened(plan, name)
        for way in range(2):
            assert_same(contender.outputs(way), expected(plan, way))
    ours = open_contender(plan.setup(Kind.DYNINFER))
    ours.action(0, CallKind.ENGINES)()
    assert ours._detector.engines["chooser"].run_count == 1
    alone = opened(plan, "always-last-exit")
    assert_same(alone.outputs(1), expected(plan, 1))
    assert "chooser" not in alone._engines


def test_the_last_alone_is_the_dearest_branch(tmp_path) -> None:
    plan = contestants(support.write_dear_first(tmp_path / "dear.dyn"), tmp_path)
    alone = opened(plan, "always-last-exit")
    assert [*alone._engines] == ["body_0"]
    assert_same(alone.outputs(0), expected(plan, 0))


@pytest.mark.parametrize("write", [support.write_static, support.write_static_two_stages])
def test_one_exit_has_one_way(tmp_path, write) -> None:
    plan = contestants(write(tmp_path / "static.dyn"), tmp_path)
    for name in ("naive", "always-last-exit", "single-graph-if"):
        assert_same(opened(plan, name).outputs(0), expected(plan, 0))


def test_without_a_router_the_way_decides(tmp_path) -> None:
    plan = contestants(support.write_two_exits(tmp_path / "two.dyn", router=False), tmp_path)
    naive = opened(plan, "naive")
    for way in range(2):
        assert_same(naive.outputs(way), expected(plan, way))


def test_a_runner_tells_the_median_and_wakes_up_first() -> None:
    class Counted:
        note = ""
        runs = 0

        def action(self, _way, _call):
            def run() -> None:
                self.runs += 1

            return run

    contender = Counted()
    runner = Runner(contender)
    first = runner.run(0, CallKind.API, 4, wake=True)
    assert contender.runs == 5
    assert first["ms"] > 0
    assert first["idle_cpu_ms"] == 0  # there was nothing before
    assert runner.run(0, CallKind.API, 1, wake=False)["idle_cpu_ms"] >= 0
    assert contender.runs == 6


def write_detector(path, shape, kind=TensorProto.FLOAT):
    value = helper.make_tensor_value_info("image", kind, shape)
    result = helper.make_tensor_value_info("answer", kind, None)
    node = helper.make_node("Identity", ["image"], ["answer"])
    graph = helper.make_graph([node], "other", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        ([1, 3, 5, 7], (1, 3, 5, 7)),
        (["n", 3, "h", "w"], (1, 3, 8, 8)),
        ([None, None, None, None], (1, 3, 8, 8)),
        (["n", "h", "w", 3], (1, 8, 8, 3)),
        ([1, 16, 24, 3], (1, 16, 24, 3)),
    ],
)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8])
def test_another_detector_gets_noise_of_its_own_shape_and_type(tmp_path, declared, shape, kind):
    plan = contestants(support.write_two_exits(tmp_path / "two.dyn"), tmp_path)
    contender = opened(plan, str(write_detector(tmp_path / "other.onnx", declared, kind)))
    (found,) = contender.outputs(0).values()
    assert found.shape == shape
    assert found.dtype == (np.float32 if kind == TensorProto.FLOAT else np.uint8)
    assert len(np.unique(found)) > 10
    assert str(shape) in contender.note


@pytest.mark.parametrize(
    ("declared", "kind", "part"),
    [
        ([8, 3, 8, 8], TensorProto.FLOAT, "takes 8 images"),
        ([1, 3], TensorProto.FLOAT, "four axes"),
        ([1, 3, 8, 8], TensorProto.INT64, "tensor(int64)"),
    ],
)
def test_what_takes_no_single_image_is_refused(tmp_path, declared, kind, part) -> None:
    plan = contestants(support.write_two_exits(tmp_path / "two.dyn"), tmp_path)
    with support.refuses(InputError, "image", part):
        opened(plan, str(write_detector(tmp_path / "other.onnx", declared, kind)))


def test_a_gpu_that_is_not_there_is_refused(tmp_path) -> None:
    plan = contestants(support.write_two_exits(tmp_path / "two.dyn"), tmp_path)
    elsewhere = replace(plan, engine=EngineChoice(device="cuda:0"))
    with pytest.raises(dyninfer.BackendUnavailable, match="CUDAExecutionProvider"):
        opened(elsewhere, "naive")
