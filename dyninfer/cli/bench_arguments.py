"""Types of the options of ``dyninfer bench``: what each is called and what its help says."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

_HOW_LONG = "How long"
_WHAT = "What is run"
_AGAINST = "Baselines and earlier records"


class Format(str, Enum):
    """How results are printed."""

    TABLE = "table"
    MARKDOWN = "markdown"
    JSON = "json"


BundleOrNone = Annotated[
    Path | None,
    typer.Argument(metavar="BUNDLE", help="A bundle folder, NAME.dyn.", show_default=False),
]
ImagesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--images",
        "-i",
        help="Pictures or folders; made-up ones if absent.",
        rich_help_panel=_WHAT,
    ),
]
AnnotationsOption = Annotated[
    Path | None,
    typer.Option(
        "--annotations",
        "-a",
        help="COCO JSON; adds AP to the curve.",
        rich_help_panel=_WHAT,
    ),
]
PicturesOption = Annotated[
    int,
    typer.Option(
        "--pictures",
        min=1,
        help="Keep so many of --images, evenly spread.",
        rich_help_panel=_WHAT,
    ),
]
SyntheticOption = Annotated[
    str | None,
    typer.Option(
        "--synthetic",
        metavar="HxW",
        help="Size of made-up pictures; 720x1280 if absent.",
        rich_help_panel=_WHAT,
    ),
]
BatchesOption = Annotated[
    str, typer.Option("--batch", "-b", help="Images in a call.", rich_help_panel=_WHAT)
]
HardOption = Annotated[
    str | None,
    typer.Option(
        "--hard",
        help="Shares of the images forced to the last exit; 0,50%,100% if absent.",
        rich_help_panel=_WHAT,
    ),
]
ConcurrencyOption = Annotated[
    str,
    typer.Option("--concurrency", help="Callers at once.", rich_help_panel=_WHAT),
]
RateOption = Annotated[
    str | None,
    typer.Option(
        "--rate",
        help="Also calls on schedule, so many a second, such as 5,30 (batch 1).",
        rich_help_panel=_WHAT,
    ),
]
DecodeOption = Annotated[
    bool,
    typer.Option(
        "--decode",
        help="Also decode pictures within the call (batch 1).",
        rich_help_panel=_WHAT,
    ),
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        "--seconds",
        min=0.05,
        help="Of calls in each scenario; 5 if absent.",
        rich_help_panel=_HOW_LONG,
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--rounds",
        min=2,
        help="In which scenarios take turns; 10 if absent. Baselines get no more.",
        rich_help_panel=_HOW_LONG,
    ),
]
MinCallsOption = Annotated[
    int | None,
    typer.Option(
        "--min-calls",
        min=2,
        help="In each scenario, however slow; 6 if absent.",
        rich_help_panel=_HOW_LONG,
    ),
]
QuickOption = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="A first look: short, few rounds; no baselines but named ones, in few rounds.",
        rich_help_panel=_HOW_LONG,
    ),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        "--against",
        help="Baselines: single-graph-if, always-last-exit, naive, pytorch-eager, "
        "pytorch-folded, torch-compile, all, PATH.onnx, or none; always-last-exit if absent.",
        rich_help_panel=_AGAINST,
    ),
]
SourceOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--source",
        help="Checkpoint, for baselines in PyTorch.",
        rich_help_panel=_AGAINST,
    ),
]
CompareOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--compare",
        metavar="OLD NEW",
        help="Compare two records; status 1 where NEW is slower.",
        rich_help_panel=_AGAINST,
    ),
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="RECORD",
        help="Show a record again, without a run.",
        rich_help_panel=_AGAINST,
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write the record as JSON.")
]
ReportOption = Annotated[
    Path | None, typer.Option("--report", help="Write a report as one HTML file.")
]
FormatOption = Annotated[Format, typer.Option("--format", help="Of what is printed.")]
