"""The section with the slider: every position, and what each shows.

All of it is decided here, so that the script only shows it. The exit of a sample picture follows
the runtime's rule: it leaves at the first exit whose easiness is at least the threshold; NaN counts
as hard (:func:`dyninfer.routing.policy.route`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from dyninfer.benchmarks.latency.record import BenchRecord, SampleImage, ThresholdPoint
from dyninfer.benchmarks.latency.step_costs import RowSpread, predict_ms
from dyninfer.benchmarks.report import words
from dyninfer.benchmarks.report.figures import ms, number, percent
from dyninfer.benchmarks.report.slider_charts import (
    Quality,
    curve_chart,
    easiness_chart,
    quality_of,
)
from dyninfer.benchmarks.report.svg import Chart, moved_to
from dyninfer.benchmarks.report.table import PageBlock, Table
from dyninfer.benchmarks.report.tables import curve_table

_START_FRACTION = 0.5
_MODELLED_EXITS = 2
_MIN_DIGITS, _MAX_DIGITS = 4, 17


@dataclass(frozen=True)
class Setting:
    """One position of the slider.

    Attributes:
        texts: what is shown, by the name of its place on the page.
        policy: Python that sets this position.
        spoken: the position for a screen reader.
        exits: the exit at which each sample leaves, from 0.
    """

    texts: dict[str, str]
    policy: str
    spoken: str
    exits: tuple[int, ...]


@dataclass(frozen=True)
class SpeedAccuracy(PageBlock):
    """The slider and what follows it.

    Attributes:
        chart: None where there is no measure of accuracy; ``note`` says why.
        quality: name of that measure; empty where there is none.
        current: the position that the page opens with, the one at ``start``.
        pictures: data URLs of the samples; empty where the record holds no picture.
        data: every position, for the script.
    """

    chart: Chart | None
    note: str
    quality: str
    current: Setting
    start: int
    exits: int
    samples: Sequence[SampleImage]
    pictures: Sequence[str]
    table: Table
    data: Mapping[str, object]


def exit_of(easiness: Sequence[float | None], threshold: float) -> int:
    """The exit, from 0, at which a picture leaves; ``easiness`` has one value for each router."""
    for index, value in enumerate(easiness):
        if value is not None and value >= threshold:
            return index
    return len(easiness)


def start_of(curve: Sequence[ThresholdPoint]) -> int:
    """The position that the page opens with: the one nearest to half of the images hard."""
    gaps = [abs(point.hard_fraction - _START_FRACTION) for point in curve]
    return gaps.index(min(gaps))


def threshold_text(threshold: float, easiness: Iterable[float]) -> str:
    """The shortest decimal, from four digits, that decides as ``threshold`` does of ``easiness``.

    An easiness of 1 never changes sides either.
    """
    known = [*easiness, 1.0]
    exact = [value >= threshold for value in known]
    for digits in range(_MIN_DIGITS, _MAX_DIGITS):
        text = f"{threshold:.{digits}g}"
        if [value >= float(text) for value in known] == exact:
            return text
    return repr(threshold)


def policy_text(point: ThresholdPoint, easiness: Iterable[float]) -> str:
    """Python that sets one point of a curve.

    The ends are named, because a sigmoid in half precision can be exactly 1.
    """
    if point.threshold > 1 and point.hard_fraction == 1:
        return "detector.policy = dyninfer.AlwaysHard()"
    if point.threshold <= 0 and point.hard_fraction == 0:
        return "detector.policy = dyninfer.AlwaysEasy()"
    return f"detector.policy = dyninfer.Threshold({threshold_text(point.threshold, easiness)})"


def settings_of(
    record: BenchRecord, samples: Sequence[SampleImage], quality: Quality | None
) -> list[Setting]:
    """A position for every point of the record's curve."""
    everything = [*record.pictures.easiness, *(sample.easiness for sample in samples)]
    known = {value for values in everything for value in values if value is not None}
    settings = []
    for index, point in enumerate(record.pictures.curve):
        at = tuple(exit_of(sample.easiness, point.threshold) for sample in samples)
        texts = {
            "share": percent(point.hard_fraction, 1),
            "latency": ms(point.mean_ms),
            "rate": f"{number(1000 / point.mean_ms)} images/s",
            "threshold": f"{point.threshold:.4g}",
            "batches": batches_text(record, point.hard_fraction),
        } | {
            f"count-{exit_index}": f"{at.count(exit_index)} of {len(at)}"
            for exit_index in range(record.measured.exits)
        }
        spoken = f"{texts['share']} hard, {texts['latency']}"
        if quality:
            texts["quality"] = quality.words(index)
            spoken += f", {quality.name} {texts['quality']}"
        settings.append(Setting(texts, policy_text(point, known), spoken, at))
    return settings


def batches_text(record: BenchRecord, hard_fraction: float) -> str:
    """What the latency model says of larger batches; empty where it cannot be asked.

    Pictures come as they come, so how many of a batch are hard is left to chance.
    """
    if record.model is None or record.measured.exits != _MODELLED_EXITS:
        return ""
    steps = record.model.steps
    batches = sorted({check.scenario.batch for check in record.model.checks} - {1})
    times = [predict_ms(steps, size, hard_fraction, RowSpread.RANDOM) for size in batches]
    said = [f"{ms(time)} in batches of {size}" for time, size in zip(times, batches, strict=True)]
    return f"By the latency model, an image takes {', '.join(said)}." if said else ""


def by_easiness(samples: Sequence[SampleImage]) -> list[SampleImage]:
    """Samples from the hardest to the easiest for the first router; unknown counts as hardest."""
    return sorted(samples, key=lambda s: [-1.0 if e is None else e for e in s.easiness])


def speed_accuracy(record: BenchRecord) -> SpeedAccuracy:
    """The section of a record whose curve has at least one point."""
    pictures = record.pictures
    samples = by_easiness(pictures.samples)
    quality, start = quality_of(pictures.curve), start_of(pictures.curve)
    settings = settings_of(record, samples, quality)
    chart = curve_chart(pictures.curve, quality, start) if quality else None
    charts = [*([chart] if chart else ()), *easiness_charts(record)]
    places = {name: found for moving in charts for name, found in moving.places.items()}
    positions = [
        asdict(setting) | {"moves": {name: moved_to(found[at]) for name, found in places.items()}}
        for at, setting in enumerate(settings)
    ]
    return SpeedAccuracy(
        chart=chart,
        note=words.why_missing(record, ("ap",), "there are neither labels nor all exits' results"),
        quality=quality.name if quality else "",
        current=settings[start],
        start=start,
        exits=record.measured.exits,
        samples=samples,
        pictures=[_data_url(sample.jpeg_base64) for sample in samples],
        table=curve_table(pictures.curve),
        data={"positions": positions},
    )


def easiness_charts(record: BenchRecord) -> list[Chart]:
    """One for each router, with a line where the slider has its thresholds."""
    curve = record.pictures.curve
    thresholds, start = [point.threshold for point in curve], start_of(curve) if curve else 0
    return [
        easiness_chart(values, router, thresholds, start)
        for router, values in enumerate(record.pictures.easiness)
    ]


def _data_url(jpeg_base64: str) -> str:
    """A picture's data URL, or nothing where the text is not base64: records come from anywhere."""
    try:
        data = base64.b64decode(jpeg_base64, validate=True)
    except ValueError:
        return ""
    return f"data:image/jpeg;base64,{jpeg_base64}" if data else ""
