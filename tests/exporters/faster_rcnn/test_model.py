from __future__ import annotations

import pytest
import torch
from torch import nn

from dyninfer.errors import CheckpointError
from dyninfer.exporters.faster_rcnn.checkpoint import model_of
from dyninfer.exporters.faster_rcnn.conventions import conventions_of
from dyninfer.exporters.faster_rcnn.model import FasterRCNN, fold
from dyninfer.exporters.faster_rcnn.names import Library, by_own_names
from dyninfer.exporters.faster_rcnn.proposals import Proposals, decode, make_anchors
from dyninfer.exporters.faster_rcnn.regions import RegionMaps, align
from dyninfer.exporters.faster_rcnn.structure import read_structure
from dyninfer.exporters.faster_rcnn.suppress import kept_by_nms
from tests.exporters.faster_rcnn import narrow

TORCHVISION, MMDETECTION = map(conventions_of, Library)


def built(shapes: dict[str, tuple[int, ...]]) -> FasterRCNN:
    """A model without weights."""
    with torch.device("meta"):
        return FasterRCNN(read_structure(by_own_names(shapes, Library.MMDETECTION)))


def parameters(module: nn.Module) -> int:
    return sum(each.numel() for each in module.parameters())


def macs(module: nn.Module, *inputs: object) -> int:
    """Multiply-accumulates of convolutions and linear layers, without computing anything."""
    total = 0

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        each = layer.weight[0].numel()
        total += each * output.numel()

    layers = [each for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("depths", "backbone", "total", "trained", "backbone_macs", "giga"),
    [
        ((3, 4, 6, 3), 23_508_032, 41_753_056, 41_527_712, 83_410_944_000, 206.3),
        ((3, 4, 23, 3), 42_500_160, 60_745_184, 60_519_840, 159_170_560_000, 282.1),
    ],
    ids=["R50", "R101"],
)
def test_the_published_detectors_counts(
    depths, backbone, total, trained, backbone_macs, giga
) -> None:
    model = built(narrow.published(depths))
    frozen = parameters(model.backbone.conv1) + parameters(model.backbone.bn1)
    frozen += parameters(model.backbone.layer1)
    assert (parameters(model.backbone), parameters(model)) == (backbone, total)
    assert (frozen, total - frozen) == (225_344, trained)
    assert parameters(model.neck) == 3_344_384
    assert parameters(model.rpn_head) == 593_935
    assert parameters(model.roi_head) == 14_306_705
    images = torch.empty(1, 3, 800, 1280, device="meta")
    maps = model.backbone(images)
    counts = [macs(model.backbone, images), macs(model.neck, maps)]
    levels = model.neck(maps)
    counts.append(macs(model.rpn_head, levels))
    regions = torch.empty(1, 1000, 256 * 49, device="meta")
    counts.append(macs(model.roi_head["bbox_head"], regions))
    assert counts[0] == backbone_macs
    assert [round(count / 1e9, 2) for count in counts[1:]] == [58.0, 50.62, 14.3]
    assert round(sum(counts) / 1e9, 1) == giga


def test_torchvisions_91_columns() -> None:
    shapes = narrow.published((3, 4, 6, 3), 91)
    head = "roi_head.bbox_head.fc_reg"
    shapes |= {f"{head}.weight": (364, 1024), f"{head}.bias": (364,)}
    assert parameters(built(shapes)) == 41_808_406


def test_irregular_depths_and_widths_are_read_from_shapes() -> None:
    model = built(narrow.shapes_of())
    assert [len(stage) for stage in model.structure.stages] == [1, 2, 1, 3]
    inner = [[c.outputs for c in b.convs] for stage in model.structure.stages for b in stage]
    assert inner == [
        *([8, 12, 16], [6, 8, 24], [10, 6, 24], [8, 8, 32]),
        *([12, 9, 40], [5, 7, 40], [7, 5, 40]),
    ]
    assert str(model.structure) == (
        "blocks 1-2-1-3, channels 16-24-32-40, inner widths 5 to 12, pyramid 16"
    )


