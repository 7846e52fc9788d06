"""What ``dyninfer fit-router`` prints of a chooser: at each branch's cost, beside that branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dyninfer.benchmarks.report.figures import points, readable
from dyninfer.benchmarks.report.table import column, make_table, print_table
from dyninfer.cli.common import stdout, warn
from dyninfer.evaluation.choice_quality import ChoiceComparison, Quality
from dyninfer.evaluation.router_quality import MeanStd, Metric
from dyninfer.results.scores import Scores

if TYPE_CHECKING:
    from dyninfer.exporters.router.choosing import ChooserFit


def print_chooser(fit: ChooserFit) -> None:
    """A table, who is better, and what speaks against it."""
    record, comparison, truth = fit.record, fit.comparison, ""
    if record["found_confidence"] is not None:
        truth = f", the truth being what the dearest finds above {record['found_confidence']:.3g}"
    title = (
        f"Choosing a branch at the cost of each{truth}; mean and spread over {record['seeds']} "
        f"splits of {record['images']} pictures"
    )
    lines = list(_lines(comparison))
    names = ("MACs", "chosen by", "% at " + "/".join(map(str, range(len(comparison.fixed)))))
    macs, by, shares, ap, ap50 = zip(*lines, strict=True)
    print_table(
        make_table(
            title,
            column(names[0], macs),
            column(names[1], by, words=True),
            column(names[2], shares),
            column("AP", ap),
            column("AP50", ap50),
        ),
        stdout,
    )
    gain = comparison.gain
    stdout.print(
        f"chooser of {readable(comparison.chooser_macs)} MACs, which are counted: above random "
        f"choices of the same shares by {100 * gain.mean:.1f} points of "
        f"{comparison.metric.label}, standard error {100 * gain.standard_error:.1f}; the oracle "
        "knows the pictures' own losses, which is good but not the best possible"
    )
    for line in _doubts(comparison):
        warn(line)


def _lines(comparison: ChoiceComparison) -> list[tuple[str, ...]]:
    """Multiply-accumulates, who chooses, shares, AP and AP50."""
    lines: list[tuple[str, ...]] = []
    judged = {row.branch: row for row in comparison.rows}
    for branch in sorted(range(len(comparison.fixed)), key=comparison.branch_macs.__getitem__):
        macs, fixed = comparison.branch_macs[branch], comparison.fixed[branch]
        lines.append((readable(macs), f"always branch {branch}", "", *_points(fixed)))
        if row := judged.get(branch):
            shares = "/".join(f"{100 * share:.0f}" for share in row.shares)
            lines += [
                (readable(row.macs), "chooser", shares, *_spreads(row.fitted)),
                ("", "random", "", *_spreads(row.random)),
                ("", "oracle", "", *_points(row.oracle)),
            ]
    return lines


def _points(found: Scores) -> tuple[str, str]:
    return points(found.primary), points(found.secondary)


def _spreads(found: Quality) -> tuple[str, str]:
    return _spread(found.ap), _spread(found.ap50)


def _spread(found: MeanStd) -> str:
    return f"{points(found.mean)} ± {points(found.std)}"


def _doubts(comparison: ChoiceComparison) -> list[str]:
    """Costs at which one size for all is as good as the chooser."""
    metric = comparison.metric
    if not comparison.gain.is_one:
        return []  # which is refused
    worse = []
    for row in comparison.rows:
        own, fixed = row.fitted.by(metric).mean, _of(row.fixed, metric) or 0.0
        if fixed >= own:
            cost = readable(comparison.branch_macs[row.branch])
            always = f"always branch {row.branch} {points(fixed)}"
            worse.append(f"{cost} MACs ({always}, chooser {points(own)})")
    if not worse:
        return []
    return [
        f"the chooser is no better than one branch for all pictures at {'; '.join(worse)}, by "
        f"{metric.label}"
    ]


def _of(scores: Scores, metric: Metric) -> float | None:
    return scores.primary if metric is Metric.AP else scores.secondary
