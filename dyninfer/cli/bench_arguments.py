"""The options of ``dyninfer bench`` in groups: what each is called and what its help says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.cli.options import SpeedOption

_how_long = partial(typer.Option, rich_help_panel="How long")
_what = partial(typer.Option, rich_help_panel="What is run")
_against = partial(typer.Option, rich_help_panel="Baselines and earlier records")


class Format(str, Enum):
    """How results are printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


@dataclass(frozen=True)
class PictureOptions:
    """Which pictures are run."""

    images: Annotated[
        list[Path] | None,
        _what("--images", "-i", help="Pictures or folders; made-up ones if absent."),
    ] = None
    annotations: Annotated[
        Path | None,
        _what("--annotations", "-a", help="COCO JSON, VOC or YOLO; adds AP to the curve."),
    ] = None
    kept: Annotated[
        int, _what("--pictures", min=1, help="Keep so many of --images, evenly spread.")
    ] = 64
    synthetic: Annotated[
        str | None, _what(metavar="HxW", help="Size of made-up pictures; 720x1280 if absent.")
    ] = None


@dataclass(frozen=True)
class ScenarioOptions:
    """The ways in which they are run."""

    batch: Annotated[str, _what("--batch", "-b", help="Images in a call.")] = "1,8"
    hard: Annotated[
        str | None,
        _what(help="Shares of the images forced to the last exit; 0,50%,100% if absent."),
    ] = None
    concurrency: Annotated[str, _what(help="Callers at once.")] = "1"
    rate: Annotated[
        str | None, _what(help="Also calls on schedule, so many a second, such as 5,30 (batch 1).")
    ] = None
    decode: Annotated[
        bool, _what("--decode", help="Also decode pictures within the call (batch 1).")
    ] = False
    speed: SpeedOption = None


@dataclass(frozen=True)
class EffortOptions:
    """How long is measured."""

    seconds: Annotated[
        float | None,
        _how_long(min=0.05, max=86_400, help="Of calls in each scenario; 5 if absent."),
    ] = None
    rounds: Annotated[
        int | None,
        _how_long(
            min=2, help="In which scenarios take turns; 10 if absent. Baselines get no more."
        ),
    ] = None
    min_calls: Annotated[
        int | None, _how_long(min=2, help="In each scenario, however slow; 6 if absent.")
    ] = None
    quick: Annotated[
        bool,
        _how_long(
            "--quick",
            help="A first look: short, few rounds; no baselines but named ones, in few rounds.",
        ),
    ] = False


@dataclass(frozen=True)
class BaselineOptions:
    """What dyninfer is compared with in the same run."""

    against: Annotated[
        str | None,
        _against(
            help="Baselines: single-graph-if, always-last-exit, naive, pytorch-eager, "
            "pytorch-folded, torch-compile, all, PATH.onnx, or none; always-last-exit if absent."
        ),
    ] = None
    source: Annotated[list[Path] | None, _against(help="Checkpoint, for baselines in PyTorch.")] = (
        None
    )


@dataclass(frozen=True)
class RecordOptions:
    """Records to show or to compare, in place of a measurement."""

    compare: Annotated[
        tuple[Path, Path] | None,
        _against(
            metavar="OLD NEW",
            help="Compare two records; status 0: NEW is not slower, 1: slower, 2: no record, "
            "3: cannot be compared, 4: unclear.",
        ),
    ] = None
    from_record: Annotated[
        Path | None,
        _against("--from", metavar="RECORD", help="Show a record again, without a run."),
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """What becomes of a record, wherever it comes from."""

    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the record as JSON.")
    ] = None
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file.")] = None
    format_: Annotated[Format, typer.Option("--format", help="Of what is printed.")] = Format.TABLE
