"""What a bundle's accuracy loses where its stages give on only their best candidates.

``python -m dyninfer.benchmarks.lab.kept_candidates all.dyn labels.json *.jpg -o record.json``
runs a bundle that was exported with ``--candidates all`` along every way, leaves each time the
anchors with the largest class scores, and compares average precisions, at the bundle's options of
evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from dyninfer.benchmarks.lab.records import measure_into, record_of
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.benchmarks.report.terminal import Terminal
from dyninfer.errors import InputError
from dyninfer.evaluation.coco import average_precision
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.outcomes import AtWay, read_pictures, trace_picture
from dyninfer.results.answers import Detections
from dyninfer.runtime.detector import Detector
from dyninfer.runtime.opening import load

COUNTS = (100, 300, 500, 1000, 2000, 3000)


@dataclass(frozen=True)
class Row:
    """A way's average precision, in [0, 1], with its best ``kept`` of ``anchors``."""

    bundle: str
    way: str
    anchors: int
    kept: int
    ap: float
    ap50: float


def best_of(way: AtWay, count: int) -> AtWay:
    """A way's outputs with the anchors of the largest class scores, the largest first."""
    best = np.argsort(-way.outputs["class_scores"].max(1), kind="stable")[:count]
    outputs: Mapping[str, Any] = {name: array[best] for name, array in way.outputs.items()}
    return replace(way, outputs=outputs)


def rows_of(detector: Detector, samples: Samples) -> list[Row]:
    """Every way with all of its anchors, and with fewer."""
    if samples.truths is None:
        raise InputError("the pictures have no labels; give the labels of every one")
    pictures = [trace_picture(detector, image).ways for image in read_pictures(samples.items)]
    options, classes = detector.manifest.evaluation_options, len(detector.class_names)
    rows = []
    for index, name in enumerate(detector.manifest.way_names):
        ways = [picture[index] for picture in pictures]
        anchors = len(ways[0].outputs["class_scores"])
        for count in (*(count for count in COUNTS if count < anchors), anchors):
            found = [cast(Detections, best_of(way, count).answer(options)) for way in ways]
            measured = average_precision(samples.truths, found, classes)
            if measured.ap is None or measured.ap50 is None:
                raise InputError("the labels hold no object; give pictures with objects in them")
            row = Row(detector.manifest.name, name, anchors, count, measured.ap, measured.ap50)
            rows.append(row)
    return rows


def print_rows(rows: Sequence[Row]) -> None:
    """All rows, in points."""
    table = make_table(
        "Average precision with the best candidates only",
        column("bundle", (row.bundle for row in rows), words=True),
        column("way", (row.way for row in rows), words=True),
        column("anchors", (str(row.anchors) for row in rows)),
        column("kept", (str(row.kept) for row in rows)),
        column("AP", (f"{100 * row.ap:.3f}" for row in rows)),
        column("AP50", (f"{100 * row.ap50:.3f}" for row in rows)),
    )
    print_table(table, Terminal())


def measure(bundle: Path, annotations: Path, pictures: list[Path]) -> dict[str, Any]:
    """The record, and its table on the terminal.

    Raises:
        DyninferError: something cannot be read.
    """
    with load(bundle) as detector:
        samples = load_samples(pictures, annotations, detector.class_names)
        rows = rows_of(detector, samples)
        options = asdict(detector.manifest.evaluation_options)
    print_rows(rows)
    words = ["kept_candidates", bundle.name, annotations.name, "PICTURES"]
    what = "Average precision where only the best candidates are given on."
    return record_of(what, words, rows, pictures=len(samples.items), options=options)


def main(
    bundle: Annotated[Path, typer.Argument(help="Exported with --candidates all.")],
    annotations: Annotated[Path, typer.Argument(help="Labels of the pictures, as COCO's.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The record to write.")],
) -> None:
    """Measure a bundle with all and with fewer candidates."""
    measure_into(output, lambda: measure(bundle, annotations, pictures))


if __name__ == "__main__":
    typer.run(main)
