"""What a Faster R-CNN is made of, read from the names and shapes of its weights.

Nothing is assumed of depths and widths: a slimmed detector has other ones in every block. The
names are those of :mod:`dyninfer.exporters.faster_rcnn.names`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dyninfer.errors import CheckpointError
from dyninfer.plain_text import counted

Shapes = Mapping[str, tuple[int, ...]]
LATERALS = 4  # of C2 to C5
POOLED = 7  # sides of a region's map
ANCHORS = 3  # at each place
HEAD = "roi_head.bbox_head."


@dataclass(frozen=True)
class Conv:
    """A convolution: its channels, the side of its kernel, groups, and whether norm and bias."""

    inputs: int
    outputs: int
    kernel: int
    groups: int = 1
    norm: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Block:
    """A residual block: two convolutions or three, and a projection where there is one."""

    convs: tuple[Conv, ...]
    projection: Conv | None

    @property
    def outputs(self) -> int:
        """Channels of its result."""
        return self.convs[-1].outputs


@dataclass(frozen=True)
class Structure:
    """Of a whole detector.

    Attributes:
        stem: the first convolution.
        stages: the blocks of C2 to C5.
        laterals, smooth: of the pyramid, for P2 to P5.
        rpn: convolutions before the objectness and the boxes of anchors.
        pooled: convolutions on a region's map.
        hidden: sizes of the layers behind them.
        columns: of the class scores, one of which is of no class.
        boxes: how many boxes a region has: one, one for each class, or one for each column.
    """

    stem: Conv
    stages: tuple[tuple[Block, ...], ...]
    laterals: tuple[Conv, ...]
    smooth: tuple[Conv, ...]
    rpn: tuple[Conv, ...]
    pooled: tuple[Conv, ...]
    hidden: tuple[int, ...]
    columns: int
    boxes: int

    @property
    def channels(self) -> int:
        """Of the pyramid's maps."""
        return self.smooth[0].outputs

    def __str__(self) -> str:
        depths = "-".join(str(len(stage)) for stage in self.stages)
        outputs = "-".join(str(stage[-1].outputs) for stage in self.stages)
        widths = {conv.outputs for stage in self.stages for b in stage for conv in b.convs[:-1]}
        return (
            f"blocks {depths}, channels {outputs}, inner widths {min(widths)} to {max(widths)}, "
            f"pyramid {self.channels}"
        )


def read_structure(shapes: Shapes) -> Structure:
    """The detector that weights of these names and shapes belong to.

    Raises:
        CheckpointError: a weight is missing, or two do not meet; the message names them.
    """
    reader = _Reader(shapes)
    stem = reader.conv("backbone.conv1", 3, norm="backbone.bn1")
    stages = tuple(reader.stages(stem.outputs))
    laterals = tuple(
        reader.conv(f"neck.lateral_convs.{level}.conv", stage[-1].outputs)
        for level, stage in enumerate(stages)
    )
    channels = laterals[0].outputs
    smooth = tuple(
        reader.conv(f"neck.fpn_convs.{level}.conv", channels) for level in range(len(laterals))
    )
    wanted = {conv.outputs for conv in (*laterals, *smooth)}
    if wanted != {channels}:
        raise CheckpointError(
            f"the pyramid's maps have {sorted(wanted)} channels, expected the same everywhere"
        )
    rpn = tuple(reader.chain("rpn_head.rpn_conv", channels))
    before = rpn[-1].outputs if rpn else channels
    reader.expect("rpn_head.rpn_cls.weight", (ANCHORS, before, 1, 1))
    reader.expect("rpn_head.rpn_reg.weight", (4 * ANCHORS, before, 1, 1))
    pooled = tuple(reader.chain(f"{HEAD}shared_convs", channels))
    hidden = tuple(reader.hidden((pooled[-1].outputs if pooled else channels) * POOLED**2))
    columns, boxes = reader.predictor(hidden[-1])
    return Structure(stem, stages, laterals, smooth, rpn, pooled, hidden, columns, boxes)


