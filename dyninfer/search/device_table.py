"""What the pieces of backbones take on a device, and what whole backbones would.

Times are interpolated as milliseconds for each multiply-accumulate, between the logarithms of
channels and of their shares: the work of a piece is known exactly, and how fast it is done changes
little from one to the next. Beyond what was measured, the speed is that of the nearest.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from dyninfer.bundle.documents import LARGEST_DOCUMENT, Frozen, first_problem, parse_json
from dyninfer.errors import ConfigError, InputError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through, reason_of
from dyninfer.plain_text import counted
from dyninfer.search.pieces import Kind, Piece, given_pieces, pieces_of_block
from dyninfer.search.structure import STRIDE, Block, Structure, parse_structure

SCHEMA_VERSION = 1
_Side = Annotated[int, Field(ge=STRIDE, le=1 << 16, multiple_of=STRIDE)]
_Channels = Annotated[int, Field(ge=0, le=1 << 16)]
_Ms = Annotated[float, Field(gt=0, lt=1e9, allow_inf_nan=False)]
_Word = Annotated[str, Field(max_length=1000)]
_Group = tuple[Kind, int, int]  # kind, stride and kernel, whose pieces lie on one grid


class MeasuredPiece(Frozen):
    """A piece and its milliseconds."""

    kind: Kind
    stride: Literal[2, 4, 8, 16, 32]
    kernel: Annotated[int, Field(ge=0, le=31)]
    inputs: Annotated[int, Field(ge=1, le=1 << 16)]
    outputs: Annotated[int, Field(ge=1, le=1 << 16)]
    width: _Channels
    ms: _Ms

    @model_validator(mode="after")
    def _has_what_its_kind_has(self) -> MeasuredPiece:
        bottleneck = self.kind in (Kind.DOWN, Kind.FLAT, Kind.NEXT)
        if bool(self.width) != bottleneck or bool(self.kernel) != (self.kind is not Kind.GIVEN):
            raise ValueError(
                f"a piece {self.kind.value} has kernel {self.kernel} and width {self.width}"
            )
        return self

    @property
    def piece(self) -> Piece:
        """Without its time."""
        return Piece(self.kind, self.stride, self.kernel, self.inputs, self.outputs, self.width)


class MeasuredNetwork(Frozen):
    """A whole backbone, as a structure text, and its milliseconds."""

    structure: Annotated[str, Field(max_length=1 << 16)]
    ms: _Ms


class DeviceRun(Frozen):
    """What the times were taken with."""

    backend: _Word
    version: _Word
    provider: _Word
    device: _Word
    device_name: _Word
    passes: Annotated[int, Field(ge=1)]


class TableDocument(Frozen):
    """A table on disk.

    Nothing is interpolated from ``held_out`` and ``networks``: they tell how wrong it is.
    """

    kind: Literal["dyninfer device table"] = "dyninfer device table"
    schema_version: Literal[1] = 1
    finished_utc: _Word
    image_size: tuple[_Side, _Side]
    run: DeviceRun
    machine: dict[str, Any]
    pieces: Annotated[tuple[MeasuredPiece, ...], Field(min_length=1, max_length=20_000)]
    held_out: Annotated[tuple[MeasuredPiece, ...], Field(min_length=1, max_length=20_000)]
    networks: Annotated[tuple[MeasuredNetwork, ...], Field(min_length=1, max_length=1000)]


class Errors:
    """How far predictions are from what was measured: predicted / measured - 1, for each."""

    def __init__(self, pairs: Iterable[tuple[float, float]]) -> None:
        self.values = sorted(predicted / measured - 1 for predicted, measured in pairs)

    @property
    def typical(self) -> float:
        """The median of their sizes."""
        sizes = sorted(map(abs, self.values))
        return sizes[len(sizes) // 2]

    def __str__(self) -> str:
        low, high = (round(value, 2) + 0.0 for value in (self.values[0], self.values[-1]))
        return f"{low:+.0%} to {high:+.0%}, half within {self.typical:.0%}"


class DeviceTable:
    """See :class:`dyninfer.search.budgets.Latencies`.

    Raises:
        ValueError: the pieces of a kind do not lie on a grid.
    """

    def __init__(self, document: TableDocument) -> None:
        self.document = document
        self.image_size = document.image_size
        self.sha256 = hashlib.sha256(document.model_dump_json().encode()).hexdigest()
        of_group: dict[_Group, dict[tuple[float, ...], float]] = defaultdict(dict)
        for entry in document.pieces:
            piece = entry.piece
            found = of_group[_group(piece)]
            if piece.shape in found:
                raise ValueError(f"{piece} of {piece.shape} is there twice")
            found[piece.shape] = math.log(entry.ms / piece.work)
        self._grids = {group: _Grid(group, found) for group, found in of_group.items()}
        self._known: dict[tuple[Block, int], float] = {}

    def latency_ms(self, structure: Structure) -> float:
        """Milliseconds of one picture, with the maps C2 to C5 given on.

        Raises:
            InputError: it has a piece like which none was measured.
        """
        blocks = zip(structure.blocks, structure.strides, strict=True)
        given = sum(self.piece_ms(piece) for piece in given_pieces(structure))
        return sum(self._block_ms(block, after) for block, after in blocks) + given

    def _block_ms(self, block: Block, after: int) -> float:
        found = self._known.get((block, after))
        if found is None:
            if block.groups > 1:
                raise InputError("the device table knows no grouped convolutions")
            pieces = pieces_of_block(block, after)
            found = sum(times * self.piece_ms(piece) for piece, times in pieces)
            self._known[block, after] = found
        return found

    def piece_ms(self, piece: Piece) -> float:
        """Milliseconds of a piece.

        Raises:
            InputError: none of its kind, stride and kernel was measured.
        """
        grid = self._grids.get(_group(piece))
        if grid is None:
            raise InputError(
                f"the device table knows no time of {piece}; measure again with "
                "dyninfer bench --blocks, or start from a structure with kernels that it has"
            )
        return piece.work * math.exp(grid.at(piece.shape))

    @cached_property
    def piece_errors(self) -> Errors:
        """Of the pieces that were held out."""
        held_out = self.document.held_out
        return Errors((self.piece_ms(entry.piece), entry.ms) for entry in held_out)

    @cached_property
    def network_errors(self) -> Errors:
        """Of the networks that were measured as a whole."""
        networks = self.document.networks
        return Errors(
            (self.latency_ms(parse_structure(entry.structure)), entry.ms) for entry in networks
        )


class _Grid:
    """Values at all combinations of some coordinates, interpolated linearly in their logarithms."""

    def __init__(self, group: _Group, values: dict[tuple[float, ...], float]) -> None:
        axes = [sorted(set(axis)) for axis in zip(*values, strict=True)]
        if math.prod(map(len, axes)) != len(values):
            kind, stride, kernel = group
            raise ValueError(
                f"the pieces {kind.value} of stride {stride} and kernel {kernel} are no full grid"
            )
        self._axes = [[math.log(value) for value in axis] for axis in axes]
        self._values = {
            tuple(
                bisect.bisect_left(axis, value) for axis, value in zip(axes, shape, strict=True)
            ): ms
            for shape, ms in values.items()
        }

    def at(self, shape: Sequence[float]) -> float:
        """The value there, or at the nearest place of the grid."""
        ends = [_between(axis, math.log(x)) for axis, x in zip(self._axes, shape, strict=True)]
        return sum(
            math.prod(weight for _, weight in corner)
            * self._values[tuple(index for index, _ in corner)]
            for corner in itertools.product(*ends)
        )


def _between(axis: Sequence[float], x: float) -> tuple[tuple[int, float], ...]:
    """The places of an axis beside a value, with their weights."""
    place = bisect.bisect_right(axis, x)
    if place == 0:
        return ((0, 1.0),)
    if place == len(axis):
        return ((place - 1, 1.0),)
    share = (x - axis[place - 1]) / (axis[place] - axis[place - 1])
    return ((place - 1, 1 - share), (place, share))


def words_of(table: DeviceTable) -> str:
    """What it was measured on, and how far predictions by it are off."""
    run = table.document.run
    return (
        f"by a table of {run.backend} {run.version} on {run.device_name}: of "
        f"{counted(len(table.document.networks), 'whole backbone')} it is off by "
        f"{table.network_errors}, of {counted(len(table.document.held_out), 'block')} that it was "
        f"not made of by {table.piece_errors}"
    )


def _group(piece: Piece) -> _Group:
    return piece.kind, piece.stride, piece.kernel


def read_table(path: Path) -> DeviceTable:
    """Read what ``dyninfer bench --blocks`` has written.

    Raises:
        ConfigError: the file cannot be read, or is no such table.
    """
    try:
        payload = parse_json(read_file(path, LARGEST_DOCUMENT))
    except FileNotFoundError:
        raise ConfigError(
            f"the device table {path} does not exist; measure it with dyninfer bench --blocks "
            f"--output {path}"
        ) from None
    except (OSError, ValueError) as error:
        let_through(error)
        raise ConfigError(f"no device table can be read from {path}: {reason_of(error)}") from None
    version = payload.get("schema_version") if isinstance(payload, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} was written by a newer dyninfer (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): upgrade dyninfer"
        )
    try:
        table = DeviceTable(TableDocument.model_validate(payload))
        _ = table.piece_errors, table.network_errors  # or what they are of would fail later
    except ValidationError as error:
        problem = first_problem(error)
    except (ValueError, ConfigError, InputError) as error:
        problem = str(error)
    else:
        return table
    raise ConfigError(
        f"{path} is no device table: {problem}; expected what dyninfer bench --blocks has written"
    )
