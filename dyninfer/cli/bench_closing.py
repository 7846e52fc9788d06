"""The last part of a record for a terminal: memory, energy, baselines, model, what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.baseline_record import Baselines
    from dyninfer.benchmarks.latency.model_record import LatencyModel
    from dyninfer.benchmarks.latency.record import BenchRecord
    from dyninfer.evaluation.interleaved import RatioEstimate

ABSENT = "-"


def machine_lines(record: BenchRecord) -> str:
    """Energy and memory."""
    lines = []
    energy = record.energy
    if energy is not None:
        joules = ", ".join(
            f"exit {n} {value:.3g} J" for n, value in enumerate(energy.joules_by_exit)
        )
        lines.append(f"energy of an image above {energy.idle_watts:.1f} W at rest: {joules}")
    lines.append(f"largest resident memory: {record.peak_memory_mib:.0f} MiB")
    return escape("\n".join(lines))


def baseline_table(baselines: Baselines) -> Table:
    """The time of dyninfer over that of each baseline."""
    title = f"dyninfer's time / baseline's, {baselines.rounds} rounds, batch 1 (below 1: faster)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("baseline")
    sides = list(dict.fromkeys(ratio.side for ratio in baselines.ratios))
    for side in sides:
        table.add_column(side, justify="right", no_wrap=True)
        table.add_column("95 % interval", no_wrap=True)
    found = {(ratio.baseline, ratio.side): ratio.ratio for ratio in baselines.ratios}
    for name in dict.fromkeys(ratio.baseline for ratio in baselines.ratios):
        cells = [cell for side in sides for cell in _ratio_cells(found.get((name, side)))]
        table.add_row(escape(name), *cells)
    return table


def _ratio_cells(ratio: RatioEstimate | None) -> list[str]:
    if ratio is None:
        return [ABSENT, ""]
    return [f"{ratio.median:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}"]


def closing(record: BenchRecord) -> list[str]:
    """The model, and what is missing and why."""
    lines = [] if record.model is None else [model_line(record.model)]
    if record.missing:
        lines += [f"not measured: {what} ({why})" for what, why in record.missing.items()]
    return lines


def model_line(model: LatencyModel) -> str:
    """How well the model predicts, and where the cascade stops paying off."""
    held_out = sum(check.held_out for check in model.checks)
    fitted = len(model.checks)
    if held_out:
        over = f"{held_out} held-out scenario{'' if held_out == 1 else 's'}"
    else:
        over = "the one it was fitted on" if fitted == 1 else f"the {fitted} it was fitted on"
    line = f"latency model: mean error {model.mean_error:.1%} over {over}"
    if model.mean_noise is not None:
        line += f", measured within {model.mean_noise:.1%}"
    if model.break_even is not None:
        line += f"; {break_even_words(model.break_even)}"
    return line


def break_even_words(share: float) -> str:
    """Up to which share of hard images the cascade pays off."""
    if share <= 0:
        return "never faster than the last exit alone"
    if share >= 1:
        return "faster than the last exit alone at every share"
    if share < 0.01:
        return "faster than the last exit alone only below 1% hard"
    return f"faster than the last exit alone up to {min(share, 0.99):.0%} hard"
