"""What a backbone is made of, as ZenDet (published as MAE-DET) writes it into a text.

A text is one literal: ``{'best_structures': [[block, ...], ...], 'space_arch': 'CnnNet'}``.
Older ones spell ``SuperResConvK1KXK1`` and ``MasterNet``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dyninfer.errors import ConfigError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through, reason_of
from dyninfer.plain_text import counted, some
from dyninfer.types import shown

STEM, BOTTLENECKS = "ConvKXBNRELU", "SuperResK1KXK1"
STAGES = 5  # of strides 2, 4, 8, 16 and 32
STRIDE: int = 2**STAGES
"""Sides of images are multiples of it: on odd maps a block and its shortcut differ in size."""

_SPELLINGS = {STEM: STEM, BOTTLENECKS: BOTTLENECKS, "SuperResConvK1KXK1": BOTTLENECKS}
_ARCHITECTURES = ("CnnNet", "MasterNet")
_LARGEST_TEXT = 1 << 18  # bytes
_DEEPEST = 8  # brackets within brackets; a text has four
_MOST_BLOCKS, _MOST_CHANNELS, _LARGEST_KERNEL, _DEEPEST_BLOCK = 100, 1 << 16, 31, 1000
_OF_STEM = ("in", "out", "s", "k")
_OF_BOTTLENECKS = (*_OF_STEM, "L", "btn")
_OPTIONAL = ("p", "g", "act", "nbitsA", "nbitsW")


@dataclass(frozen=True)
class Convolution:
    """A convolution with batch norm.

    ``stride`` is that of its result in the image, ``main`` whether it is on the way that the score
    follows: no shortcut's projection is.
    """

    inputs: int
    outputs: int
    kernel: int
    groups: int
    stride: int
    main: bool = True

    @property
    def weights(self) -> int:
        """Without its batch norm's."""
        return self.inputs * self.outputs * self.kernel**2 // self.groups


@dataclass(frozen=True)
class Block:
    """The stem, a convolution with batch norm and ReLU; or ``depth`` bottlenecks in a row.

    A bottleneck is convolutions of 1, ``kernel`` and 1, with ``width`` channels between them. The
    first has the block's stride, and a shortcut of average pooling (of 2, where the stride is) and
    a projection; the shortcuts of the others are the identity. ``width`` is 0 for the stem alone,
    ``groups`` are those of the convolution of ``kernel``.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    depth: int = 1
    width: int = 0
    groups: int = 1

    def convolutions(self, stride: int) -> Iterator[Convolution]:
        """All of them, in the order they run, in a map of this stride in the image."""
        after, kernel, groups = stride * self.stride, self.kernel, self.groups
        if not self.width:
            yield Convolution(self.inputs, self.outputs, kernel, groups, after)
            return
        inputs = self.inputs
        for index in range(self.depth):
            before = after if index else stride
            yield Convolution(inputs, self.width, 1, 1, before)
            yield Convolution(self.width, self.width, kernel, groups, after)
            yield Convolution(self.width, self.outputs, 1, 1, after)
            if not index:
                yield Convolution(inputs, self.outputs, 1, 1, after, main=False)
            inputs = self.outputs

    @property
    def fields(self) -> dict[str, Any]:
        """As a structure text has them."""
        found = {"class": BOTTLENECKS if self.width else STEM, "in": self.inputs}
        found |= {"out": self.outputs, "s": self.stride, "k": self.kernel}
        if self.width:
            found |= {"L": self.depth, "btn": self.width}
        return found | ({"g": self.groups} if self.groups > 1 else {})


@dataclass(frozen=True)
class Structure:
    """A backbone without its weights: a stem, then blocks, five of all with a stride of 2.

    A block of stride 1 belongs to the stage of the block before it.
    """

    blocks: tuple[Block, ...]

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Of every block's result in the image."""
        found, stride = [], 1
        for block in self.blocks:
            stride *= block.stride
            found.append(stride)
        return tuple(found)

    @cached_property
    def stage_ends(self) -> tuple[int, ...]:
        """The last block of each stage."""
        follow = (*(block.stride == 2 for block in self.blocks[1:]), True)
        return tuple(index for index, ends in enumerate(follow) if ends)

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stages' results, C1 to C5."""
        return tuple(self.blocks[end].outputs for end in self.stage_ends)

    @property
    def text(self) -> str:
        """As it is written into a file."""
        found = {"best_structures": [[block.fields for block in self.blocks]]}
        return repr({**found, "space_arch": _ARCHITECTURES[0]}) + "\n"

    def __str__(self) -> str:
        channels = ", ".join(map(str, self.channels))
        return f"{counted(len(self.blocks), 'block')}, channels {channels}"


def read_structure(path: Path) -> Structure:
    """The first structure of a text file; see :func:`parse_structure`.

    Raises:
        ConfigError: the file cannot be read, or is no such text.
    """
    try:
        text = read_file(path, _LARGEST_TEXT).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"the structure text {path} does not exist; give the .txt file of a search"
        ) from None
    except (OSError, ValueError) as error:
        let_through(error)
        raise ConfigError(f"no structure can be read from {path}: {reason_of(error)}") from None
    try:
        return parse_structure(text)
    except ConfigError as error:
        raise ConfigError(f"{path} is no structure text: {error}") from None


