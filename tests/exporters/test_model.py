"""Full-size variants without their memory: on PyTorch's meta device only shapes exist."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from dyninfer.bundle.manifest import Stage
from dyninfer.exporters.class_names import COCO, class_names_for
from dyninfer.exporters.dynamicdet.export import (
    DynamicDetOptions,
    choose_image_size,
    stage_parameters,
)
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import (
    DynamicDetector,
    load_model,
    model_from_state,
    random_model,
)
from dyninfer.exporters.dynamicdet.plan import plan_from_table
from dyninfer.exporters.dynamicdet.stages import FirstStage, build_stages
from dyninfer.exporters.dynamicdet.topology import Part, published
from dyninfer.exporters.onnx_export import write_stage
from tests import support

YOLO_ANCHORS = (
    (12, 16, 19, 36, 40, 28),
    (36, 75, 76, 55, 72, 146),
    (142, 110, 192, 243, 459, 401),
)

# total, first backbone, router, each head, second backbone
PARAMETERS = {
    "dy-yolov7": (80_621_333, 13_371_808, 2_075_041, 24_250_874, 16_672_736),
    "dy-yolov7x": (151_093_149, 20_275_272, 3_241_801, 51_072_122, 25_431_832),
    "dy-yolov7-w6": (147_364_049, 35_988_608, 1_894_753, 34_441_208, 40_598_272),
}
ENTRIES = {"dy-yolov7": 1146, "dy-yolov7x": 1302, "dy-yolov7-w6": 1286}
# side, then giga multiply-accumulates times two: first, head, second, easy route, hard route
GFLOPS = {
    "dy-yolov7": (640, 66.14, 38.37, 115.57, 104.5, 181.7),
    "dy-yolov7x": (640, 100.67, 89.00, 206.96, 189.7, 307.6),
    "dy-yolov7-w6": (1280, 221.46, 138.26, 380.27, 359.7, 601.7),
}


def full_size(variant: str) -> DynamicDetector:
    with torch.device("meta"):
        return DynamicDetector(plan_from_table(published(variant))).eval()


def parts_of(model: DynamicDetector) -> dict[str, int]:
    modules = {part.name: getattr(model, part.prefix) for part in Part}
    assert model.router is not None
    modules["ROUTER"] = model.router
    return {n: sum(p.numel() for p in m.parameters()) for n, m in modules.items()}


def counted_macs(model: DynamicDetector, images: torch.Tensor) -> dict[str, int]:
    """Per stage, from what every convolution really puts out; of the folded model."""
    total = {"now": 0}

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        total["now"] += output[0].numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    found = {}
    with torch.inference_mode():
        features = model.first(images)
        found["first"], total["now"] = total["now"], 0
        if model.router is not None:
            model.easiness(features)
            found["router"], total["now"] = total["now"], 0
        model.head(features)
        found["head"], total["now"] = total["now"], 0
        model.second(features)
        found["second"] = total["now"]
    return found


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_full_size_variants_have_exactly_the_published_parameters(variant) -> None:
    model = full_size(variant)
    total, first, router, head, second = PARAMETERS[variant]
    expected = {"FIRST": first, "ROUTER": router, "HEAD": head, "HEAD2": head, "SECOND": second}
    assert parts_of(model) == expected
    assert sum(p.numel() for p in model.parameters()) == total
    assert stage_parameters(model) == {
        "first": first,
        "router": router,
        "head": head,
        "second": second + head,
    }
    assert len(model.state_dict()) == ENTRIES[variant]


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_full_size_variants_cost_what_was_measured_on_the_public_code(variant) -> None:
    side, first, head, second, easy, hard = GFLOPS[variant]
    with torch.device("meta"):
        macs = counted_macs(fold(full_size(variant)), torch.empty(1, 3, side, side))
    gflops = {name: 2 * count / 1e9 for name, count in macs.items()}
    assert gflops["first"] == pytest.approx(first, rel=0.005)
    assert gflops["head"] == pytest.approx(head, rel=0.005)
    assert gflops["second"] == pytest.approx(second, rel=0.005)
    assert gflops["router"] < 0.01
    assert gflops["first"] + gflops["router"] + gflops["head"] == pytest.approx(easy, rel=0.005)
    assert gflops["first"] + gflops["router"] + gflops["second"] == pytest.approx(hard, rel=0.005)


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_full_size_names_and_shapes_are_read_back_from_a_state_dict(variant) -> None:
    expected = {name: t.shape for name, t in full_size(variant).state_dict().items()}
    narrow = support.checkpoint_of(variant)
    state = torch.load(narrow, weights_only=False)["model"]  # from this repository: trusted
    assert list(state) == list(expected)
    model = model_from_state(published(variant), state)
    for name, tensor in model.state_dict().items():
        assert tensor.shape == state[name].shape
        assert torch.equal(tensor.float(), state[name].float())


def manifest_macs(stages: dict[str, Stage]) -> dict[str, int]:
    return {name: stage.macs for name, stage in stages.items()}


@pytest.mark.slow
@pytest.mark.parametrize("variant", support.VARIANTS)
def test_a_manifest_counts_macs_and_parameters_as_hooks_do(exported, variant) -> None:
    from dyninfer import Bundle

    model = load_model(support.checkpoint_of(variant))
    manifest = Bundle.open(exported(variant)).manifest
    images = torch.zeros(1, 3, support.SIZE, support.SIZE)
    counted = counted_macs(fold(model), images)
    assert manifest_macs(dict(manifest.stages)) == counted
    assert {n: s.parameters for n, s in manifest.stages.items()} == stage_parameters(model)
    easy = counted["first"] + counted["router"] + counted["head"]
    hard = counted["first"] + counted["router"] + counted["second"]
    assert [manifest.macs_to(0), manifest.macs_to(1)] == [easy, hard]


@pytest.mark.slow
def test_a_full_size_export_records_parameters_and_macs(tmp_path) -> None:
    """Of the router and the head: the same code writes every stage, and tracing takes long."""
    model = random_model(plan_from_table(published("dy-yolov7")), YOLO_ANCHORS)
    checkpoint = support.save_checkpoint(model, tmp_path / "full.pt")
    source = load_model(checkpoint)
    _, _, router, head, _ = PARAMETERS["dy-yolov7"]
    side, _, gflops, *_ = GFLOPS["dy-yolov7"]
    assert choose_image_size(None, source.plan.largest_stride) == (side, side)
    assert class_names_for(source.plan.classes, None) == COCO
    with torch.device("meta"):
        first = FirstStage(fold(full_size("dy-yolov7")))
        made = dict(zip(first.outputs, first(torch.empty(2, 3, side, side)), strict=True))
    parameters, entries = stage_parameters(source), {}
    stages = build_stages(fold(source), (side, side), DynamicDetOptions().candidates)
    for name in ("router", "head"):
        stage = stages[name]
        inputs = {read: torch.rand(made[read].shape) for read in stage.inputs}
        entries[name], _ = write_stage(
            stage, inputs, stage.outputs, parameters[name], tmp_path, f"onnx/{name}.onnx"
        )
    assert [entries[name].parameters for name in ("router", "head")] == [router, head]
    assert 2 * entries["head"].macs / 1e9 == pytest.approx(gflops, rel=0.005)


@pytest.mark.parametrize(("part", "share"), [("first", 0.7), ("head", 0.4), ("second", 0.4)])
def test_a_feature_is_freed_after_its_last_reader(part, share) -> None:
    """Never are all features there at once, which of a large image take gigabytes."""
    model = load_model(support.checkpoint_of("dy-yolov7-w6"))
    images = torch.from_numpy(support.random_images(1, 64, 64))
    alive: list[weakref.ref[torch.Tensor]] = []
    largest = made = 0

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal largest, made
        tensors = output if isinstance(output, tuple) else (output,)
        alive[:] = [*(ref for ref in alive if ref() is not None), *map(weakref.ref, tensors)]
        made += sum(tensor.numel() for tensor in tensors)
        largest = max(largest, sum(ref().numel() for ref in alive if ref() is not None))

    with torch.inference_mode():
        features = model.first(images)
        read = {*model.topology.read_by(Part.HEAD, Part.SECOND), *model.topology.router_inputs}
        assert set(features) == read
        for module in (m for name in Part for m in getattr(model, name.prefix)):
            module.register_forward_hook(note)
        model.first(images) if part == "first" else getattr(model, part)(features)
    assert largest < share * made


def test_a_new_head_begins_with_few_objects_and_anchors_in_cells(small_model) -> None:
    anchors = ((8, 9, 12, 20), (30, 25, 40, 60))
    model = random_model(small_model.plan, anchors)
    for part in (Part.HEAD, Part.HEAD2):
        detect = model.detect(part)
        for level, (stride, pairs) in enumerate(zip((8, 16), anchors, strict=True)):
            expected = torch.tensor(pairs, dtype=torch.float32).reshape(2, 2)
            assert torch.equal(detect.anchor_grid[level].reshape(2, 2), expected)
            assert torch.equal(detect.anchors[level], expected / stride)
            bias = detect.m[level].bias.reshape(2, -1)
            cells = (640 / stride) ** 2  # of which 8 hold an object at first
            assert bias[:, 4].detach().exp().numpy() == pytest.approx(8 / cells, rel=1e-5)
            classes = bias[:, 5:].detach().exp().numpy()
            assert classes == pytest.approx(0.6 / (2 - 0.99), rel=1e-5)
