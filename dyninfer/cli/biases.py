"""What a calibration says of multiply-accumulates: expected ones, and all along the cost bias."""

from __future__ import annotations

from collections.abc import Sequence

from dyninfer.benchmarks.report.figures import points, readable
from dyninfer.benchmarks.report.table import Column, Table, column, make_table
from dyninfer.bundle.calibration import Calibration, Figures


def figure_columns(rows: Sequence[Figures], metrics: Sequence[str]) -> tuple[Column, ...]:
    """Milliseconds, scores where they are known, and agreement."""
    first, second = metrics
    return (
        column("ms", (f"{row.mean_ms:.2f}" for row in rows)),
        column(first, (points(row.scores.primary) for row in rows)),
        column(second, (points(row.scores.secondary) for row in rows)),
        column("agreement", (f"{row.agreement:.3f}" for row in rows)),
    )


def bias_table(calibration: Calibration) -> Table:
    """A line for each cost bias, from the cheapest choice to the dearest; 0 is the chooser's own.

    The bias of a line is the least that keeps the mean at or below the line's multiply-accumulates.
    """
    rows = calibration.biases
    ways = "/".join(map(str, range(len(calibration.ways))))
    return make_table(
        f"{calibration.images.count} pictures along the cost bias; 0 is the chooser's own choice",
        column("bias", (f"{row.bias:.6g}" for row in rows)),
        column("MACs", (readable(row.mean_macs or 0) for row in rows)),
        column(f"% at {ways}", (_in_percent(row.shares) for row in rows)),
        *figure_columns(rows, calibration.metrics),
    )


def _in_percent(shares: Sequence[float]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares)


def expected_line(calibration: Calibration, way_names: Sequence[str]) -> str | None:
    """The mean of multiply-accumulates by the default policy; None where there is one way."""
    routed = calibration.routed
    if len(way_names) < 2 or routed is None or routed.mean_macs is None:
        return None
    pairs = zip(way_names, calibration.ways, strict=True)
    shares = ", ".join(f"{name} {way.share:.1%}" for name, way in pairs if way.share is not None)
    return f"expected {calibration.policy}: {readable(routed.mean_macs)} MACs per image ({shares})"