def parse_structure(text: str) -> Structure:
    """The first of the ``best_structures`` of a text, of which only literals are read.

    Raises:
        ConfigError: it is no such text, a block is of another class, a field is missing, unknown or
            out of its range, or blocks do not fit together.
    """
    found = _literal(text)
    if not isinstance(found, Mapping) or "best_structures" not in found:
        raise ConfigError(
            "it holds no 'best_structures', expected {'best_structures': [[block, ...]], "
            "'space_arch': 'CnnNet'}"
        )
    architecture = found.get("space_arch", _ARCHITECTURES[0])
    if architecture not in _ARCHITECTURES:
        raise ConfigError(
            f"its space_arch is {shown(architecture)}, expected {' or '.join(_ARCHITECTURES)}"
        )
    structures = found["best_structures"]
    first = structures[0] if isinstance(structures, list) and structures else None
    if not isinstance(first, list) or not 0 < len(first) <= _MOST_BLOCKS:
        raise ConfigError(
            "its best_structures hold no list of blocks first, expected [[block, ...], ...] with "
            f"at most {_MOST_BLOCKS} blocks"
        )
    return checked(_read_block(index, fields) for index, fields in enumerate(first))


def checked(blocks: Iterator[Block] | Sequence[Block]) -> Structure:
    """Blocks that fit together, as a structure.

    Raises:
        ConfigError: the first is no stem or another is, a block does not take what the one before
            it gives, or there are not five of stride 2.
    """
    structure = Structure(tuple(blocks))
    for index, block in enumerate(structure.blocks):
        if bool(index) != bool(block.width):
            raise ConfigError(
                f"block {index} is {BOTTLENECKS if block.width else STEM}, expected {STEM} first "
                f"and {BOTTLENECKS} after it"
            )
        before = structure.blocks[index - 1].outputs if index else 3
        if block.inputs != before:
            giver = f"block {index - 1} gives" if index else "a picture has"
            raise ConfigError(f"block {index} takes {block.inputs} channels, but {giver} {before}")
    if structure.blocks[0].stride != 2 or structure.strides[-1] != STRIDE:
        twos = sum(block.stride == 2 for block in structure.blocks)
        raise ConfigError(
            f"{counted(twos, 'block')} of {len(structure.blocks)} have stride 2, expected "
            f"{STAGES}, the stem among them, for strides up to {STRIDE}"
        )
    return structure


def _literal(text: str) -> Any:
    """What a text of literals stands for; nothing in it is run.

    Raises:
        ConfigError: it is no literal, or one that nests too deeply for Python's parser.
    """
    depth = deepest = 0
    for bracket in re.findall(r"[()\[\]{}]", text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise ConfigError("its parts are nested too deeply, expected a list of lists of blocks")
    try:
        if "\\" in text:  # Python warns of escapes that it does not know
            raise ValueError
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        start = shown(" ".join(text.split())[:60])
        raise ConfigError(f"it is no literal of Python or JSON, it starts with {start}") from None


def _read_block(index: int, fields: object) -> Block:
    if not isinstance(fields, Mapping) or not all(isinstance(name, str) for name in fields):
        raise ConfigError(f"block {index} is {shown(fields)}, expected a dict with a 'class'")
    kind = fields.get("class")
    name = _SPELLINGS.get(kind) if isinstance(kind, str) else None
    if name is None:
        raise ConfigError(
            f"block {index} is of the class {shown(kind)}, expected {STEM} or {BOTTLENECKS}, the "
            "blocks of ZenDet's backbones (or SuperResConvK1KXK1, as older texts spell it)"
        )
    expected = _OF_STEM if name == STEM else _OF_BOTTLENECKS
    missing = [field for field in expected if field not in fields]
    unknown = sorted(fields.keys() - {"class", *expected, *_OPTIONAL})
    if missing or unknown:
        problem = f"lacks {some(missing)}" if missing else f"has {some(unknown)}"
        raise ConfigError(f"block {index} ({name}) {problem}, expected {', '.join(expected)}")
    return _checked_block(index, fields)


def _checked_block(index: int, fields: Mapping[str, Any]) -> Block:
    """A block whose numbers are in their ranges."""

    def number(field: str, low: int, high: int, default: int | None = None) -> int:
        value = fields.get(field, default)
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(
                f"block {index}: {field} is {shown(value)}, expected a whole number from {low} to "
                f"{high}"
            )
        return value

    kernel, groups = number("k", 1, _LARGEST_KERNEL), number("g", 1, _MOST_CHANNELS, 1)
    block = Block(
        inputs=number("in", 1, _MOST_CHANNELS),
        outputs=number("out", 1, _MOST_CHANNELS),
        kernel=kernel,
        stride=number("s", 1, 2),
        depth=number("L", 1, _DEEPEST_BLOCK, 1),
        width=number("btn", 1, _MOST_CHANNELS) if "btn" in fields else 0,
        groups=groups,
    )
    if kernel % 2 == 0 or number("p", 0, kernel, (kernel - 1) // 2) != (kernel - 1) // 2:
        raise ConfigError(
            f"block {index}: k is {kernel} and p {fields.get('p', (kernel - 1) // 2)}, expected an "
            "odd kernel and a padding of half of it"
        )
    if any(count % groups for count in (block.width or block.inputs, block.width or block.outputs)):
        raise ConfigError(f"block {index}: its channels cannot be parted into g = {groups} groups")
    if fields.get("act", "relu") != "relu":
        raise ConfigError(f"block {index}: act is {shown(fields['act'])}, expected 'relu'")
    return block