def test_both_libraries_names_give_the_same_weights() -> None:
    own = by_own_names(narrow.mmdetection(), Library.MMDETECTION)
    other = by_own_names(narrow.torchvision(), Library.TORCHVISION)
    old = {
        name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        .replace(".0.weight", ".weight" if "_blocks." in name else ".0.weight")
        .replace(".0.bias", ".bias" if "_blocks." in name else ".0.bias"): tensor
        for name, tensor in narrow.torchvision().items()
    }
    for state in (other, by_own_names(old, Library.TORCHVISION)):
        assert state.keys() == own.keys()
        assert all(torch.equal(state[name], own[name]) for name in own if ".fc_" not in name)
    assert torch.equal(
        other["roi_head.bbox_head.fc_cls.bias"].roll(-1), own["roi_head.bbox_head.fc_cls.bias"]
    )


def test_folding_changes_no_result() -> None:
    model = model_of(by_own_names(narrow.mmdetection(), Library.MMDETECTION))
    folded = fold(model)
    assert not any(isinstance(each, nn.BatchNorm2d) for each in folded.modules())
    images = torch.randn(1, 3, *narrow.SIZE, generator=torch.Generator().manual_seed(1))
    for one, other in zip(model.backbone(images), folded.backbone(images), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_strides_are_in_the_first_convolution_or_the_second() -> None:
    state = by_own_names(narrow.mmdetection(), Library.MMDETECTION)
    first, second = (model_of(state, stride_first=each) for each in (True, False))
    for model, strides in ((first, (2, 1)), (second, (1, 2))):
        block = model.backbone.layer2[0]
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides
        assert model.backbone.layer2[1].conv1.stride[0] == 1
        assert model.backbone.layer1[0].conv2.stride[0] == 1


def test_anchors_of_both_libraries() -> None:
    fine = make_anchors((800, 1280), TORCHVISION)
    assert [len(each) for each in fine] == [3 * n for n in (64000, 16000, 4000, 1000, 260)]
    assert fine[0][:3].tolist() == [[-23, -11, 23, 11], [-16, -16, 16, 16], [-11, -23, 11, 23]]
    assert fine[0][3].tolist() == [-19, -11, 27, 11]
    # of 800 pixels and 13 rows torchvision takes a stride of 61
    assert fine[4][60].tolist() == [-362, -120, 362, 242]
    exact = make_anchors((800, 1280), MMDETECTION)
    torch.testing.assert_close(exact[0][0], torch.tensor([-22.6274, -11.3137, 22.6274, 11.3137]))
    assert exact[4][61].tolist() == [-256, -192, 256, 320]


def test_codes_move_and_scale_boxes() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    codes = torch.tensor([[0.5, -0.25, torch.tensor(2.0).log(), torch.tensor(0.5).log()]])
    for both in (False, True):
        assert decode(boxes, codes, both_limits=both)[0].tolist() == [10, 20, 50, 40]
    far = torch.tensor([[0.0, 0.0, 99.0, -99.0]])
    open_below, limited = (decode(boxes, far, both_limits=both)[0] for both in (False, True))
    torch.testing.assert_close(open_below, torch.tensor([20 - 625.0, 40, 20 + 625, 40]))
    torch.testing.assert_close(limited, torch.tensor([20 - 625.0, 40 - 0.32, 645, 40.32]))


def test_suppression_is_greedy_within_a_group() -> None:
    boxes = torch.tensor([[[0, 0, 10, 10], [0, 0, 10, 9], [0, 2, 10, 12], [50, 50, 60, 60]]]) * 1.0
    one = torch.tensor([[[0.9, 0.8, 0.7, 0.0]]])
    # the third overlaps the first by 2/3 and the second, which is gone, by 7/12
    assert kept_by_nms(boxes, one, 0.6, 10).tolist() == [[1, 0, 0, 0]]
    assert kept_by_nms(boxes, one, 0.7, 10).tolist() == [[1, 0, 1, 0]]
    assert kept_by_nms(boxes, one, 0.7, 1).tolist() == [[1, 0, 0, 0]]
    two = torch.tensor([[[0.9, 0.0, 0.7, 0.0], [0.0, 0.8, 0.0, 0.1]]])
    assert kept_by_nms(boxes, two, 0.1, 10).tolist() == [[1, 1, 0, 1]]


def test_a_place_without_a_proposal_has_no_objectness() -> None:
    proposals = Proposals((64, 64), 1000, MMDETECTION)
    levels = [
        (torch.full((1, len(anchors)), 3.0), torch.zeros(1, len(anchors), 4))
        for anchors in make_anchors((64, 64), MMDETECTION)
    ]
    boxes, objectness = proposals(levels)
    kept = int((objectness > 0).sum())
    assert boxes.shape == (1, 1000, 4)
    assert 0 < kept < 1000
    assert (objectness[0, kept:] == 0).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 64


@pytest.mark.parametrize("samples", [2, 0], ids=["two samples", "as many as places"])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_cell_of_a_slope_is_the_value_at_its_centre(samples: int, aligned: bool) -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    boxes = torch.tensor([[3.0, 2.0, 17.0, 9.0], [5.0, 4.0, 12.0, 18.0]])
    found = align(torch.stack([x, y]), boxes, samples, aligned=aligned)
    for box, maps in zip(boxes, found, strict=True):
        steps = (torch.arange(7) + 0.5) / 7
        centres = box[:2, None] + (box[2:] - box[:2])[:, None] * steps - (0.5 if aligned else 0)
        torch.testing.assert_close(maps[0], centres[0].expand(7, 7))
        torch.testing.assert_close(maps[1], centres[1].unsqueeze(1).expand(7, 7))


def test_beyond_an_edge_a_sample_is_on_it_and_farther_it_is_nothing() -> None:
    ones = torch.ones(1, 4, 4)
    thin = torch.tensor([[3.5, 0.0, 4.0, 4.0]])  # taken for a place wide: samples to 4.5
    columns = align(ones, thin, 2, aligned=False)[0, 0, 0]
    assert columns.tolist() == [1, 1, 1, 0.5, 0, 0, 0]


def test_regions_are_cut_from_the_level_of_their_size() -> None:
    maps = [torch.full((1, 2, 256 // s, 256 // s), float(s)) for s in (4, 8, 16, 32)]
    sides = [20.0, 111.0, 112.0, 223.0, 224.0]
    boxes = torch.tensor([[[0, 0, side, side] for side in sides]])
    found = RegionMaps(MMDETECTION)(maps, boxes)
    assert found[0].mean(1).tolist() == [4, 4, 8, 8, 16]


BROKEN = {
    "missing": ("backbone.layer3.0.conv2.weight", None, "conv2.weight is missing"),
    "widths": ("backbone.layer2.1.conv2.weight", (6, 9, 3, 3), "layers do not meet"),
    "shortcut": ("backbone.layer4.0.downsample.0.weight", (39, 32, 1, 1), "do not meet"),
    "lateral": ("neck.lateral_convs.1.conv.weight", (16, 23, 1, 1), "do not meet"),
    "pyramid": ("neck.fpn_convs.2.conv.weight", (15, 16, 3, 3), "the same everywhere"),
    "anchors": ("rpn_head.rpn_cls.weight", (5, 16, 1, 1), "expected (3, 16, 1, 1)"),
    "regions": ("roi_head.bbox_head.shared_fcs.0.weight", (32, 100), "expected (32, 784)"),
    "boxes": ("roi_head.bbox_head.fc_reg.weight", (11, 24), "expected 4, 12 or 16"),
    "kernel": ("backbone.conv1.weight", (8, 3, 6, 6), "expected an odd square"),
    "axes": ("backbone.conv1.weight", (8, 3), "expected 4 axes"),
    "empty": ("backbone.conv1.weight", (0, 3, 7, 7), "none empty"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_weights_that_do_not_meet_are_refused_by_name(kind: str) -> None:
    name, shape, reason = BROKEN[kind]
    shapes = {key: value for key, value in narrow.shapes_of().items() if key != name}
    if shape is not None:
        shapes[name] = shape
    with pytest.raises(CheckpointError) as error:
        built(shapes)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_blocks_are_numbered_from_0_on_and_strides_have_a_projection() -> None:
    shapes = narrow.shapes_of()
    gap = {n: s for n, s in shapes.items() if not n.startswith("backbone.layer4.1.")}
    with pytest.raises(CheckpointError, match=r"numbered \[0, 2\], expected 0 to 1"):
        built(gap)
    bare = {n: s for n, s in shapes.items() if "layer3.0.downsample" not in n}
    with pytest.raises(CheckpointError, match="at half the size without a downsample"):
        built(bare)