class _Reader:
    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        if name not in self._shapes:
            raise CheckpointError(
                f"{name} is missing; expected a ResNet with a feature pyramid of {LATERALS} levels "
                "and a two-stage head, as torchvision's and mmdetection's Faster R-CNN have them"
            )
        shape = self._shapes[name]
        if len(shape) != axes or 0 in shape:
            raise CheckpointError(f"{name} has shape {shape}, expected {axes} axes, none empty")
        return shape

    def expect(self, name: str, expected: tuple[int, ...]) -> None:
        shape = self.shape(name, len(expected))
        if shape != expected:
            raise CheckpointError(f"{name} has shape {shape}, expected {expected}")

    def conv(self, name: str, inputs: int, norm: str | None = None) -> Conv:
        """A convolution that reads ``inputs`` channels, with the norm beside it."""
        outputs, each, kernel, other = self.shape(f"{name}.weight", 4)
        groups = inputs // each
        if groups * each != inputs or outputs % groups:
            raise CheckpointError(
                f"{name}.weight has shape {(outputs, each, kernel, other)}, but what it reads has "
                f"{counted(inputs, 'channel')}: the layers do not meet"
            )
        if kernel != other or not kernel % 2:
            raise CheckpointError(
                f"{name} has a kernel of {kernel}x{other}, expected an odd square"
            )
        norm = norm or f"{name.removesuffix('conv')}bn"
        return Conv(
            inputs,
            outputs,
            kernel,
            groups,
            norm=f"{norm}.weight" in self._shapes,
            bias=f"{name}.bias" in self._shapes,
        )

    def stages(self, inputs: int) -> Iterator[tuple[Block, ...]]:
        for stage in range(1, LATERALS + 1):
            blocks = []
            for index in range(self._count(f"backbone.layer{stage}", "conv1.weight")):
                block = self._block(f"backbone.layer{stage}.{index}", inputs)
                strided = index == 0 and stage > 1
                if block.projection is None and (strided or block.outputs != inputs):
                    raise CheckpointError(
                        f"backbone.layer{stage}.{index} turns {inputs} channels into "
                        f"{block.outputs}{' at half the size' if strided else ''} without a "
                        "downsample to project its shortcut"
                    )
                inputs = block.outputs
                blocks.append(block)
            yield tuple(blocks)

    def _block(self, name: str, inputs: int) -> Block:
        count = 3 if f"{name}.conv3.weight" in self._shapes else 2
        convs: list[Conv] = []
        for index in range(1, count + 1):
            read = convs[-1].outputs if convs else inputs
            convs.append(self.conv(f"{name}.conv{index}", read, norm=f"{name}.bn{index}"))
        projection = None
        if any(key.startswith(f"{name}.downsample.") for key in self._shapes):
            projection = self.conv(f"{name}.downsample.0", inputs, norm=f"{name}.downsample.1")
            if projection.outputs != convs[-1].outputs:
                raise CheckpointError(
                    f"{name} adds {projection.outputs} channels of its downsample to "
                    f"{convs[-1].outputs} of conv{count}: the layers do not meet"
                )
        return Block(tuple(convs), projection)

    def _count(self, prefix: str, suffix: str) -> int:
        """How many numbered parts there are, which must be 0, 1, 2 and so on."""
        pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.{re.escape(suffix)}")
        numbers = sorted(int(m[1]) for name in self._shapes if (m := pattern.fullmatch(name)))
        if not numbers:
            self.shape(f"{prefix}.0.{suffix}", 4)
        if numbers != list(range(len(numbers))):
            raise CheckpointError(
                f"the blocks of {prefix} are numbered {numbers}, expected 0 to {len(numbers) - 1}"
            )
        return len(numbers)

    def chain(self, prefix: str, inputs: int) -> Iterator[Conv]:
        """Convolutions one after the other, as many as there are."""
        index = 0
        while f"{prefix}.{index}.conv.weight" in self._shapes:
            conv = self.conv(f"{prefix}.{index}.conv", inputs)
            yield conv
            inputs, index = conv.outputs, index + 1

    def hidden(self, inputs: int) -> Iterator[int]:
        index = 0
        while index == 0 or f"{HEAD}shared_fcs.{index}.weight" in self._shapes:
            name = f"{HEAD}shared_fcs.{index}.weight"
            outputs = self.shape(name, 2)[0]
            self.expect(name, (outputs, inputs))
            yield outputs
            inputs, index = outputs, index + 1

    def predictor(self, inputs: int) -> tuple[int, int]:
        columns = self.shape(f"{HEAD}fc_cls.weight", 2)[0]
        sides = self.shape(f"{HEAD}fc_reg.weight", 2)[0]
        self.expect(f"{HEAD}fc_cls.weight", (columns, inputs))
        self.expect(f"{HEAD}fc_reg.weight", (sides, inputs))
        if columns < 2 or sides not in (4, 4 * (columns - 1), 4 * columns):
            raise CheckpointError(
                f"the head has {columns} columns of classes and {sides} of boxes, expected 4, "
                f"{4 * (columns - 1)} or {4 * columns} of boxes"
            )
        return columns, sides // 4
