"""Which weights make, add up and read the same channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Layer:
    """A convolution by the name of its parameters, and the batch norm behind it."""

    conv: str
    norm: str | None = None
    groups: int = 1


@dataclass(frozen=True)
class Slice:
    """Where channels stand in a tensor: all of them at each of ``starts`` along an axis."""

    name: str
    axis: int
    starts: tuple[int, ...] = (0,)
    reads: bool = False

    def chosen(self, tensor: Tensor, width: int, places: Tensor, shares: Tensor | None) -> Tensor:
        """The tensor with the channels of these places of ``width``, its others as they are."""
        parts, end = [], 0
        for start in self.starts:
            parts += [tensor.narrow(self.axis, end, start - end)] if start > end else []
            block = tensor.narrow(self.axis, start, width).index_select(self.axis, places)
            if self.reads and shares is not None:
                block = block * shares.reshape(-1, *[1] * (tensor.dim() - self.axis - 1))
            parts.append(block)
            end = start + width
        rest = tensor.shape[self.axis] - end
        parts += [tensor.narrow(self.axis, end, rest)] if rest else []
        return torch.cat(parts, self.axis) if len(parts) > 1 else parts[0]


@dataclass
class Channels:
    """Channels that several layers make and add up, and what reads them: one for all of these.

    ``further`` are where else they stand, but for these layers' own parameters.
    """

    makers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)
    further: list[Slice] = field(default_factory=list)

    @property
    def grouped(self) -> bool:
        """Whether a convolution in groups is among them, whose channels cannot be chosen."""
        return any(layer.groups > 1 for layer in (*self.makers, *self.readers))

    def width(self, state: Mapping[str, Tensor]) -> int:
        """How many there are."""
        return len(state[f"{self.makers[0].conv}.weight"])

    def slices(self) -> Iterator[Slice]:
        """Where they stand; norms and biases may be missing."""
        for maker in self.makers:
            yield Slice(f"{maker.conv}.weight", 0)
            yield Slice(f"{maker.conv}.bias", 0)
            yield from (Slice(f"{maker.norm}.{part}", 0) for part in NORM)
        yield from (Slice(f"{reader.conv}.weight", 1, reads=True) for reader in self.readers)
        yield from self.further

    def chosen(
        self, state: Mapping[str, Tensor], places: Tensor, shares: Tensor | None = None
    ) -> dict[str, Tensor]:
        """What changes where the channels of these places are left, of which readers take shares.

        A convolution may both make and read them.
        """
        width, changed = self.width(state), dict[str, Tensor]()
        for each in self.slices():
            if each.name in state:
                tensor = changed.get(each.name, state[each.name])
                changed[each.name] = each.chosen(tensor, width, places, shares)
        return changed

    def silenced(self, state: Mapping[str, Tensor], channels: Sequence[int]) -> dict[str, Tensor]:
        """What changes where all that makes these channels gives zeros."""
        changed = dict[str, Tensor]()
        for each in self.slices():
            if each.name in state and not each.reads and "running" not in each.name:
                places = [start + channel for start in each.starts for channel in channels]
                tensor = changed.get(each.name, state[each.name])
                index = torch.tensor(places, dtype=torch.int64)
                changed[each.name] = tensor.index_fill(each.axis, index, 0)
        return changed


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
