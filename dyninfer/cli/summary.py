"""The table at the end of ``dyninfer predict``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.markup import escape
from rich.table import Table

from dyninfer.results.answers import Answer
from dyninfer.routing.goals import describe_setting
from dyninfer.runtime.detector import Detector
from dyninfer.spans import AFTER_STAGES, BEFORE_STAGES


def summary_table(detector: Detector, results: Sequence[Answer]) -> Table:
    """Per way: share of the pictures, easiness, and milliseconds of every stage.

    Milliseconds are medians over the pictures that ran the stage, each with its share of its
    batch.
    """
    setting = describe_setting(detector.policy, detector.active_policy)
    title = escape(f"{detector.manifest.name}, {setting}")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    names = detector.manifest.way_names
    groups = [[r for r in results if r.exit_index == index] for index in range(len(names))]
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("all", justify="right")
    columns: list[Sequence[Answer]] = [*groups, results]
    table.add_row("pictures", *(str(len(group)) for group in columns))
    table.add_row("share", *(f"{len(group) / len(results):.1%}" for group in columns))
    table.add_row("easiness", *(_spread(group) for group in columns), end_section=True)
    steps = dict.fromkeys(name for result in results for name in result.timings_ms)
    order = [*BEFORE_STAGES, *detector.manifest.route.stages, *AFTER_STAGES]
    for step in sorted(steps, key=order.index):
        table.add_row(f"{step} ms", *(_median_ms(group, step) for group in columns))
    table.add_row("total ms", *(_median_ms(group, None) for group in columns))
    return table


def _spread(results: Sequence[Answer]) -> str:
    """Least, median and largest easiness."""
    values = [result.easiness for result in results if result.easiness is not None]
    if not values:
        return "-"
    return f"{min(values):.3f} / {float(np.median(values)):.3f} / {max(values):.3f}"


def _median_ms(results: Sequence[Answer], step: str | None) -> str:
    """Median of one step, or of the sum of all steps."""
    values = [
        sum(result.timings_ms.values()) if step is None else result.timings_ms[step]
        for result in results
        if step is None or step in result.timings_ms
    ]
    return f"{float(np.median(values)):.2f}" if values else "-"
