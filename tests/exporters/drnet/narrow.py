"""Small DRNets with random weights by PyTorch's names, and what they compute, written out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from dyninfer.exporters.drnet.export import DRNET
from dyninfer.exporters.drnet.options import DRNetOptions

State = dict[str, Tensor]


def random_state(
    sets: int | None,
    *,
    depths: Sequence[int] = (1, 1),
    widths: Sequence[int] = (8, 16),
    bottleneck: int = 0,
    stem: int = 8,
    classes: int = 3,
    seed: int = 0,
    device: str = "cpu",
) -> State:
    """Names as ``layer1.0.bn1.bn.2.weight``, without a number where ``sets`` is None.

    ``bottleneck`` is how many times the last convolution of a block widens; 0 for basic blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def rand(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        if device == "meta":
            return torch.empty(shape, device=device)
        return torch.rand(shape, generator=generator) * (high - low) + low

    def conv(name: str, outputs: int, inputs: int, kernel: int) -> None:
        reach = (6 / (inputs * kernel**2)) ** 0.5
        state[f"{name}.weight"] = rand(outputs, inputs, kernel, kernel, low=-reach, high=reach)

    def norm(name: str, channels: int) -> None:
        for part in [""] if sets is None else [f".bn.{index}" for index in range(sets)]:
            state[f"{name}{part}.weight"] = rand(channels, low=0.5, high=1.5)
            state[f"{name}{part}.bias"] = rand(channels, low=-0.3, high=0.3)
            state[f"{name}{part}.running_mean"] = rand(channels, low=-0.3, high=0.3)
            state[f"{name}{part}.running_var"] = rand(channels, low=0.5, high=1.5)

    conv("conv1", stem, 3, 7)
    norm("bn1", stem)
    inputs = stem
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        outputs = width * max(1, bottleneck)
        for index in range(depth):
            name = f"layer{stage}.{index}"
            shapes = [(width, inputs, 3), (width, width, 3)]
            if bottleneck:
                shapes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            for number, shape in enumerate(shapes, 1):
                conv(f"{name}.conv{number}", *shape)
                norm(f"{name}.bn{number}", shape[0])
            if inputs != outputs or (stage > 1 and not index):
                conv(f"{name}.downsample.0", outputs, inputs, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    state["fc.weight"], state["fc.bias"] = rand(classes, inputs), rand(classes)
    return state


def resnet(state: State, images: Tensor, chosen: int | None = None, shortcut: int = 0) -> Tensor:
    """Logits of a state by the names of :func:`random_state`, layer by layer."""

    def norm(x: Tensor, name: str, number: int | None) -> Tensor:
        name = name if number is None else f"{name}.bn.{number}"
        values = (state[f"{name}.{v}"] for v in ("running_mean", "running_var", "weight", "bias"))
        mean, var, weight, bias = (v.reshape(1, -1, 1, 1) for v in values)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = norm(F.conv2d(images, state["conv1.weight"], stride=2, padding=3), "bn1", chosen).relu()
    x = F.max_pool2d(F.pad(x, [1] * 4), 3, 2)
    blocks = sorted({name.rpartition(".conv1")[0] for name in state if ".conv1." in name})
    for block in blocks:
        first, y = not block.startswith("layer1.") and block.endswith(".0"), x
        numbers = [n for n in (1, 2, 3) if f"{block}.conv{n}.weight" in state]
        for number in numbers:
            weight = state[f"{block}.conv{number}.weight"]
            stride = 2 if first and number == len(numbers) - 1 else 1
            y = F.conv2d(y, weight, stride=stride, padding=weight.shape[2] // 2)
            y = norm(y, f"{block}.bn{number}", chosen)
            y = y.relu() if number < len(numbers) else y
        if f"{block}.downsample.0.weight" in state:
            x = F.conv2d(x, state[f"{block}.downsample.0.weight"], stride=2 if first else 1)
            x = norm(x, f"{block}.downsample.1", None if chosen is None else shortcut)
        x = (x + y).relu()
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def write_pair(folder: Path, predictor: State, classifier: State) -> tuple[Path, Path]:
    """The two checkpoints."""
    paths = folder / "predictor.pt", folder / "classifier.pt"
    for path, state in zip(paths, (predictor, classifier), strict=True):
        torch.save(state, path)
    return paths


def write_by_colour(path: Path) -> Path:
    """A bundle for one-coloured pictures: the class is the channel that is brightest.

    Branch 0, at 64 pixels, is for those of a red above 120; branch 1, at 32, for the others.
    """
    pair = [random_state(sets, depths=(1,), widths=(3,), stem=3) for sets in (None, 2)]
    for state in pair:
        for name, value in state.items():
            value.fill_(float(name.endswith(("var", "weight")) and value.ndim == 1))
            if name.startswith("bn1") and name.endswith("bias"):
                value.fill_(3.0)  # no normalised colour is below -3
        state["conv1.weight"][range(3), range(3), 3, 3] = 1
        state["fc.weight"].fill_diagonal_(1)
    predictor, classifier = pair
    predictor["fc.weight"], predictor["fc.bias"] = torch.eye(2, 3), torch.tensor([0.0, 2.937])
    predictor["fc.weight"][1] = 0
    names = path.with_suffix(".txt")
    names.write_text("red\ngreen\nblue\n")
    options = DRNetOptions((64, 32), (64, 64), predictor_size=32, class_names=names)
    DRNET.export(write_pair(path.parent, predictor, classifier), path, options, lambda _: None)
    return path
