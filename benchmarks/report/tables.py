"""Parts of a record as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dyninfer.benchmarks.latency.record import (
    Baselines,
    ContenderTimes,
    LatencyModel,
    ThresholdPoint,
)
from dyninfer.benchmarks.latency.scenario_record import (
    Distribution,
    Estimate,
    ScenarioResult,
    SpanKind,
)
from dyninfer.benchmarks.report.figures import ABSENT, interval, number, percent, points
from dyninfer.benchmarks.report.table import Cell, Column, Medium, Table, column, make_table
from dyninfer.benchmarks.report.words import leaves_at_several
from dyninfer.evaluation.interleaved import RatioEstimate
from dyninfer.plain_text import counted

_CURVE_ROWS = 9


def estimate_cell(estimate: Estimate | None, brief: str = "") -> Cell:
    """A figure with its interval, in place of which a terminal has ``brief``; a dash for None."""
    if estimate is None:
        return Cell(ABSENT)
    return Cell(number(estimate.value), interval(estimate), brief)


def half_width(estimate: Estimate) -> str:
    """How far the interval reaches, to its farther end; empty where there is none."""
    if not estimate.has_interval:
        return ""
    reach = max(estimate.high - estimate.value, estimate.value - estimate.low) / estimate.value
    return "±>100%" if reach > 1 else f"±{reach:.0%}"


def _percentiles(latencies: Sequence[Distribution | None]) -> list[Column]:
    def of_each(
        name: str, cell: Callable[[Distribution], Cell | str], media: Medium = Medium.ALL
    ) -> Column:
        cells = (ABSENT if times is None else cell(times) for times in latencies)
        return column(name, cells, media=media)

    return [
        of_each("p50 ms", lambda times: estimate_cell(times.p50_ms, half_width(times.p50_ms))),
        of_each("p90 ms", lambda times: estimate_cell(times.p90_ms), Medium.MARKDOWN),
        of_each("p95 ms", lambda times: estimate_cell(times.p95_ms)),
        of_each("p99 ms", lambda times: estimate_cell(times.p99_ms)),
        of_each("p99.9 ms", lambda times: estimate_cell(times.p999_ms)),
        of_each("slowest ms", lambda times: number(times.max_ms), Medium.WIDE),
        of_each("mean ms", lambda times: estimate_cell(times.mean_ms), Medium.TERMINAL),
    ]


def latency_table(results: Sequence[ScenarioResult]) -> Table:
    """Percentiles of every scenario."""
    # of throughput, not of latency: several callers and batches shorten it
    per_image = (  # at a fixed rate this would be the time between calls
        estimate_cell(r.ms_per_image if r.scenario.rate_per_s is None else None) for r in results
    )
    wide = Medium.WIDE
    return make_table(
        "Latency of a call",
        column("scenario", (r.name for r in results), words=True),
        column("calls", (f"{r.latency.count:,}" for r in results), media=wide),
        *_percentiles([r.latency for r in results]),
        column("ms between images", per_image, media=wide),
        column("images/s", (number(r.images_per_s.value) for r in results)),
        column("late calls", (percent(r.late_share, 1) for r in results), media=wide),
        column("J per image", (number(r.joules_per_image) for r in results), media=wide),
    )


def exits_table(results: Sequence[ScenarioResult], media: Medium = Medium.ALL) -> Table:
    """Latency by the exit at which all images of a call left, where several exits have calls."""
    found = [(r, exit_) for r in results if leaves_at_several(r) for exit_ in r.exits]
    latencies = [exit_.latency for _, exit_ in found]
    return make_table(
        "Latency by exit",
        column("scenario", (result.name for result, _ in found), words=True),
        column("exit", (str(exit_.exit_index) for _, exit_ in found)),
        column("images", (percent(exit_.share, 1) for _, exit_ in found)),
        column("calls", (f"{t.count:,}" if t else ABSENT for t in latencies), media=Medium.WIDE),
        *_percentiles(latencies),
        media=media,
    )


def spans_table(result: ScenarioResult, media: Medium = Medium.ALL) -> Table:
    """Every step of one scenario, and their sum."""
    spans = [span for span in result.spans if span.share]
    total = sum(span.ms_per_image.value for span in result.spans)
    shares = [span.ms_per_image.value / (total or 1) for span in spans]
    bars = [Cell(percent(share, 1), share=share) for share in shares]
    times = [estimate_cell(span.ms_per_image) for span in spans]
    return make_table(
        f"Steps at {result.name}",
        column("step", [*(span.name for span in spans), "sum"], words=True),
        column("kind", [*(s.kind.value for s in spans), ""], words=True, media=Medium.WIDE),
        column("ms per image", [*times, number(total)]),
        column("of the time", [*bars, ""]),
        column("images", [*(percent(span.share) for span in spans), ""]),
        column("ms when run", [*(number(span.ms_when_run) for span in spans), ""]),
        media=media,
    )


def kinds_table(results: Sequence[ScenarioResult], media: Medium = Medium.ALL) -> Table:
    """Milliseconds per image by the kind of work, one row for each scenario."""
    found = {span.kind for result in results for span in result.spans if span.share}
    spent: list[dict[SpanKind, float]] = [{} for _ in results]
    for sums, result in zip(spent, results, strict=True):
        for span in result.spans:
            sums[span.kind] = sums.get(span.kind, 0.0) + span.ms_per_image.value
    return make_table(
        "Mean ms per image by kind of work, closed loop",
        column("scenario", (result.name for result in results), words=True),
        *(
            column(kind.value, (number(sums.get(kind, 0.0)) for sums in spent))
            for kind in SpanKind
            if kind in found
        ),
        column("together", (number(sum(sums.values())) for sums in spent)),
        media=media,
    )


def curve_table(curve: Sequence[ThresholdPoint], media: Medium = Medium.ALL) -> Table:
    """What every setting of the threshold does."""
    return make_table(
        "What a threshold does",
        column("threshold", (f"{point.threshold:.4g}" for point in curve)),
        column("hard images", (percent(point.hard_fraction, 1) for point in curve)),
        column("AP", (points(point.ap) for point in curve)),
        column("AP50", (points(point.ap50) for point in curve)),
        column("agreement", (percent(point.agreement, 1) for point in curve)),
        column("ms per image", (number(point.mean_ms) for point in curve)),
        column("images/s", (number(1000 / point.mean_ms) for point in curve)),
        media=media,
    )


def thinned(curve: Sequence[ThresholdPoint]) -> list[ThresholdPoint]:
    """A few points, the two ends among them, evenly over the hard fraction."""
    if len(curve) <= _CURVE_ROWS:
        return list(curve)
    last = _CURVE_ROWS - 1
    low, high = curve[0].hard_fraction, curve[-1].hard_fraction
    wanted = [low + (high - low) * step / last for step in range(1, last)]
    inner = range(1, len(curve) - 1)
    near = {min(inner, key=lambda i: abs(curve[i].hard_fraction - want)) for want in wanted}
    return [curve[0], *(curve[index] for index in sorted(near)), curve[-1]]


def ratios_table(baselines: Baselines) -> Table:
    """Time of dyninfer over that of each baseline, one column for each side."""
    ratios = baselines.ratios
    names = list(dict.fromkeys(entry.baseline for entry in ratios))
    found = {(entry.baseline, entry.side): entry.ratio for entry in ratios}
    differences = (_difference(baselines.differences.get(name)) for name in names)
    return make_table(
        f"Time of dyninfer over the baseline's, {counted(baselines.rounds, 'round')}",
        column("against", names, words=True),
        *(
            column(f"{side} images", (_ratio(found.get((name, side))) for name in names))
            for side in dict.fromkeys(entry.side for entry in ratios)
        ),
        column("difference of results", differences, media=Medium.WIDE),
    )


def _ratio(ratio: RatioEstimate | None) -> Cell:
    return Cell(ABSENT) if ratio is None else Cell(number(ratio.median), interval(ratio))


def _difference(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0e}" if value else "none"


def contenders_table(baselines: Baselines) -> Table:
    """Times of dyninfer and every baseline, one column for each side."""
    what = {entry.name: (entry.what, baselines.notes.get(entry.name)) for entry in baselines.times}
    names = (Cell(name, "; ".join(filter(None, said))) for name, said in what.items())
    sides = dict.fromkeys(entry.side for entry in baselines.times)
    found = {(entry.name, entry.side): entry for entry in baselines.times}
    by_side = {side: [found.get((name, side)) for name in what] for side in sides}
    return make_table(
        f"Times over {counted(baselines.rounds, 'round')}, with quartiles",
        column("contender", names, words=True),
        *(column(f"{side}, median ms", map(_median, times)) for side, times in by_side.items()),
        *(column(f"{side}, idle CPU ms", map(_idle, times)) for side, times in by_side.items()),
        media=Medium.PAGE,
    )


def _median(entry: ContenderTimes | None) -> Cell:
    if entry is None:
        return Cell(ABSENT)
    return Cell(number(entry.median_ms), f"{number(entry.p25_ms)} to {number(entry.p75_ms)}")


def _idle(entry: ContenderTimes | None) -> str:
    return ABSENT if entry is None else number(entry.idle_cpu_ms)


def memory_table(baselines: Baselines) -> Table:
    """Memory of a fresh process for each contender."""
    memory = baselines.memory
    return make_table(
        "Memory of a fresh process",
        column("contender", (entry.name for entry in memory), words=True),
        column("load ms", (number(entry.load_ms) for entry in memory)),
        column("after loading MiB", (number(entry.loaded_mib) for entry in memory)),
        column("peak MiB", (number(entry.peak_mib) for entry in memory)),
    )


def reasons_table(
    title: str, first: str, reasons: Mapping[str, str], media: Medium = Medium.WIDE
) -> Table:
    """What is absent, and why; a terminal is told of it beside the tables."""
    return make_table(
        title,
        column(first, reasons, words=True),
        column("why", reasons.values(), words=True),
        media=media,
    )


def steps_table(model: LatencyModel) -> Table:
    """What each step costs by the latency model."""
    steps = model.steps
    return make_table(
        "Cost of each step by the model",
        column("step", (step.name for step in steps), words=True),
        column("images", (step.runs_for.value for step in steps), words=True),
        column("first image, ms", (number(step.first_ms) for step in steps)),
        column("each further, ms", (number(step.further_ms) for step in steps)),
        media=Medium.PAGE,
    )


def checks_table(model: LatencyModel) -> Table:
    """The model's prediction of every scenario."""
    checks = model.checks
    used = ("held out" if check.held_out else "fitted on" for check in checks)
    return make_table(
        "Measured and predicted, per image",
        column("scenario", (check.scenario.name for check in checks), words=True),
        column("measured ms", (number(check.measured_ms) for check in checks)),
        column("predicted ms", (number(check.predicted_ms) for check in checks)),
        column("error", (_signed_percent(check.error) for check in checks)),
        column("used", used),
        media=Medium.PAGE,
    )


def _signed_percent(share: float) -> str:
    rounded = round(100 * share, 1)
    return f"{rounded:+.1f} %" if rounded else "0.0 %"
