"""Students of a ZenDet backbone, or of a GFLV2 detector on one.

See :mod:`dyninfer.exporters.morphism.student`. Stages are super blocks, ``block_list.1`` and on:
all bottlenecks of one have the same inner width, ``block_list.1.btn``, but channels of their own.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import InputError
from dyninfer.exporters.morphism.student import Student, write_checkpoint
from dyninfer.exporters.morphism.wiring import (
    Channels,
    Layer,
    Residual,
    Stage,
    Wiring,
    added_channels,
    inner_channels,
)
from dyninfer.exporters.zendet.backbone import Backbone
from dyninfer.exporters.zendet.checkpoint import BODY, is_detector, load_model, model_of
from dyninfer.exporters.zendet.detector import LATERALS, STRIDES
from dyninfer.exporters.zendet.stages import Model
from dyninfer.search.structure import Block, Structure, checked


@dataclass(frozen=True)
class ZenDetStudent(Student):
    """The weights of a backbone or a detector, and its blocks' strides, which they do not tell."""

    strides: tuple[int, ...]

    @classmethod
    def load(cls, path: Path, structure: Structure) -> ZenDetStudent:
        """The student that changes nothing.

        Raises:
            CheckpointError: the file cannot be read safely, or its weights are not of this
                structure.
        """
        return cls.of(load_model(path, structure)[0])

    @classmethod
    def of(cls, model: Model) -> ZenDetStudent:
        """With the weights of a model."""
        backbone = model if isinstance(model, Backbone) else model.backbone["body"]
        assert isinstance(backbone, Backbone)
        strides = tuple(block.stride for block in backbone.structure.blocks)
        return cls({name: each.detach() for name, each in model.state_dict().items()}, strides)

    def save(self, path: Path) -> None:
        """Write a checkpoint, and beside it its structure text, with the suffix ``.txt``.

        Raises:
            InputError: the checkpoint itself has that suffix, or there is no such folder.
        """
        if path.suffix == ".txt":
            raise InputError(
                f"the checkpoint is {path}, expected a name such as {path.with_suffix('.pth')}: "
                "the structure text gets .txt"
            )
        write_checkpoint(self.state, path)
        write_atomically(path.with_suffix(".txt"), self.structure.text)

    @cached_property
    def structure(self) -> Structure:
        """Of its backbone."""
        return checked(
            _block(self.state, f"{self._prefix}block_list.{index}.", stride)
            for index, stride in enumerate(self.strides)
        )

    def model(self) -> Model:
        """The student as a module."""
        return model_of(self.structure, self.state)

    @staticmethod
    def forward(model: Model, images: Tensor) -> Sequence[Tensor]:
        """A backbone's maps, or what the first convolutions of a head make of the pyramid."""
        if isinstance(model, Backbone):
            return model(images)  # type: ignore[no-any-return]  # nn.Module's call is untyped
        head = model.bbox_head
        levels = model.neck(model.backbone["body"](images)[-LATERALS:])
        branches = (head.cls_convs, head.gfl_cls), (head.reg_convs, head.gfl_reg)
        first = [getattr([*convs, last][0], "conv", last) for convs, last in branches]
        return [conv(x) for x in levels for conv in first]

    @cached_property
    def wiring(self) -> Wiring:
        """Within super blocks, between them, and of a detector's pyramid."""
        stages = [self._super_block(index) for index in range(1, len(self.strides))]
        stem = _layer(f"{self._prefix}block_list.0")
        added = added_channels("block_list.0", stem, stages)
        widths = {name: {name: each} for name, each in added.items()}
        for stage in stages:
            widths[f"{stage.name}.btn"] = inner_channels(stage)
        if is_detector(self.state):
            widths["neck"] = _pyramid(self.state)
        return Wiring({stage.name: stage for stage in stages}, widths)

    @property
    def _prefix(self) -> str:
        return BODY if is_detector(self.state) else ""

    def _super_block(self, index: int) -> Stage:
        name = f"block_list.{index}"
        prefix, block = f"{self._prefix}{name}.block_list", self.structure.blocks[index]
        blocks = [
            _bottleneck(f"{prefix}.{inner}", block, first=not inner) for inner in range(block.depth)
        ]
        lateral = None
        pyramid = self.structure.stage_ends[-LATERALS:] if is_detector(self.state) else ()
        if index in pyramid:
            lateral = Layer(f"neck.lateral_convs.{pyramid.index(index)}.conv")
        return Stage(name, prefix, tuple(blocks), lateral)


def _block(state: Mapping[str, Tensor], prefix: str, stride: int) -> Block:
    """A stem or a super block, from the shapes of its weights."""
    if (stem := state.get(f"{prefix}conv1.weight")) is not None:
        outputs, inputs, kernel, _ = stem.shape
        return Block(inputs, outputs, kernel, stride)
    first = f"{prefix}block_list.0."
    width, inputs = state[f"{first}conv1.conv1.weight"].shape[:2]
    _, each, kernel, _ = state[f"{first}conv2.conv1.weight"].shape
    depth = sum(name.startswith(prefix) and name.endswith(".conv1.conv1.weight") for name in state)
    outputs = len(state[f"{first}conv3.conv1.weight"])
    return Block(inputs, outputs, kernel, stride, depth, width, width // each)


def _bottleneck(prefix: str, block: Block, *, first: bool) -> Residual:
    """One bottleneck; the first of a super block has a projection."""
    layers = tuple(
        _layer(f"{prefix}.conv{number}", block.groups if number == 2 else 1)
        for number in range(1, 4)
    )
    return Residual(layers, _layer(f"{prefix}.residual_proj") if first else None)


def _layer(prefix: str, groups: int = 1) -> Layer:
    return Layer(f"{prefix}.conv1", f"{prefix}.bn1", groups)


def _pyramid(names: Container[str]) -> dict[str, Channels]:
    """What laterals add up, and what is made of it and read by the head and the further levels."""
    laterals = [Layer(f"neck.lateral_convs.{level}.conv") for level in range(LATERALS)]
    levels = [Layer(f"neck.fpn_convs.{level}.conv") for level in range(len(STRIDES))]
    convs = "bbox_head.cls_convs.0.conv.weight" in names
    named = "bbox_head.{}_convs.0.conv" if convs else "bbox_head.gfl_{}"
    heads = [Layer(named.format(branch)) for branch in ("cls", "reg")]
    return {
        "neck.lateral_convs": Channels(laterals, levels[:LATERALS]),
        "neck.fpn_convs": Channels(levels, [*levels[LATERALS:], *heads]),
    }
