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
_blocks = partial(typer.Option, rich_help_panel="Blocks of backbones")


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
        _what("--images", "-i", help="Pictures or folders. Default: synthetic pictures."),
    ] = None
    annotations: Annotated[
        Path | None,
        _what("--annotations", "-a", help="COCO JSON, VOC or YOLO; adds AP to the curve."),
    ] = None
    kept: Annotated[
        int,
        _what("--pictures", min=1, help="Number of pictures to use of --images, evenly spread."),
    ] = 64
    synthetic: Annotated[
        str | None, _what(metavar="HxW", help="Size of synthetic pictures. Default: 720x1280.")
    ] = None


@dataclass(frozen=True)
class ScenarioOptions:
    """The ways in which they are run."""

    batch: Annotated[str, _what("--batch", "-b", help="Batch sizes.")] = "1,8"
    hard: Annotated[
        str | None,
        _what(help="Shares of images that are forced to the last exit. Default: 0,50%,100%."),
    ] = None
    concurrency: Annotated[str, _what(help="Numbers of concurrent callers.")] = "1"
    rate: Annotated[
        str | None, _what(help="Also make calls at these rates per second, such as 5,30 (batch 1).")
    ] = None
    decode: Annotated[
        bool, _what("--decode", help="Also time calls that decode the picture (batch 1).")
    ] = False
    speed: SpeedOption = None


@dataclass(frozen=True)
class EffortOptions:
    """How long is measured."""

    seconds: Annotated[
        float | None,
        _how_long(min=0.05, max=86_400, help="Seconds of calls in each scenario. Default: 5."),
    ] = None
    rounds: Annotated[
        int | None,
        _how_long(
            min=2,
            help="Number of rounds in which scenarios take turns; baselines get no more. Default: "
            "10.",
        ),
    ] = None
    min_calls: Annotated[
        int | None,
        _how_long(
            min=2, help="Minimum number of calls in each scenario, however slow. Default: 6."
        ),
    ] = None
    quick: Annotated[
        bool,
        _how_long(
            "--quick",
            help="A first look: short, with few rounds, and only the baselines that are named.",
        ),
    ] = False


@dataclass(frozen=True)
class BaselineOptions:
    """What dyninfer is compared with in the same run."""

    against: Annotated[
        str | None,
        _against(
            help="Baselines: single-graph-if, always-last-exit, naive, pytorch-eager, "
            "pytorch-folded, torch-compile, all, PATH.onnx, or none. Default: always-last-exit."
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
            help="Compare two records; exit status 0: NEW is not slower, 1: slower, 2: no record, "
            "3: cannot be compared, 4: unclear.",
        ),
    ] = None
    from_record: Annotated[
        Path | None,
        _against("--from", metavar="RECORD", help="Show an earlier record, without a run."),
    ] = None


@dataclass(frozen=True)
class BlockOptions:
    """Blocks of backbones, in place of a bundle."""

    blocks: Annotated[
        bool,
        _blocks(
            "--blocks",
            help="Measure what blocks take on this device, for **dyninfer search backbone "
            "--budget-latency**.",
        ),
    ] = False
    image_size: Annotated[
        str | None,
        _blocks(
            "--image-size",
            "--imgsz",
            help="N or HxW (height first), multiples of 32. Default: 640.",
        ),
    ] = None


@dataclass(frozen=True)
class OutputOptions:
    """What becomes of a record, wherever it comes from."""

    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the record as JSON.")
    ] = None
    report: Annotated[Path | None, typer.Option(help="Write a report as one HTML file.")] = None
    format_: Annotated[Format, typer.Option("--format", help="Format of what is printed.")] = (
        Format.TABLE
    )
