"""Two records of ``dyninfer bench`` beside each other, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from dyninfer.cli.bench_tables import (
    add_scenario_columns,
    how_run,
    scenario_cells,
    scenario_table,
    significant,
)
from dyninfer.cli.common import stdout

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.comparison import RecordComparison


def print_comparison(comparison: RecordComparison) -> None:
    """A row for each scenario that both records have, and the verdict."""
    from dyninfer.benchmarks.latency.compare_text import lines_of

    stdout.print(comparison_table(comparison))
    for line in lines_of(comparison):
        stdout.print(escape(line), soft_wrap=True)


def comparison_table(comparison: RecordComparison) -> Table:
    """Median latencies, old and new, and what can be said of their ratio."""
    unusual = any(how_run(change.scenario) for change in comparison.scenarios)
    table = scenario_table("median milliseconds of a call")
    add_scenario_columns(table, unusual)
    for column in ("old", "new", "new/old", f"{comparison.confidence:.0%}", "verdict"):
        table.add_column(column, justify="right", no_wrap=True)
    for change in comparison.scenarios:
        latency = change.latency
        table.add_row(
            *scenario_cells(change.scenario, unusual),
            significant(latency.old),
            significant(latency.new),
            f"{latency.ratio.value:.3f}",
            f"{latency.ratio.low:.2f} to {latency.ratio.high:.2f}",
            change.verdict.value,
        )
    return table
