"""Students of an EfficientDet: see :mod:`dyninfer.exporters.morphism.student`.

Stages are ``blocks.0`` to ``blocks.6`` of the backbone. Widths are those within inverted residuals;
what a stage gives on, and the pyramid, keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from dyninfer.exporters.efficientdet.detector import load_model
from dyninfer.exporters.efficientdet.model import EfficientDet, model_from_state
from dyninfer.exporters.efficientdet.structure import Block, Structure, read_structure
from dyninfer.exporters.morphism.student import Student, write_checkpoint
from dyninfer.exporters.morphism.wiring import NORM, Channels, Layer, Residual, Slice, Stage, Wiring

_ENDS = ("conv_pw", "bn1"), ("conv_pwl", "bn3")


@dataclass(frozen=True)
class EfficientDetStudent(Student):
    """A detector's weights; ``native_backbone`` is as of :class:`EfficientDet`."""

    native_backbone: bool = False

    @classmethod
    def load(cls, path: Path, *, native_backbone: bool = False) -> EfficientDetStudent:
        """The student that changes nothing.

        Raises:
            CheckpointError: the file cannot be read safely, or its weights are of no EfficientDet.
        """
        model = load_model(path, native_backbone=native_backbone)
        return cls(model.state_dict(), native_backbone)

    def save(self, path: Path) -> None:
        """Write a checkpoint, to be exported with the configuration of the one it comes from."""
        write_checkpoint(self.state, path)

    @cached_property
    def structure(self) -> Structure:
        """What it is made of."""
        return read_structure({name: tuple(tensor.shape) for name, tensor in self.state.items()})

    def model(self) -> EfficientDet:
        """The student as a module."""
        return model_from_state(self.state, native_backbone=self.native_backbone)

    @staticmethod
    def forward(model: EfficientDet, images: Tensor) -> list[Tensor]:
        """P3, P4 and P5 of the backbone."""
        return model.backbone(images)  # type: ignore[no-any-return]  # nn.Module's call is untyped

    @cached_property
    def wiring(self) -> Wiring:
        """Within inverted residuals: all that stands between their pointwise convolutions."""
        stages, widths = {}, {}
        for number, blocks in enumerate(self.structure.stages):
            name, prefix = f"blocks.{number}", f"backbone.blocks.{number}"
            residuals = tuple(
                _residual(f"{prefix}.{index}.", block) for index, block in enumerate(blocks)
            )
            stages[name] = Stage(name, prefix, residuals)
            for index, block in enumerate(blocks):
                if block.expands:
                    width = f"{name}.{index}.hidden"
                    widths[width] = {width: _hidden(f"{prefix}.{index}.")}
        return Wiring(stages, widths)


def _residual(prefix: str, block: Block) -> Residual:
    deep = Layer(f"{prefix}conv_dw", f"{prefix}bn{1 + block.expands}", block.hidden)
    if not block.expands:
        return Residual((deep, Layer(f"{prefix}conv_pw", f"{prefix}bn2")))
    first, last = (Layer(prefix + conv, prefix + norm) for conv, norm in _ENDS)
    return Residual((first, deep, last))


def _hidden(prefix: str) -> Channels:
    first, last = (Layer(prefix + conv, prefix + norm) for conv, norm in _ENDS)
    return Channels([first], [last], list(_between(prefix)))


def _between(prefix: str) -> Iterator[Slice]:
    """Of the depthwise convolution, and of squeeze-and-excitation, which may not be there."""
    yield Slice(f"{prefix}conv_dw.weight", 0)
    yield from (Slice(f"{prefix}bn2.{part}", 0) for part in NORM)
    yield Slice(f"{prefix}se.conv_reduce.weight", 1, reads=True)
    yield from (Slice(f"{prefix}se.conv_expand.{part}", 0) for part in ("weight", "bias"))
