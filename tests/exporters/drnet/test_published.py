"""The published models: parameters and multiply-accumulates, as the paper's networks have them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dyninfer.exporters.drnet.export import DRNET
from dyninfer.exporters.drnet.model import ResNet
from dyninfer.exporters.drnet.options import DRNetOptions
from tests.exporters.drnet.narrow import random_state, write_pair

WIDTHS, DEPTHS = (64, 128, 256, 512), {"50": (3, 4, 6, 3), "101": (3, 4, 23, 3)}
MACS = {
    "50": {
        96: 752_746_496,
        112: 1_077_899_264,
        168: 2_503_027_712,
        192: 3_004_841_984,
        224: 4_089_184_256,
    },
    "101": {
        96: 1_434_583_040,
        112: 2_005_954_560,
        168: 4_794_756_096,
        192: 5_732_188_160,
        224: 7_801_405_440,
    },
}
PREDICTOR = {"depths": (1, 1, 1, 1), "widths": WIDTHS, "stem": 64}


def classifier(depth: str, sets: int, device: str) -> dict[str, Tensor]:
    widths = {"depths": DEPTHS[depth], "widths": WIDTHS, "stem": 64}
    return random_state(sets, **widths, bottleneck=4, classes=1000, device=device)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: ResNet, size: int) -> int:
    """Of convolutions and the linear layer, by what each puts out."""
    found: list[int] = []

    def count(module: nn.Conv2d | nn.Linear, _inputs: object, output: Tensor) -> None:
        found.append(output[0].numel() * module.weight[0].numel())

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    model(torch.empty(1, 3, size, size, device="meta"))
    for hook in hooks:
        hook.remove()
    return sum(found)


@pytest.mark.parametrize(("depth", "count"), [("50", 25_663_272), ("101", 44_759_848)])
def test_classifiers_of_three_sets_are_those_of_the_paper(depth, count) -> None:
    with torch.device("meta"), torch.inference_mode():
        model = ResNet(classifier(depth, 3, "meta"))
        assert parameters(model) == count
        assert {size: macs(model, size) for size in MACS[depth]} == MACS[depth]


def test_the_predictor_is_that_of_the_paper() -> None:
    with torch.device("meta"), torch.inference_mode():
        model = ResNet(random_state(None, **PREDICTOR, device="meta"))
        assert parameters(model) == 4_907_331
        assert macs(model, 128) == 290_194_944
        assert macs(model, 64) == 72_549_888


@pytest.mark.slow
def test_a_bundle_of_full_size_counts_the_same_and_stores_weights_once(tmp_path: Path) -> None:
    states = random_state(None, **PREDICTOR, classes=5), classifier("50", 5, "cpu")
    sources = write_pair(tmp_path, *states)
    made = DRNET.export(sources, tmp_path / "x.dyn", DRNetOptions(), lambda _: None)
    stages = made.manifest.stages
    assert [*stages] == ["predictor", *(f"classifier_{n}" for n in (224, 192, 168, 112, 96))]
    assert stages["predictor"].macs == 290_194_944 + 2 * 512  # of two further scores
    assert stages["predictor"].parameters == 4_907_331 + 2 * 513
    for size, expected in MACS["50"].items():
        stage = stages[f"classifier_{size}"]
        assert (stage.macs, stage.parameters) == (expected, 25_557_032)
    files = (tmp_path / "x.dyn").rglob("*")
    stored = sum(path.stat().st_size for path in files if path.is_file())
    assert stored < 1.1 * 4 * sum(tensor.numel() for state in states for tensor in state.values())
