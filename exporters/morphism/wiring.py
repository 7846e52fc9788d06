"""Which weights make, add up and read the same channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

_NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Layer:
    """A convolution by the name of its parameters, and the batch norm behind it."""

    conv: str
    norm: str | None = None
    groups: int = 1


@dataclass
class Channels:
    """Channels that several layers make and add up, and what reads them: one for all of these."""

    makers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)

    @property
    def grouped(self) -> bool:
        """Whether a convolution in groups is among them, whose channels cannot be chosen."""
        return any(layer.groups > 1 for layer in (*self.makers, *self.readers))

    def width(self, state: Mapping[str, Tensor]) -> int:
        """How many there are."""
        return len(state[f"{self.makers[0].conv}.weight"])

    def chosen(
        self, state: dict[str, Tensor], places: Tensor, shares: Tensor | None = None
    ) -> None:
        """Leave the channels of these places in ``state``, of each the share that readers take."""
        for maker in self.makers:
            parts = [f"{maker.conv}.weight", f"{maker.conv}.bias"]
            parts += [f"{maker.norm}.{part}" for part in _NORM]
            for name in parts:
                if name in state:
                    state[name] = state[name].index_select(0, places)
        for reader in self.readers:
            weight = state[f"{reader.conv}.weight"].index_select(1, places)
            if shares is not None:
                weight = weight * shares.reshape(1, -1, 1, 1)
            state[f"{reader.conv}.weight"] = weight


@dataclass(frozen=True)
class Residual:
    """A residual block: layers in a row beside a shortcut, which ``projection`` is in, if any."""

    layers: tuple[Layer, ...]
    projection: Layer | None = None


@dataclass(frozen=True)
class Stage:
    """Blocks in a row, whose parameters are named ``prefix``.0, ``prefix``.1 and so on.

    ``lateral`` reads what the last one makes, for a pyramid.
    """

    name: str
    prefix: str
    blocks: tuple[Residual, ...]
    lateral: Layer | None = None


@dataclass(frozen=True)
class Wiring:
    """Of a detector: its stages, and its widths by name.

    A width is the number of channels of all its parts; each part has channels of its own.
    """

    stages: Mapping[str, Stage]
    widths: Mapping[str, Mapping[str, Channels]]


def inner_channels(stage: Stage) -> dict[str, Channels]:
    """Between two layers of a block, by ``{stage}.{block}.conv{number}``."""
    return {
        f"{stage.name}.{index}.conv{number}": Channels([maker], [reader])
        for index, block in enumerate(stage.blocks)
        for number, (maker, reader) in enumerate(pairwise(block.layers), 1)
    }


def added_channels(name: str, stem: Layer, stages: Sequence[Stage]) -> dict[str, Channels]:
    """What stem and blocks add up, by the name of the stem or of the stage.

    A shortcut without a projection adds up what came before: both then are the same channels.
    """
    current = Channels([stem])
    found = {name: current}
    for stage in stages:
        for index, block in enumerate(stage.blocks):
            current.readers.append(block.layers[0])
            if block.projection is not None:
                current.readers.append(block.projection)
                current = Channels([block.projection])
                found[f"{stage.name}.{index}" if index else stage.name] = current
            current.makers.append(block.layers[-1])
        if stage.lateral is not None:
            current.readers.append(stage.lateral)
    return found
