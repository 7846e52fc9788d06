"""Students of a detector: its architecture changed, its weights inherited.

Joint-DetNAS (Yao et al., CVPR 2021) lets a detector's architecture mutate and inherit weights.
Which mutations it makes, and how it chooses, was not to be found: these and their rules are ours.
Stages are numbered from 1 (C2) to 4 (C5) as ``layer1`` to ``layer4``, blocks from 0, a block's
convolutions from 1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dyninfer.errors import CheckpointError, InputError
from dyninfer.exporters.faster_rcnn.checkpoint import model_of, read_state
from dyninfer.exporters.faster_rcnn.model import FasterRCNN
from dyninfer.exporters.faster_rcnn.names import Library, library_of, own_names
from dyninfer.exporters.faster_rcnn.structure import Block, Structure, read_structure
from dyninfer.plain_text import counted

_NORM = ("weight", "bias", "running_mean", "running_var")
_BACKBONE = {Library.TORCHVISION: "backbone.body.", Library.MMDETECTION: "backbone."}


@dataclass(frozen=True)
class Student:
    """A detector's weights, by the names here; every mutation gives another student.

    ``names`` are the library's for what is not of the backbone.

    Raises:
        InputError: of every mutation: there is no such part, or it cannot be changed so.
    """

    state: Mapping[str, Tensor]
    library: Library
    names: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> Student:
        """The student that changes nothing.

        Raises:
            CheckpointError: the file cannot be read safely, or its weights do not fit together.
        """
        named, _ = read_state(path)
        library = library_of(named)
        own = own_names(named, library)
        state = {own[name]: tensor for name, tensor in named.items()}
        try:
            model_of(state)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        return cls(state, library, {own[name]: name for name in named})

    def save(self, path: Path) -> None:
        """Write a checkpoint in the library's names, as ``export faster-rcnn`` reads it."""
        prefix = _BACKBONE[self.library]
        named = {
            prefix + name.removeprefix("backbone.")
            if name.startswith("backbone.")
            else self.names[name]: tensor.contiguous().clone()
            for name, tensor in self.state.items()
        }
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            torch.save({"state_dict": named}, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @property
    def structure(self) -> Structure:
        """What it is made of."""
        return read_structure({name: tuple(tensor.shape) for name, tensor in self.state.items()})

    def model(self, *, stride_first: bool = False) -> FasterRCNN:
        """The student as a module."""
        return model_of(dict(self.state), stride_first=stride_first)

    def add(self, stage: int, after: int) -> Student:
        """Another block behind one, which changes nothing until it is trained.

        It has that block's widths and, where they fit, its weights; its last norm is switched off.
        Behind a projecting block the first convolution is drawn anew.
        """
        block = self._block(stage, after)
        own = f"backbone.layer{stage}.{after}."
        last = f"bn{len(block.convs)}."
        if f"{own}{last}weight" not in self.state:
            raise InputError(f"{own}{last}weight is missing: without a norm nothing switches off")
        added: dict[str, Tensor] = {}
        for name, tensor in self._of_block(stage, after).items():
            if not name.startswith("downsample."):
                off = name in (f"{last}weight", f"{last}bias")
                added[name] = torch.zeros_like(tensor) if off else tensor
        first, inputs = added["conv1.weight"], block.outputs // block.convs[0].groups
        if first.shape[1] != inputs:
            shape = (len(first), inputs, *first.shape[2:])
            spread = (2 / (inputs * first[0, 0].numel())) ** 0.5
            generator = torch.Generator().manual_seed(0)
            added["conv1.weight"] = torch.randn(shape, generator=generator) * spread
        state = self._renumbered(stage, lambda index: index + (index > after))
        place = f"backbone.layer{stage}.{after + 1}."
        return replace(self, state=state | {place + name: each for name, each in added.items()})

    def drop(self, stage: int, block: int) -> Student:
        """Without a block, which may not be the first: that one changes size and channels."""
        self._block(stage, block)
        if block == 0:
            raise InputError(
                f"block 0 of stage {stage} brings the stage its size and channels: drop another"
            )
        return replace(
            self,
            state=self._renumbered(
                stage, lambda index: None if index == block else index - (index > block)
            ),
        )

    def move(self, stage: int, block: int, to: int, after: int) -> Student:
        """A block dropped from one stage, and one added to another, or elsewhere in the same."""
        return self.drop(stage, block).add(to, after)

    def thin(self, stage: int, block: int, conv: int, keep: Sequence[int]) -> Student:
        """With some alone of the channels between a convolution of a block and the next."""
        places = _checked(keep, self._width(stage, block, conv))
        return self._chosen(stage, block, conv, places, None)

    def widen(self, stage: int, block: int, conv: int, copies: Sequence[int]) -> Student:
        """With further channels between a convolution of a block and the next.

        Each is a copy of one that is there; what reads them takes a share from each, so that
        nothing changes but by rounding.
        """
        width = self._width(stage, block, conv)
        if any(not 0 <= each < width for each in copies):
            raise InputError(f"copies are {list(copies)}, expected channels from 0 to {width - 1}")
        places = torch.tensor([*range(width), *copies])
        shares = 1 / torch.bincount(places, minlength=width)
        return self._chosen(stage, block, conv, places, shares[places])

    def thin_stage(self, stage: int, keep: Sequence[int]) -> Student:
        """With some alone of the channels that a stage's blocks add up, and all that read them."""
        structure, state = self.structure, dict(self.state)
        blocks = self._blocks(stage)
        places = _checked(keep, blocks[0].outputs)
        prefix = f"backbone.layer{stage}."
        for index, block in enumerate(blocks):
            own, last = f"{prefix}{index}.", len(block.convs)
            _ungrouped(block, f"block {index} of stage {stage}")
            _slice_outputs(state, f"{own}conv{last}", f"{own}bn{last}", places)
            if block.projection is not None:
                _slice_outputs(state, f"{own}downsample.0", f"{own}downsample.1", places)
            if index:
                _slice_inputs(state, f"{own}conv1", places)
        if stage < len(structure.stages):
            following = f"backbone.layer{stage + 1}.0."
            _ungrouped(structure.stages[stage][0], f"block 0 of stage {stage + 1}")
            _slice_inputs(state, f"{following}conv1", places)
            _slice_inputs(state, f"{following}downsample.0", places)
        _slice_inputs(state, f"neck.lateral_convs.{stage - 1}.conv", places)
        return replace(self, state=state)

    def importance(self, stage: int, block: int, conv: int, *, by_norm: bool = False) -> Tensor:
        """How much each channel behind a convolution counts, (channels,).

        The sum of its filter's absolute weights, or the absolute factor of its batch norm.
        """
        width = self._width(stage, block, conv)
        own = f"backbone.layer{stage}.{block}."
        weight = self.state[f"{own}bn{conv}.weight" if by_norm else f"{own}conv{conv}.weight"]
        return weight.reshape(width, -1).abs().sum(1)

    def _chosen(
        self, stage: int, block: int, conv: int, places: Tensor, shares: Tensor | None
    ) -> Student:
        """With the channels of these places between two convolutions."""
        _ungrouped(self._block(stage, block), f"block {block} of stage {stage}")
        state, own = dict(self.state), f"backbone.layer{stage}.{block}."
        _slice_outputs(state, f"{own}conv{conv}", f"{own}bn{conv}", places)
        _slice_inputs(state, f"{own}conv{conv + 1}", places, shares)
        return replace(self, state=state)

    def _blocks(self, stage: int) -> tuple[Block, ...]:
        stages = self.structure.stages
        if not 1 <= stage <= len(stages):
            raise InputError(f"the stage is {stage}, expected 1 to {len(stages)}")
        return stages[stage - 1]

    def _block(self, stage: int, index: int) -> Block:
        blocks = self._blocks(stage)
        if not 0 <= index < len(blocks):
            raise InputError(
                f"the block is {index}, but stage {stage} has {counted(len(blocks), 'block')}: "
                f"expected 0 to {len(blocks) - 1}"
            )
        return blocks[index]

    def _width(self, stage: int, block: int, conv: int) -> int:
        convs = self._block(stage, block).convs
        if not 1 <= conv < len(convs):
            raise InputError(
                f"the convolution is {conv}, expected 1 to {len(convs) - 1}: what the last makes "
                "is added up over the stage, whose channels thin_stage chooses"
            )
        return convs[conv - 1].outputs

    def _of_block(self, stage: int, index: int) -> dict[str, Tensor]:
        prefix = f"backbone.layer{stage}.{index}."
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.state.items()
            if name.startswith(prefix)
        }

    def _renumbered(self, stage: int, number: Callable[[int], int | None]) -> dict[str, Tensor]:
        """The weights with a stage's blocks under other numbers; None leaves one out."""
        pattern, state = re.compile(rf"(backbone\.layer{stage}\.)(\d+)(\..*)"), {}
        for name, tensor in self.state.items():
            if match := pattern.fullmatch(name):
                index = number(int(match[2]))
                if index is None:
                    continue
                name = f"{match[1]}{index}{match[3]}"
            state[name] = tensor
        return state


