"""Students of a detector: its architecture changed, its weights inherited.

Joint-DetNAS (Yao et al., CVPR 2021) lets a detector's architecture mutate and inherit weights.
Which mutations it makes, and how it chooses, was not to be found: these and their rules are ours.
"""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dyninfer.errors import InputError
from dyninfer.exporters.morphism.wiring import Channels, Layer, Stage, Wiring
from dyninfer.plain_text import counted, some

StudentT = TypeVar("StudentT", bound="Student")
Places = Mapping[str, Sequence[int]]
"""Of each part of a width, the numbers of channels."""


@dataclass(frozen=True)
class Student(ABC):
    """A detector's weights by the names of its module; every mutation gives another student.

    Blocks of a stage are numbered from 0. Mutations can be derived: gradients reach ``state``.

    Raises:
        InputError: of every mutation: there is no such part, or it cannot be changed so.
    """

    state: Mapping[str, Tensor]

    @cached_property
    @abstractmethod
    def wiring(self) -> Wiring:
        """Which of the weights belong together."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The student as a module in eval mode, whose parameters want no gradients.

        Raises:
            CheckpointError: the weights do not fit together, or one is not finite.
        """

    @staticmethod
    @abstractmethod
    def forward(model: Any, images: Tensor) -> Sequence[Tensor]:
        """Run its module as far as any width takes part in what it makes."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write a checkpoint that ``dyninfer export`` reads."""

    @property
    def stages(self) -> dict[str, int]:
        """The stages, and how many blocks each has."""
        return {name: len(stage.blocks) for name, stage in self.wiring.stages.items()}

    @property
    def widths(self) -> dict[str, int]:
        """What can be thinned and widened, and how many channels each has now."""
        return {
            name: next(iter(parts.values())).width(self.state)
            for name, parts in self.wiring.widths.items()
            if not any(part.grouped for part in parts.values())
        }

    def parts(self, width: str) -> Mapping[str, Channels]:
        """The channels of a width; there may be several such.

        Raises:
            InputError: there is no such width.
        """
        self._width(width)
        return self.wiring.widths[width]

    def trained(self: StudentT, model: nn.Module) -> StudentT:
        """With the weights of its module, which has been trained."""
        state = model.state_dict()
        return replace(self, state={name: state[name].detach().clone() for name in self.state})

    def add(self: StudentT, stage: str, after: int) -> StudentT:
        """Another block behind one, which changes nothing until it is trained.

        It has that block's widths and, where they fit, its weights; its last norm is switched off.
        Where that block has a projection, the first convolution is drawn anew.
        """
        place = self._stage(stage, after)
        block, own = place.blocks[after], f"{place.prefix}.{after}."
        first, last = block.layers[0], block.layers[-1]
        if f"{last.norm}.weight" not in self.state:
            raise InputError(f"{last.norm}.weight is missing: without a norm nothing switches off")
        left = tuple(f"{name}." for name in _names(block.projection))
        off = {f"{last.norm}.weight", f"{last.norm}.bias"}
        added = {
            name: torch.zeros_like(tensor) if name in off else tensor
            for name, tensor in self.state.items()
            if name.startswith(own) and not name.startswith(left)
        }
        weight = added[f"{first.conv}.weight"]
        inputs = len(self.state[f"{last.conv}.weight"]) // first.groups
        if weight.shape[1] != inputs:
            if first.groups > 1:
                raise InputError(
                    f"block {after} of {stage} starts with a convolution in groups that cannot "
                    "read what the block gives on: add one behind another block"
                )
            added[f"{first.conv}.weight"] = _drawn((len(weight), inputs, *weight.shape[2:]))
        state = self._renumbered(place, lambda index: index + (index > after))
        new = f"{place.prefix}.{after + 1}."
        moved = {new + name.removeprefix(own): tensor for name, tensor in added.items()}
        return replace(self, state=state | moved)

    def drop(self: StudentT, stage: str, block: int) -> StudentT:
        """Without a block, which may not be one that changes size or channels, as the first."""
        place = self._stage(stage, block)
        if block == 0 or place.blocks[block].projection is not None:
            raise InputError(
                f"block {block} of {stage} brings what follows its size and channels: drop another"
            )
        state = self._renumbered(
            place, lambda index: None if index == block else index - (index > block)
        )
        return replace(self, state=state)

    def move(self: StudentT, stage: str, block: int, to: str, after: int) -> StudentT:
        """A block dropped from one stage, and one added to another, or elsewhere in the same."""
        return self.drop(stage, block).add(to, after)

    def thin(self: StudentT, width: str, keep: Places) -> StudentT:
        """With some alone of the channels of a width, as many of each part."""
        self._check(width, keep)
        if any(not channels or len(set(channels)) < len(channels) for channels in keep.values()):
            raise InputError(f"channels of {width} are to stay, expected some, each once")
        return self._chosen(width, keep)

    def widen(self: StudentT, width: str, copies: Places) -> StudentT:
        """With further channels of a width, as many of each part.

        Each is a copy of one that is there; what reads them takes a share from each, so that
        nothing changes but by rounding.
        """
        there = range(self._check(width, copies))
        return self._chosen(width, {part: [*there, *more] for part, more in copies.items()})

    def importance(self, width: str, *, by_norm: bool = False) -> dict[str, Tensor]:
        """How much each channel of a width counts, (channels,) for each of its parts.

        The sum of the absolute weights that make it, or of its absolute factors in batch norms.

        Raises:
            InputError: there is no such width, or a part has no batch norm.
        """
        found = {}
        for part, channels in self.parts(width).items():
            names = [maker.norm if by_norm else maker.conv for maker in channels.makers]
            if None in names:
                raise InputError(f"{part} has no batch norm whose factors could tell")
            sizes = [self.state[f"{name}.weight"].abs() for name in names]
            found[part] = torch.stack([each.reshape(len(each), -1).sum(1) for each in sizes]).sum(0)
        return found

    def most_important(
        self, width: str, count: int, scores: Mapping[str, Tensor] | None = None
    ) -> dict[str, list[int]]:
        """Of each part of a width, the ``count`` channels of the largest scores, in their order.

        ``scores`` are those of :meth:`importance` where none are given.
        """
        scores = self.importance(width) if scores is None else scores
        most = self._width(width)
        if not 1 <= count <= most:
            raise InputError(f"{count} channels of {width} are to be chosen, expected 1 to {most}")
        return {
            part: sorted(each.argsort(descending=True, stable=True)[:count].tolist())
            for part, each in scores.items()
        }

    def _chosen(self: StudentT, width: str, places: Places) -> StudentT:
        state = dict(self.state)
        for part, channels in self.wiring.widths[width].items():
            chosen = torch.tensor(places[part])
            shares = 1 / torch.bincount(chosen)[chosen]
            state |= channels.chosen(state, chosen, shares if shares.min() < 1 else None)
        return replace(self, state=state)

    def _stage(self, name: str, block: int) -> Stage:
        """A stage that has this block."""
        if not self.wiring.stages:
            raise InputError(
                "no block can be added or dropped here: no shortcut leads around any, so that "
                "nothing would be left of what the others have learnt"
            )
        if name not in self.wiring.stages:
            raise InputError(f"the stage is {name!r}, expected {' or '.join(self.wiring.stages)}")
        stage = self.wiring.stages[name]
        if not 0 <= block < len(stage.blocks):
            raise InputError(
                f"the block is {block}, but {name} has {counted(len(stage.blocks), 'block')}: "
                f"expected 0 to {len(stage.blocks) - 1}"
            )
        return stage

    def _width(self, name: str) -> int:
        if name not in (widths := self.widths):
            raise InputError(
                f"the width is {name!r}, expected one of {some(list(widths))}; convolutions in "
                "groups keep their channels"
            )
        return widths[name]

    def _check(self, width: str, places: Places) -> int:
        """How many channels each part has; refuses those that are not there.

        Raises:
            InputError: or parts lack, or would have another number than others.
        """
        most, parts = self._width(width), list(self.wiring.widths[width])
        if sorted(places) != sorted(parts):
            raise InputError(
                f"channels of {some(list(places)) or 'no part'} were given for {width}, expected "
                f"of {some(parts)}"
            )
        for part, channels in places.items():
            if not all(0 <= each < most for each in channels):
                raise InputError(
                    f"channels of {part} are {some(list(map(str, channels)))}, expected some from "
                    f"0 to {most - 1}"
                )
        counts = [len(channels) for channels in places.values()]
        if len(set(counts)) > 1:
            raise InputError(
                f"{some(list(map(str, counts)))} channels were given for the parts of {width}, "
                "expected as many for each"
            )
        return most

    def _renumbered(self, stage: Stage, number: Callable[[int], int | None]) -> dict[str, Tensor]:
        """The weights with a stage's blocks under other numbers; None leaves one out."""
        pattern = re.compile(rf"({re.escape(stage.prefix)}\.)(\d+)(\..*)")
        state = {}
        for name, tensor in self.state.items():
            if match := pattern.fullmatch(name):
                index = number(int(match[2]))
                if index is None:
                    continue
                name = f"{match[1]}{index}{match[3]}"
            state[name] = tensor
        return state


def write_checkpoint(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as trainings do, whole or not at all.

    Raises:
        InputError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise InputError(
            f"{path} cannot be written: there is no folder {path.parent}; make it first"
        )
    named = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        torch.save({"state_dict": named}, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _names(layer: Layer | None) -> tuple[str, ...]:
    """Of the parts of a layer."""
    return () if layer is None else tuple(name for name in (layer.conv, layer.norm) if name)


def _drawn(shape: tuple[int, ...]) -> Tensor:
    """Weights for what a ReLU follows, always the same."""
    spread = math.sqrt(2 / math.prod(shape[1:]))
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * spread
