"""Names and shapes that belong to no EfficientDet, and what is counted of one that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from dyninfer import CheckpointError
from dyninfer.exporters.efficientdet.cost import counted_macs
from dyninfer.exporters.efficientdet.detector import plan_efficientdet
from dyninfer.exporters.efficientdet.model import EfficientDet
from dyninfer.exporters.efficientdet.structure import read_structure
from tests import support
from tests.exporters.efficientdet.narrow import narrow, random_model, save

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    with torch.device("meta"):
        state = EfficientDet(narrow(level_first=True)).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def without(shapes: Shapes, *starts: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(starts)}


BOXES, CLASSES = (f"{head}_net.predict.conv_pw.weight" for head in ("box", "class"))
DEEP, POINT = (f"backbone.blocks.1.0.{name}.weight" for name in ("conv_dw", "conv_pw"))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda s: s | {BOXES: (35, 16, 1, 1)}, ["35 and 27 numbers", "36 and a multiple of 9"]),
        (lambda s: s | {BOXES: (37, 16, 1, 1)}, ["37 and 27 numbers"]),
        (lambda s: s | {CLASSES: (28, 16, 1, 1)}, ["36 and 28 numbers"]),
        (lambda s: s | {CLASSES: (27, 16, 1)}, [CLASSES, "(27, 16, 1)", "4 axes"]),
        (lambda s: s | {CLASSES: (27, 16, 1, 1, 1)}, [CLASSES, "4 axes"]),
        (lambda s: s | {CLASSES: (27, 0, 1, 1)}, [CLASSES, "none of them 0"]),
        (lambda s: without(s, CLASSES), [f"no parameter {CLASSES}"]),
        (lambda s: without(s, "backbone.blocks.6."), ["has 6 stages", "expected the 7"]),
        (lambda s: without(s, "backbone.blocks.2."), ["backbone.blocks.N", "[0, 1, 3, 4, 5, 6]"]),
        (lambda s: without(s, DEEP), ["backbone.blocks.1.0 is neither"]),
        (lambda s: without(s, POINT), ["backbone.blocks.1.0 is neither"]),
        (lambda s: without(s, "fpn.cell."), ["fpn.cell.N", "numbered []"]),
        (
            lambda s: s | {f"fpn.cell.{number}.x": (1,) for number in range(201)},
            ["[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "at most 200"],
        ),
    ],
)
def test_shapes_of_no_efficientdet_are_refused(
    shapes: Shapes, change: Callable[[Shapes], Shapes], parts: list[str]
) -> None:
    assert read_structure(shapes) == narrow(level_first=True)
    with support.refuses(CheckpointError, *parts):
        read_structure(change(shapes))


def test_as_many_cells_as_are_allowed_are_counted(shapes: Shapes) -> None:
    most = shapes | {f"fpn.cell.{number}.x": (1,) for number in range(200)}
    assert read_structure(most).cells == 200


def test_a_structure_says_its_size() -> None:
    assert str(narrow()) == "8 blocks, P3 to P7, 2 cells of 16 channels, heads of 2"
    assert str(narrow(levels=6, cells=1)).startswith("8 blocks, P3 to P8, 1 cell of")


def test_a_backbone_of_pytorch_can_be_below_a_pyramid_as_tensorflow_pads_it(tmp_path) -> None:
    saved = random_model(narrow())
    native = EfficientDet(replace(narrow(), same_padding=False))
    native.load_state_dict(saved.state_dict())
    planned = plan_efficientdet(
        save(saved, tmp_path / "efficientdet_d4-mine.pth"), (72, 104), None, None
    )
    images = torch.randn(1, 3, 72, 104, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = native.eval().backbone(images), planned.model.backbone(images)
        torch.testing.assert_close(found, expected)
        pyramid, other = planned.model.fpn(found), saved.backbone(images)
        torch.testing.assert_close(pyramid, saved.fpn(found))
        assert not any(torch.allclose(a, b) for a, b in zip(other, found, strict=True))


def test_counting_leaves_a_model_as_it_was() -> None:
    with torch.device("meta"):
        model = EfficientDet(narrow()).eval()
        macs = counted_macs(model, torch.empty(1, 3, 64, 64))
        # four times the pixels, but squeeze-and-excitation has one place whatever the size
        larger = counted_macs(model, torch.empty(1, 3, 128, 128))
    assert larger["box_net"] == pytest.approx(4 * macs["box_net"], rel=0.01)
    assert macs["class_net"] * 36 > macs["box_net"] * 27 > 0
    assert not any(module._forward_hooks for module in model.modules())
