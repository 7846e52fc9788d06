"""Full-size models without their memory: on PyTorch's meta device only shapes exist."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dyninfer.exporters.efficientdet.anchors import level_sizes, make_anchors
from dyninfer.exporters.efficientdet.config import PUBLISHED
from dyninfer.exporters.efficientdet.cost import PARTS, cost_of
from dyninfer.exporters.efficientdet.model import EfficientDet
from dyninfer.exporters.efficientdet.scaling import ideal
from dyninfer.exporters.efficientdet.structure import read_structure
from tests.exporters.efficientdet.narrow import narrow

# parameters in total, of backbone, pyramid, class and box head; anchors; state keys; buffers
COUNTS = {
    "tf_efficientdet_d0": (3_880_067, 3_595_388, 196_281, 69_354, 19_044, 49_104, 784, 47_244),
    "tf_efficientdet_d1": (6_625_898, 6_101_024, 390_972, 101_394, 32_508, 76_725, 1004, 71_592),
    "tf_efficientdet_d2": (8_097_039, 7_202_562, 708_159, 136_890, 49_428, 110_484, 1076, 81_920),
    "tf_efficientdet_d3": (
        *(12_032_296, 10_103_336, 1_559_474, 247_050, 122_436, 150_381, 1270, 114_475),
    ),
    "tf_efficientdet_d4": (
        *(20_723_675, 16_742_216, 3_349_829, 402_890, 228_740, 196_416, 1474, 167_509),
    ),
    "tf_efficientdet_d5": (
        *(33_653_315, 27_288_112, 5_405_893, 591_498, 367_812, 306_900, 1622, 227_609),
    ),
    "tf_efficientdet_d6": (
        *(51_871_782, 39_403_992, 10_583_808, 1_090_986, 792_996, 306_900, 1818, 312_237),
    ),
    "tf_efficientdet_d7": (
        *(51_871_782, 39_403_992, 10_583_808, 1_090_986, 792_996, 441_936, 1818, 312_237),
    ),
    "tf_efficientdet_d7x": (
        *(77_147_166, 62_143_440, 13_112_064, 1_094_826, 796_836, 442_260, 2210, 418_036),
    ),
}
# giga multiply-accumulates in total, of backbone, pyramid, class and box head
MACS = {
    "tf_efficientdet_d0": (2.492, 1.901, 0.136, 0.362, 0.092),
    "tf_efficientdet_d1": (6.003, 4.468, 0.451, 0.833, 0.252),
    "tf_efficientdet_d2": (10.832, 7.430, 1.216, 1.625, 0.561),
    "tf_efficientdet_d3": (24.569, 14.888, 3.756, 3.997, 1.928),
    "tf_efficientdet_d4": (54.584, 30.503, 10.745, 8.560, 4.776),
    "tf_efficientdet_d5": (134.134, 75.039, 27.275, 19.710, 12.109),
    "tf_efficientdet_d6": (224.121, 107.284, 54.063, 36.455, 26.320),
    "tf_efficientdet_d7": (322.732, 154.486, 77.850, 52.495, 37.900),
    "tf_efficientdet_d7x": (407.628, 238.646, 78.520, 52.533, 37.928),
}


def full_size(name: str) -> EfficientDet:
    with torch.device("meta"):
        return EfficientDet(PUBLISHED[name].scaled.structure()).eval()


@pytest.mark.parametrize("name", COUNTS)
def test_published_models_have_exactly_their_parameters_and_cost(name) -> None:
    total, *parts, anchors, keys, buffers = COUNTS[name]
    published, model = PUBLISHED[name], full_size(name)
    cost = cost_of(published.scaled)
    assert cost.parameters == dict(zip(PARTS, parts, strict=True))
    assert cost.total_parameters == total
    assert len(model.state_dict()) == keys
    assert sum(b.numel() for b in model.buffers()) == buffers
    giga, *by_part = MACS[name]
    assert cost.total_macs / 1e9 == pytest.approx(giga, rel=1e-3)
    assert [m / 1e9 for m in cost.macs.values()] == pytest.approx(by_part, abs=6e-4)
    side, levels = published.scaled.image_size, published.scaled.levels
    made = make_anchors((side, side), levels, published.anchor_scale)
    assert len(made) == anchors
    assert 9 * sum(h * w for h, w in level_sizes((side, side), levels)) == anchors


def test_native_and_lite_models_have_exactly_their_parameters() -> None:
    native, lite = full_size("efficientdet_d0"), full_size("tf_efficientdet_lite0")
    for model, parameters, keys, anchors in (
        (native, 3_877_763, 748, 49_104),
        (lite, 3_243_470, 696, 19_206),
    ):
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert len(model.state_dict()) == keys
        assert sum(b.numel() for b in model.buffers()) == 47_244
        side = 512 if model is native else 320
        assert len(make_anchors((side, side), 5, 4.0)) == anchors


@pytest.mark.parametrize(
    ("size", "million"),
    [("lite1", 4.25), ("lite2", 5.25), ("lite3", 8.35), ("lite3x", 9.28), ("lite4", 15.13)],
)
def test_lite_models_keep_their_ends_whatever_their_size(size, million) -> None:
    """Millions of parameters as the published table of these weights has them."""
    model = full_size(f"tf_efficientdet_{size}")
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(million, abs=6e-3)
    assert model.structure.stem == 32
    assert (len(model.structure.stages[0]), len(model.structure.stages[-1])) == (1, 1)


@pytest.mark.parametrize(
    "structure",
    [
        *(published.scaled.structure(7) for published in PUBLISHED.values()),
        *(narrow(), narrow(native=True), narrow(lite=True), narrow(level_first=True, repeats=3)),
        *(narrow(levels=6, cells=1), narrow(channels=32, weighted=False)),
    ],
    ids=str,
)
def test_structures_are_read_back_from_names_and_shapes(structure) -> None:
    with torch.device("meta"):
        state = EfficientDet(structure).state_dict()
    assert read_structure({name: tuple(t.shape) for name, t in state.items()}) == structure


def test_the_first_and_the_last_anchors_of_d0() -> None:
    anchors = make_anchors((512, 512), 5, 4.0)
    golden = [
        *([-12, -12, 20, 20], [-7.2, -18.4, 15.2, 26.4], [-18.4, -7.2, 26.4, 15.2]),
        [-16.1587, -16.1587, 24.1587, 24.1587],
    ]
    np.testing.assert_allclose(anchors[:4], golden, atol=1e-4)
    np.testing.assert_allclose(anchors[-9], [192, 192, 704, 704], atol=1e-4)


def test_shapes_of_anchors_are_pairs_or_ratios() -> None:
    (pair,) = make_anchors((8, 8), 1, 4.0, 1, [(1.4, 0.7)])
    (ratio,) = make_anchors((8, 8), 1, 4.0, 1, [2.0])
    np.testing.assert_allclose(pair, [4 - 11.2, 4 - 22.4, 4 + 11.2, 4 + 22.4])
    root = 16 * 2**0.5
    np.testing.assert_allclose(ratio, [4 - root / 2, 4 - root, 4 + root / 2, 4 + root])


def test_strides_are_fractions_where_the_size_is_no_multiple() -> None:
    assert level_sizes((320, 200), 5) == [(40, 25), (20, 13), (10, 7), (5, 4), (3, 2)]
    anchors = make_anchors((320, 200), 5, 3.0)
    first = anchors[-9 * 6]  # of the coarsest level, whose strides are 320 / 3 and 100
    np.testing.assert_allclose(first, [160 / 3 - 160, 50 - 150, 160 / 3 + 160, 50 + 150])


@pytest.mark.parametrize(
    ("phi", "expected"),
    [
        (0, (1.0, 1.0, 512, 64, 3, 3)),
        (1, (1.0, 1.1, 640, 88, 4, 3)),
        (2.5, (1.15, 1.3, 896, 136, 6, 3)),
        (3, (1.2, 1.4, 896, 160, 6, 4)),
        (9, (2.0 * 1.1**2, 3.1 * 1.2**2, 1664, 952, 12, 6)),
    ],
)
def test_the_formulas_scale_any_size(phi, expected) -> None:
    made = ideal(phi)
    found = (made.width, made.depth, made.image_size, made.channels, made.cells, made.repeats)
    assert found == pytest.approx(expected)
    assert made.levels == 5
