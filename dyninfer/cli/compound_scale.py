"""``dyninfer compound-scale``: what one number makes of an EfficientDet."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.cli.common import print_json, stdout
from dyninfer.cli.options import JsonOption
from dyninfer.exporters.extras import require_export_extra

if TYPE_CHECKING:
    from dyninfer.exporters.efficientdet.cost import Cost
    from dyninfer.exporters.efficientdet.scaling import Scaled


def compound_scale(
    phi: Annotated[
        str,
        typer.Argument(metavar="PHI", help="From 0 up, fractions too; or 7x.", show_default=False),
    ],
    json_output: JsonOption = False,
) -> None:
    """Print what EfficientDet's compound scaling makes of a number, and what that costs.

    The formulas give a configuration for any number; those that were published for 0 to 7, and 7x,
    differ from them and stand beside them. Parameters and multiply-accumulates are counted on the
    model itself, built without its memory, for COCO's 90 columns of classes.

    Example: **dyninfer compound-scale 3**
    """
    require_export_extra()
    from dyninfer.exporters.efficientdet.config import PUBLISHED
    from dyninfer.exporters.efficientdet.cost import cost_of
    from dyninfer.exporters.efficientdet.scaling import ideal

    number = _parse(phi)
    found: dict[str, Scaled] = {}
    if number is not None:
        found["formulas"] = ideal(number)
    size = "7x" if number is None else f"{number:g}"
    published = PUBLISHED.get(f"tf_efficientdet_d{size}")
    if published is not None:
        found[published.name] = published.scaled
    costs = {name: cost_of(scaled) for name, scaled in found.items()}
    if json_output:
        print_json({"phi": phi, **{name: _plain(found[name], costs[name]) for name in found}})
        return
    rows = {name: _row(found[name], costs[name]) for name in found}
    quantities = column("", next(iter(rows.values())), words=True)
    values = [column(name, row.values()) for name, row in rows.items()]
    print_table(make_table(f"EfficientDet of the size {size}", quantities, *values), stdout)


def _row(scaled: Scaled, cost: Cost) -> dict[str, str]:
    """What is shown of a configuration, by what it is called."""
    return {
        "backbone, factor of width": f"{scaled.width:.4g}",
        "backbone, factor of depth": f"{scaled.depth:.4g}",
        "image size": f"{scaled.image_size}",
        "BiFPN channels": f"{scaled.channels}",
        "BiFPN cells": f"{scaled.cells}",
        "convolutions of a head": f"{scaled.repeats}",
        "levels": f"P3 to P{2 + scaled.levels}",
        "fusion": "weighted" if scaled.weighted else "sum",
        "parameters": f"{cost.total_parameters:,}",
        "multiply-accumulates": f"{cost.total_macs:,}",
        "of the backbone": f"{cost.macs['backbone']:,}",
        "of the BiFPN": f"{cost.macs['fpn']:,}",
        "of the class head": f"{cost.macs['class_net']:,}",
        "of the box head": f"{cost.macs['box_net']:,}",
    }


def _parse(text: str) -> float | None:
    """A size as a number; None for 7x, which lies on no line.

    Raises:
        typer.BadParameter: it is none, or one that no model could be built of.
    """
    from dyninfer.exporters.efficientdet.scaling import MOST_PHI

    plain = text.strip().lower().removeprefix("d")
    if plain == "7x":
        return None
    try:
        number = float(plain)
    except ValueError:
        number = math.nan
    if not 0 <= number <= MOST_PHI:
        raise typer.BadParameter(
            f"PHI is {text!r}, expected a number from 0 to {MOST_PHI:g}, or 7x"
        )
    return number


def _plain(scaled: Scaled, cost: Cost) -> dict[str, Any]:
    return {
        "backbone_width": scaled.width,
        "backbone_depth": scaled.depth,
        "image_size": scaled.image_size,
        "bifpn_channels": scaled.channels,
        "bifpn_cells": scaled.cells,
        "head_repeats": scaled.repeats,
        "levels": scaled.levels,
        "fusion": "weighted" if scaled.weighted else "sum",
        "parameters": cost.total_parameters,
        "macs": cost.total_macs,
        "parameters_by_part": cost.parameters,
        "macs_by_part": cost.macs,
    }
