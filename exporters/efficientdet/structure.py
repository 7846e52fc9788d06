"""What an EfficientDet is made of, read from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dyninfer.errors import CheckpointError
from dyninfer.plain_text import counted

STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of the seven stages of every EfficientNet; its stem has 2
TAPS = (2, 4, 6)  # the stages whose results are P3, P4 and P5
FIRST_LEVEL = 3
BACKBONE_LEVELS = len(TAPS)
ANCHORS = 9  # at each place: three octaves of three shapes
_MOST = 200  # blocks of a stage, cells, repeats; D7x has 13 blocks, 8 cells and 5 repeats

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Block:
    """A depthwise-separable convolution, or an inverted residual, which is wider inside.

    Attributes:
        inputs, hidden, outputs: channels; ``hidden`` are those of the depthwise convolution.
        kernel: its side.
        squeezed: channels between the two layers of squeeze-and-excitation; 0 for none.
        expands: whether a pointwise convolution stands before the depthwise one.
    """

    inputs: int
    hidden: int
    outputs: int
    kernel: int
    squeezed: int
    expands: bool


@dataclass(frozen=True)
class Structure:
    """An EfficientDet without its weights.

    Attributes:
        stem: channels of the first convolution.
        stages: the blocks of each of the seven stages.
        channels: of the feature pyramid and of the heads.
        cells: of the feature pyramid.
        repeats: convolutions of a head before its prediction.
        levels: of the pyramid, from P3 on.
        classes: columns of the class head.
        weighted: fast normalised fusion; else a plain sum.
        redundant_bias: convolutions before batch norms have one, as TensorFlow's models do.
        same_padding: an odd pixel of padding is at the right and the bottom, as TensorFlow has it.
        level_first: the heads' batch norms are named by level and repeat, not by repeat and level.
    """

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    channels: int
    cells: int
    repeats: int
    levels: int
    classes: int
    weighted: bool = True
    redundant_bias: bool = True
    same_padding: bool = True
    level_first: bool = False

    @property
    def lite(self) -> bool:
        """Without squeeze-and-excitation, and then with ReLU6 in the place of SiLU."""
        return not any(block.squeezed for stage in self.stages for block in stage)

    @property
    def taps(self) -> tuple[int, ...]:
        """Channels of P3, P4 and P5."""
        return tuple(self.stages[stage][-1].outputs for stage in TAPS)

    @property
    def body(self) -> tuple[object, ...]:
        """What two models with other classes, or other names of parameters, have in common."""
        return self.stem, self.stages, self.channels, self.cells, self.repeats, self.levels

    def __str__(self) -> str:
        blocks = counted(sum(map(len, self.stages)), "block")
        levels = f"P{FIRST_LEVEL} to P{FIRST_LEVEL + self.levels - 1}"
        cells = f"{counted(self.cells, 'cell')} of {self.channels} channels"
        return f"{blocks}, {levels}, {cells}, heads of {self.repeats}"


def read_structure(shapes: Shapes) -> Structure:
    """The structure that parameters of these names and shapes belong to.

    Raises:
        CheckpointError: a name that every EfficientDet has is missing, a shape cannot be, or the
            backbone is no EfficientNet; names that are left over are not looked at.
    """
    stages = tuple(_stage(shapes, index) for index in range(_count(shapes, r"backbone\.blocks\.")))
    if len(stages) != len(STRIDES):
        raise CheckpointError(
            f"the backbone has {counted(len(stages), 'stage')} of blocks, expected the "
            f"{len(STRIDES)} of an EfficientNet, D0 to D7x or Lite"
        )
    first = "bn_rep.0.0.bn.weight" not in {name.partition("class_net.")[2] for name in shapes}
    norms = r"class_net\.bn_rep\.0\." if not first else r"class_net\.bn_rep\."
    channels = _shape(shapes, "class_net.predict.conv_pw.weight", 4)[1]
    classes = _shape(shapes, "class_net.predict.conv_pw.weight", 4)[0]
    boxes = _shape(shapes, "box_net.predict.conv_pw.weight", 4)[0]
    if boxes != 4 * ANCHORS or classes % ANCHORS:
        raise CheckpointError(
            f"the heads predict {boxes} and {classes} numbers at each place, expected "
            f"{4 * ANCHORS} and a multiple of {ANCHORS}, for the {ANCHORS} anchors of EfficientDet"
        )
    biased = "class_net.conv_rep.0.conv_pw.bias" in shapes
    lite = not any(block.squeezed for stage in stages for block in stage)
    return Structure(
        stem=_shape(shapes, "backbone.conv_stem.weight", 4)[0],
        stages=stages,
        channels=channels,
        cells=_count(shapes, r"fpn\.cell\."),
        repeats=_count(shapes, r"class_net\.conv_rep\."),
        levels=_count(shapes, norms),
        classes=classes // ANCHORS,
        weighted="fpn.cell.0.fnode.0.combine.edge_weights" in shapes,
        redundant_bias=biased,
        same_padding=biased or lite,
        level_first=first,
    )


def _stage(shapes: Shapes, index: int) -> tuple[Block, ...]:
    names = rf"backbone\.blocks\.{index}\."
    return tuple(
        _block(shapes, f"backbone.blocks.{index}.{i}.") for i in range(_count(shapes, names))
    )


def _block(shapes: Shapes, prefix: str) -> Block:
    """A block by its names.

    Raises:
        CheckpointError: it is of no kind that EfficientNets up to B7 and Lite have.
    """
    expands = f"{prefix}conv_pwl.weight" in shapes
    if f"{prefix}conv_dw.weight" not in shapes or f"{prefix}conv_pw.weight" not in shapes:
        raise CheckpointError(
            f"the block {prefix.removesuffix('.')} is neither an inverted residual nor a "
            "depthwise-separable convolution: the backbone is no EfficientNet B0 to B7 or Lite"
        )
    point = _shape(shapes, f"{prefix}conv_pw.weight", 4)
    deep = _shape(shapes, f"{prefix}conv_dw.weight", 4)
    se = f"{prefix}se.conv_reduce.weight"
    last = _shape(shapes, f"{prefix}conv_pwl.weight", 4) if expands else point
    return Block(
        inputs=point[1],
        hidden=deep[0],
        outputs=last[0],
        kernel=deep[2],
        squeezed=_shape(shapes, se, 4)[0] if se in shapes else 0,
        expands=expands,
    )


def _count(shapes: Shapes, before: str) -> int:
    """How many different whole numbers follow ``before`` in the names: 0, 1, ... without a gap."""
    pattern = re.compile(before + r"(\d{1,9})\.")
    found = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    count = len(found)
    if found != set(range(count)) or not 0 < count <= _MOST:
        shown = before.replace("\\", "")
        raise CheckpointError(
            f"parameters {shown}N are numbered {sorted(found)[:10]}, expected 0, 1, ... and at "
            f"most {_MOST} of them: this is no EfficientDet, or a part of one is missing"
        )
    return count


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"there is no parameter {name}, which every EfficientDet has")
    shape = shapes[name]
    if len(shape) != axes or 0 in shape:
        raise CheckpointError(f"{name} has the shape {shape}, expected {axes} axes, none of them 0")
    return shape
