"""A user's own topology, from the YAML that such models are trained from.

Rows are ``[from, number, module, args]``. A negative ``from`` counts back within the part; one
that is not negative points into the first backbone (in ``backbone``, ``dual_backbone`` and
``head``) or the second (in ``head2``); ``input`` is the image. Module names come from a closed
table and nothing is ever evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dyninfer.errors import ConfigError
from dyninfer.exporters.dynamicdet.topology import IMAGE, Op, Part, Ref, Row, Topology
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.plain_text import counted
from dyninfer.safe_yaml import LARGEST_YAML, load_yaml

_SECTIONS = {
    Part.FIRST: "backbone",
    Part.SECOND: "dual_backbone",
    Part.HEAD: "head",
    Part.HEAD2: "head2",
}
_MODULES = {
    "Conv": Op.CONV,
    "MP": Op.MAX_POOL,
    "ReOrg": Op.SPACE_TO_DEPTH,
    "Concat": Op.CONCAT,
    "nn.Upsample": Op.UPSAMPLE,
    "SPPCSPC": Op.SPPCSPC,
    "RepConv": Op.REP_CONV,
    "CBLinear": Op.CB_LINEAR,
    "CBFuse": Op.CB_FUSE,
    "IDetect": Op.DETECT,
    "Detect": Op.DETECT,
}
_MOST_ROWS = 300  # of a part; the largest published one has 47
_LARGEST_KERNEL = 64  # and stride
_SHOWN = 200  # characters of a problem with a row
_READ_SEVERAL = (Op.CONCAT, Op.CB_FUSE, Op.DETECT)


@dataclass(frozen=True)
class _Place:
    """Where in the file a row stands, for messages."""

    path: Path
    part: Part
    index: int

    def error(self, problem: str) -> ConfigError:
        return ConfigError(
            f"{self.path}, {_SECTIONS[self.part]} row {self.index}: {problem[:_SHOWN]}"
        )


def read_topology(path: Path) -> Topology:
    """Read a topology.

    Raises:
        ConfigError: the file is unreadable, a part is missing, or a row is not understood;
            the message names the row.
    """
    config = _read_yaml(path)
    depth = config.get("depth_multiple", 1.0)
    if not isinstance(depth, (int, float)) or isinstance(depth, bool) or not 0 < depth < 100:
        raise ConfigError(
            f"{path}: depth_multiple is {depth!r}, expected a number between 0 and 100"
        )
    parts = {}
    for part, section in _SECTIONS.items():
        rows = config.get(section)
        if not isinstance(rows, list) or not rows:
            raise ConfigError(f"{path} has no list {section!r}, which a dynamic detector needs")
        if len(rows) > _MOST_ROWS:
            raise ConfigError(
                f"{path}: {section} has {len(rows)} rows, expected {_MOST_ROWS} at most"
            )
        parts[part] = tuple(_row(_Place(path, part, i), row, depth) for i, row in enumerate(rows))
    indices = config.get("router_ins", config.get("b1_save"))
    if not isinstance(indices, list) or not all(isinstance(index, int) for index in indices):
        raise ConfigError(f"{path}: router_ins is {indices!r}, expected a list of row numbers")
    count = len(parts[Part.FIRST])
    if outside := [index for index in indices if not 0 <= index < count]:
        raise ConfigError(f"{path}: router_ins names rows {outside}, the backbone has {count}")
    router = tuple(Ref(Part.FIRST, index) for index in indices)
    return Topology(path.stem, parts, router)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        config = load_yaml(read_file(path, 4 * LARGEST_YAML).decode())
    except OSError as error:
        let_through(error)
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path} holds {type(config).__name__}, expected a mapping")
    return config


def _row(place: _Place, row: Any, depth: float) -> Row:
    if not isinstance(row, list) or len(row) != 4:
        raise place.error(f"{row!r} is not [from, number, module, args]")
    sources, number, module, args = row
    if not isinstance(module, str) or module not in _MODULES:
        raise place.error(f"module {module!r} is unknown, expected {', '.join(_MODULES)}")
    if not isinstance(number, int) or not 1 <= number <= 100 or not isinstance(args, list):
        raise place.error(f"{row!r} is not [from, number, module, args]")
    op = _MODULES[module]
    repeat = max(1, round(number * depth)) if number > 1 else 1
    if repeat > 1 and op is not Op.CONV:
        raise place.error(f"{module} cannot be repeated {repeat} times")
    sources = sources if isinstance(sources, list) else [sources]
    inputs = tuple(_source(place, source) for source in sources)
    if not inputs or (len(inputs) > 1 and op not in _READ_SEVERAL):
        raise place.error(f"{module} reads {counted(len(inputs), 'row')}, expected one")
    if op is Op.CONCAT and args not in ([], [1]):
        raise place.error(f"Concat has {args!r}, only [1] (channels) is supported")
    if op is Op.SPPCSPC and len(args) > 1:
        raise place.error(f"SPPCSPC has {args!r}, only [channels] is supported")
    kernel, stride = _kernel_and_stride(place, op, args)
    split_index = tuple(args[0]) if op is Op.CB_FUSE and args and isinstance(args[0], list) else ()
    if op is Op.CB_FUSE and (
        len(split_index) != len(inputs) - 1
        or not all(isinstance(index, int) and index >= 0 for index in split_index)
    ):
        raise place.error(
            f"CBFuse has {counted(len(inputs), 'input')} and splits {args!r}, one too few or many"
        )
    return Row(Ref(place.part, place.index), op, inputs, (), kernel, stride, split_index, repeat)


def _source(place: _Place, source: Any) -> Ref:
    if source == "input":
        return IMAGE
    if not isinstance(source, int) or isinstance(source, bool):
        raise place.error(f"'from' is {source!r}, expected a row number or 'input'")
    if source >= 0:
        return Ref(place.part.source, source)
    index = place.index + source
    if index == -1 and place.part is Part.FIRST:
        return IMAGE
    if index < 0:
        raise place.error(f"'from' is {source}, which points before the part's first row")
    return Ref(place.part, index)


def _kernel_and_stride(place: _Place, op: Op, args: list[Any]) -> tuple[int, int]:
    """Kernel and stride from ``[channels, kernel, stride]``; widths come from the checkpoint."""
    if op not in (Op.CONV, Op.REP_CONV):
        if op is Op.UPSAMPLE and args[1:] != [2, "nearest"]:
            raise place.error(f"nn.Upsample has {args!r}, only [None, 2, 'nearest'] is supported")
        if op is Op.MAX_POOL and args not in ([], [2]):
            raise place.error(f"MP has {args!r}, only a 2x2 pool is supported")
        return 1, 1
    numbers = [*args[1:], *[1, 1][len(args) - 1 :]]
    if len(numbers) != 2 or not all(
        isinstance(n, int) and 0 < n <= _LARGEST_KERNEL for n in numbers
    ):
        raise place.error(
            f"arguments {args!r} are not [channels, kernel, stride], "
            f"the last two from 1 to {_LARGEST_KERNEL}"
        )
    if op is Op.REP_CONV and numbers[0] != 3:
        raise place.error(f"RepConv has kernel {numbers[0]}, only 3 is supported")
    return numbers[0], numbers[1]
