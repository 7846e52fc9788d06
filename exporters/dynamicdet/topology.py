"""What is connected to what in a dynamic detector: rows, references and the published tables.

A topology says nothing about widths or weights: those are read from a checkpoint
(see :mod:`dyninfer.exporters.dynamicdet.plan`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import resources

from dyninfer.errors import ConfigError


class Part(str, Enum):
    """The four row lists of a dynamic detector, with the prefix their weights carry."""

    FIRST = "b"
    SECOND = "b2"
    HEAD = "h"
    HEAD2 = "h2"

    @property
    def prefix(self) -> str:
        """Prefix of this part's parameters in a checkpoint, for example ``model_b2``."""
        return f"model_{self.value}"

    @property
    def source(self) -> Part:
        """The backbone whose rows this part may read beside its own."""
        return Part.SECOND if self is Part.HEAD2 else Part.FIRST


class Op(str, Enum):
    """The closed set of operations a row may have; nothing else is ever constructed."""

    CONV = "ConvBnSiLU"
    MAX_POOL = "MaxPool2"
    SPACE_TO_DEPTH = "SpaceToDepth2"
    CONCAT = "Concat"
    UPSAMPLE = "Upsample2xNearest"
    SPPCSPC = "SPPCSPC"
    REP_CONV = "RepConv"
    CB_LINEAR = "CBLinear"
    CB_FUSE = "CBFuse"
    DETECT = "Detect"


@dataclass(frozen=True)
class Ref:
    """Points at the output of a row, or at the image when ``part`` is None."""

    part: Part | None
    index: int = 0

    def __str__(self) -> str:
        return "image" if self.part is None else f"{self.part.value}:{self.index}"


IMAGE = Ref(None)


@dataclass(frozen=True)
class Row:
    """One operation of a part.

    ``channels`` is the nominal output width (of CBLinear: the widths of its splits) and is only
    used to build a model without a checkpoint. ``split_index`` says which split of each
    auxiliary CBLinear input a CBFuse adds. ``repeat`` chains the operation with itself.
    """

    ref: Ref
    op: Op
    inputs: tuple[Ref, ...]
    channels: tuple[int, ...] = ()
    kernel: int = 1
    stride: int = 1
    split_index: tuple[int, ...] = ()
    repeat: int = 1

    @property
    def prefix(self) -> str:
        """Prefix of this row's parameters in a checkpoint, for example ``model_b.24``."""
        assert self.ref.part is not None
        return f"{self.ref.part.prefix}.{self.ref.index}"


@dataclass(frozen=True)
class Topology:
    """The rows of all four parts, and the features whose averages the router reads."""

    name: str
    parts: Mapping[Part, tuple[Row, ...]]
    router_inputs: tuple[Ref, ...]

    def __post_init__(self) -> None:
        for row in self.rows():
            for position, ref in enumerate(row.inputs):
                self._check_reference(row, ref)
                self._check_splits(row, ref, auxiliary=position < len(row.inputs) - 1)
        for ref in self.router_inputs:
            if self.row(ref).op is Op.CB_LINEAR:
                raise ConfigError(f"the router of {self.name} reads {ref}, a CBLinear")
        for part in (Part.HEAD, Part.HEAD2):
            if not self.parts[part] or self.parts[part][-1].op is not Op.DETECT:
                raise ConfigError(
                    f"part {part.value!r} of {self.name} does not end in Detect; "
                    "a head must end in Detect or IDetect"
                )

    def _check_reference(self, row: Row, ref: Ref) -> None:
        """A row may read the image, earlier rows of its part, and what an earlier stage made."""
        part = row.ref.part
        assert part is not None
        if ref.part is None:
            if part in (Part.HEAD, Part.HEAD2):
                raise ConfigError(f"row {row.ref} reads the image; a head reads features only")
            return
        earlier = row.ref.index if ref.part is part else len(self.parts[ref.part])
        if ref.part not in (part, part.source) or not 0 <= ref.index < earlier:
            raise ConfigError(f"row {row.ref} of {self.name} reads {ref}, which is not before it")

    def _check_splits(self, row: Row, ref: Ref, *, auxiliary: bool) -> None:
        """CBLinear makes several tensors, which only CBFuse of the same part can read."""
        is_split = ref.part is not None and self.row(ref).op is Op.CB_LINEAR
        wanted = row.op is Op.CB_FUSE and auxiliary
        if is_split != wanted or (is_split and ref.part is not row.ref.part):
            raise ConfigError(
                f"row {row.ref} ({row.op.value}) of {self.name} reads {ref}; only CBFuse reads "
                "CBLinear, of its own part, and reads nothing else but its last input"
            )

    def rows(self) -> Iterable[Row]:
        """All rows, part by part in order of execution."""
        for part in Part:
            yield from self.parts[part]

    def row(self, ref: Ref) -> Row:
        """The row that ``ref`` points at; it must not be the image."""
        assert ref.part is not None
        return self.parts[ref.part][ref.index]

    def read_by(self, *parts: Part) -> tuple[Ref, ...]:
        """First-backbone outputs (and the image) that the given parts read, in order."""
        found = {
            ref
            for part in parts
            for row in self.parts[part]
            for ref in row.inputs
            if ref.part in (None, Part.FIRST)
        }
        return tuple(sorted(found, key=lambda ref: (ref.part is not None, ref.index)))


ROUTER_INPUTS = {
    "dy-yolov7": (2, 11, 24, 37, 50),
    "dy-yolov7x": (2, 13, 28, 43, 58),
    "dy-yolov7-w6": (1, 10, 19, 28, 37, 46),
}


def published(name: str) -> Topology:
    """One of the three published topologies: a key of :data:`ROUTER_INPUTS`."""
    table = resources.files("dyninfer.exporters.dynamicdet") / "tables" / f"{name}.csv"
    lines = csv.DictReader(table.read_text(encoding="utf-8").splitlines())
    rows = [_table_row(line) for line in lines]
    parts = {part: tuple(row for row in rows if row.ref.part is part) for part in Part}
    return Topology(name, parts, tuple(Ref(Part.FIRST, index) for index in ROUTER_INPUTS[name]))


def _table_row(line: Mapping[str, str]) -> Row:
    return Row(
        ref=Ref(Part(line["part"]), int(line["index"])),
        op=Op(line["op"]),
        inputs=tuple(_table_ref(text) for text in line["inputs"].split()),
        channels=_plus_separated(line["channels"]),
        kernel=int(line["kernel"] or 1),
        stride=int(line["stride"] or 1),
        split_index=_plus_separated(line["split_index"]),
    )


def _table_ref(text: str) -> Ref:
    if text == "image":
        return IMAGE
    part, index = text.split(":")
    return Ref(Part(part), int(index))


def _plus_separated(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split("+") if number)


def recognise(parameter_names: Iterable[str]) -> Topology:
    """The published topology whose first backbone has as many rows as the checkpoint's.

    Raises:
        ConfigError: no published variant has this number of rows.
    """
    matches = (re.match(r"model_b\.(\d+)\.", name) for name in parameter_names)
    rows = 1 + max((int(match[1]) for match in matches if match), default=-1)
    for name in ROUTER_INPUTS:
        topology = published(name)
        if len(topology.parts[Part.FIRST]) == rows:
            return topology
    known = ", ".join(
        f"{name} ({len(published(name).parts[Part.FIRST])})" for name in ROUTER_INPUTS
    )
    raise ConfigError(
        f"the first backbone has {rows} rows, which no published variant has: {known}; "
        "give the model's own YAML as config (--config)"
    )