def most_important(importance: Tensor, count: int) -> list[int]:
    """The places of the ``count`` largest, in their order."""
    if not 1 <= count <= len(importance):
        raise InputError(f"{count} channels are to stay, expected 1 to {len(importance)}")
    return sorted(importance.argsort(descending=True, stable=True)[:count].tolist())


def _checked(keep: Sequence[int], width: int) -> Tensor:
    if not keep or len(set(keep)) < len(keep) or not all(0 <= each < width for each in keep):
        raise InputError(
            f"channels to keep are {list(keep)[:8]}{', ...' if len(keep) > 8 else ''}, expected "
            f"some from 0 to {width - 1}, each once"
        )
    return torch.tensor(keep)


def _ungrouped(block: Block, name: str) -> None:
    if any(conv.groups > 1 for conv in block.convs):
        raise InputError(f"{name} has convolutions in groups, whose channels cannot be chosen")


def _slice_outputs(state: dict[str, Tensor], conv: str, norm: str, places: Tensor) -> None:
    for name in (f"{conv}.weight", f"{conv}.bias", *(f"{norm}.{part}" for part in _NORM)):
        if name in state:
            state[name] = state[name].index_select(0, places)


def _slice_inputs(
    state: dict[str, Tensor], conv: str, places: Tensor, shares: Tensor | None = None
) -> None:
    weight = state[f"{conv}.weight"].index_select(1, places)
    state[f"{conv}.weight"] = weight if shares is None else weight * shares.reshape(1, -1, 1, 1)
