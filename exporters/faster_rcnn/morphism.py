"""Students of a Faster R-CNN: see :mod:`dyninfer.exporters.morphism.student`.

Stages are ``layer1`` (C2) to ``layer4`` (C5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dyninfer.errors import CheckpointError
from dyninfer.exporters.faster_rcnn.checkpoint import model_of, read_state
from dyninfer.exporters.faster_rcnn.model import FasterRCNN
from dyninfer.exporters.faster_rcnn.names import Library, library_of, own_names
from dyninfer.exporters.faster_rcnn.structure import Block, Conv, Structure, read_structure
from dyninfer.exporters.morphism.student import Student, write_checkpoint
from dyninfer.exporters.morphism.wiring import (
    Layer,
    Residual,
    Stage,
    Wiring,
    added_channels,
    inner_channels,
)

_BACKBONE = {Library.TORCHVISION: "backbone.body.", Library.MMDETECTION: "backbone."}


@dataclass(frozen=True)
class FasterRCNNStudent(Student):
    """A detector's weights by the names here; ``names`` are the library's, save the backbone's."""

    library: Library
    names: Mapping[str, str]

    @classmethod
    def load(cls, path: Path) -> FasterRCNNStudent:
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
            else self.names[name]: tensor
            for name, tensor in self.state.items()
        }
        write_checkpoint(named, path)

    @cached_property
    def structure(self) -> Structure:
        """What it is made of."""
        return read_structure({name: tuple(tensor.shape) for name, tensor in self.state.items()})

    def model(self, *, stride_first: bool = False) -> FasterRCNN:
        """The student as a module."""
        return model_of(dict(self.state), stride_first=stride_first)

    @staticmethod
    def forward(model: FasterRCNN, images: Tensor) -> list[Tensor]:
        """The pyramid's levels."""
        return model.neck(model.backbone(images))  # type: ignore[no-any-return]  # nn.Module's call is untyped

    @cached_property
    def wiring(self) -> Wiring:
        """Between two convolutions of a block, and what stem and stages add up."""
        stages = [
            Stage(
                f"layer{number}",
                f"backbone.layer{number}",
                tuple(_blocks(f"backbone.layer{number}", blocks)),
                Layer(f"neck.lateral_convs.{number - 1}.conv"),
            )
            for number, blocks in enumerate(self.structure.stages, 1)
        ]
        stem = Layer("backbone.conv1", "backbone.bn1")
        channels = added_channels("conv1", stem, stages)
        for stage in stages:
            channels |= inner_channels(stage)
        return Wiring(
            {stage.name: stage for stage in stages},
            {name: {name: each} for name, each in channels.items()},
        )


def _blocks(prefix: str, blocks: tuple[Block, ...]) -> Iterator[Residual]:
    for index, block in enumerate(blocks):
        own = f"{prefix}.{index}."
        layers = tuple(
            _layer(f"{own}conv{number}", f"{own}bn{number}", conv)
            for number, conv in enumerate(block.convs, 1)
        )
        projection = None
        if block.projection is not None:
            projection = _layer(f"{own}downsample.0", f"{own}downsample.1", block.projection)
        yield Residual(layers, projection)


def _layer(name: str, norm: str, conv: Conv) -> Layer:
    return Layer(name, norm if conv.norm else None, conv.groups)
