from __future__ import annotations

import pytest

from dyninfer.errors import InputError
from dyninfer.search.cost import cost_of
from dyninfer.search.space import START
from dyninfer.search.structure import Block, Structure
from tests.dyninfer.search.structures import LARGE, MEDIUM, RESNET_50, SMALL

# parameters; multiply-accumulates at 800x1280, 640 and 480; flops at 480; layers
COSTS = {
    "small": (21_233_120, 48_372_224_000, 19_348_889_600, 10_883_750_400, 10_992_870_000, 79),
    "medium": (25_843_536, 89_316_864_000, 35_726_745_600, 20_096_294_400, 20_299_923_000, 91),
    "large": (43_879_552, 152_080_288_000, 60_832_115_200, 34_218_064_800, 34_494_619_500, 109),
}


@pytest.mark.parametrize(
    ("name", "structure"), [("small", SMALL), ("medium", MEDIUM), ("large", LARGE)], ids=COSTS
)
def test_published_structures(name: str, structure: Structure) -> None:
    parameters, large, middle, small, flops, layers = COSTS[name]
    cost = cost_of(structure, (480, 480))
    assert (cost.parameters, cost.macs, cost.flops, cost.layers) == (
        parameters,
        small,
        flops,
        layers,
    )
    assert cost_of(structure, (800, 1280)).macs == large
    assert cost_of(structure, (640, 640)).macs == middle


def test_the_start_network_and_resnet_50() -> None:
    start = cost_of(START, (480, 480))
    assert (start.parameters, start.flops, start.layers) == (9_639_584, 7_745_241_600, 16)
    assert cost_of(RESNET_50, (480, 480)).parameters == 23_508_032


def test_by_hand_at_one_tile() -> None:
    """A bottleneck of stride 1 with groups, whose shortcut is projected and not pooled."""
    blocks = (Block(3, 8, 3, 2), *(Block(8, 8, 3, 2, 1, 8) for _ in range(4)))
    extra = Block(8, 8, 3, 1, 1, 4, groups=2)
    with_extra = Structure((*blocks, extra))
    before, after = (cost_of(each, (32, 32)) for each in (Structure(blocks), with_extra))
    weights = 8 * 4 + 4 * 4 * 9 // 2 + 4 * 8 + 8 * 8
    channels = 4 + 4 + 8 + 8
    assert after.parameters - before.parameters == weights + 2 * channels
    assert after.macs - before.macs == weights  # at one place
    assert after.flops - before.flops == weights + 3 * channels
    assert after.layers - before.layers == 3


@pytest.mark.parametrize("size", [(500, 480), (480, 48), (0, 32), (-32, 32)])
def test_odd_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"expected multiples of 32.*the nearest is"):
        cost_of(SMALL, size)
