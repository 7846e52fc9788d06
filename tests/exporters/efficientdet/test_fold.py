from __future__ import annotations

import pytest
import torch
from torch import nn

from dyninfer.exporters.efficientdet.fold import fold
from dyninfer.exporters.efficientdet.layers import SameConv, resized
from dyninfer.exporters.efficientdet.model import fusions
from tests.exporters.efficientdet.narrow import narrow, random_model

STRUCTURES = {
    "tf": narrow(),
    "native": narrow(native=True),
    "lite": narrow(lite=True),
    "six levels": narrow(levels=6, cells=1),
    "norms by level": narrow(native=True, level_first=True),
    "as wide as P4 and P5": narrow(channels=24),
    "as wide as P5": narrow(channels=32),
}


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("size", [(64, 64), (48, 100)])
def test_folding_changes_the_layers_and_not_the_results(structure, size) -> None:
    model = random_model(structure)
    folded = fold(model)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for one, other in zip(model(images), folded(images), strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=2e-4 * float(one.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("weights", [0.0, -1.0, 1e-6])
def test_a_node_whose_weights_are_all_but_zero_stays_what_it_is(weights) -> None:
    model = random_model(narrow())
    for index in (3, 5, 7):
        model.fpn.cell[1].fnode[index].combine.edge_weights.fill_(weights)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        for one, other in zip(model(images), fold(model)(images), strict=True):
            assert other.isfinite().all()
            torch.testing.assert_close(other, one, rtol=0, atol=2e-4 * float(one.abs().max()))


def test_a_cell_goes_down_and_up() -> None:
    assert fusions(5) == [
        *((3, (3, 4)), (2, (2, 5)), (1, (1, 6)), (0, (0, 7))),
        *((1, (1, 7, 8)), (2, (2, 6, 9)), (3, (3, 5, 10)), (4, (4, 11))),
    ]
    assert fusions(6)[5:] == [
        *((1, (1, 9, 10)), (2, (2, 8, 11)), (3, (3, 7, 12)), (4, (4, 6, 13)), (5, (5, 14))),
    ]


@pytest.mark.parametrize(
    ("kernel", "size", "first"), [(3, 8, 0), (3, 7, -1), (5, 8, -1), (5, 7, -2)]
)
def test_an_odd_pixel_of_padding_is_at_the_end(kernel, size, first) -> None:
    conv = SameConv(1, 1, kernel, 2, bias=False)
    conv.requires_grad_(False).weight.fill_(1.0)
    out = conv(torch.arange(float(size)).expand(1, 1, size, size))
    row = [i for i in range(first, first + kernel) if 0 <= i < size]
    rows = len([i for i in range(first, first + kernel) if 0 <= i < size])
    assert out.shape[2:] == (-(-size // 2),) * 2
    assert float(out[0, 0, 0, 0]) == rows * sum(row)


def test_levels_are_pooled_and_enlarged_as_in_tensorflow() -> None:
    x = -torch.arange(1.0, 7.0).expand(1, 1, 6, 6)  # below zero: padding must never win
    assert resized(x, (3, 3), True)[0, 0, 0].tolist() == [-1, -3, -5]
    assert resized(x, (3, 3), False)[0, 0, 0].tolist() == [-1, -2, -4]
    odd = -torch.arange(1.0, 6.0).expand(1, 1, 5, 5)
    for same in (True, False):
        assert resized(odd, (3, 3), same)[0, 0, 0].tolist() == [-1, -2, -4]
    three = torch.arange(3.0).expand(1, 1, 3, 3)
    assert resized(three, (5, 5), True)[0, 0, 0].tolist() == [0, 0, 1, 1, 2]
    assert resized(three[:, :, :1], (1, 6), True)[0, 0].tolist() == [[0, 0, 1, 1, 2, 2]]


def test_a_level_of_one_row_or_column_changes_along_the_other_axis_alone() -> None:
    line = -torch.arange(1.0, 7.0)
    three = torch.arange(3.0)
    for shape, small, large in (((1, 1, 6, 1), (3, 1), (6, 1)), ((1, 1, 1, 6), (1, 3), (1, 6))):
        assert resized(line.reshape(shape), small, True).flatten().tolist() == [-1, -3, -5]
        assert resized(line.reshape(shape), small, False).flatten().tolist() == [-1, -2, -4]
        up = resized(three.reshape(1, 1, *small), large, True)
        assert up.shape == shape
        assert up.flatten().tolist() == [0, 0, 1, 1, 2, 2]
        assert resized(line.reshape(shape), large, True).flatten().tolist() == line.tolist()
