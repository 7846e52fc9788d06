"""The section with the slider: curve, sample pictures, and the data of every position."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict

from dyninfer.benchmarks.latency.record import BenchRecord, SampleImage
from dyninfer.benchmarks.report import page, words
from dyninfer.benchmarks.report.curve import curve_chart, quality_of
from dyninfer.benchmarks.report.easiness import easiness_chart
from dyninfer.benchmarks.report.figures import ABSENT
from dyninfer.benchmarks.report.settings import Setting, by_easiness, settings_of, start_of
from dyninfer.benchmarks.report.svg import MovingChart, moved_to
from dyninfer.benchmarks.report.tables import curve_table


def speed_accuracy(record: BenchRecord) -> page.SpeedAccuracy:
    """The section of a record whose curve has at least one point."""
    pictures, exits = record.pictures, record.measured.exits
    samples = by_easiness(pictures.samples)
    quality, start = quality_of(pictures.curve), start_of(pictures.curve)
    settings = settings_of(record, samples, quality)
    drawn = curve_chart(pictures.curve, quality, start) if quality else None
    thresholds = [point.threshold for point in pictures.curve]
    lines = (
        easiness_chart(values, router, thresholds, start)
        for router, values in enumerate(pictures.easiness)
    )
    moving = [*([drawn] if drawn else ()), *lines]
    return page.SpeedAccuracy(
        chart=drawn.chart if drawn else None,
        note="" if quality else _why_no_quality(record),
        quality=quality.name if quality else "",
        current=settings[start],
        start=start,
        last=len(settings) - 1,
        groups=exit_headings(exits),
        thumbnails=_thumbnails(samples, settings[start].exits),
        table=curve_table(pictures.curve),
        data={"positions": [_position(s, index, moving) for index, s in enumerate(settings)]},
    )


def _why_no_quality(record: BenchRecord) -> str:
    keys = ("ap", "accuracy", "agreement", "labels")
    reason = words.why_missing(record, keys, "there are neither labels nor all exits' results")
    return f"Accuracy is not shown: {reason}"


def exit_headings(exits: int) -> tuple[str, ...]:
    """What images that leave at each exit do, in words."""
    between = tuple(f"Go on and leave at exit {index}" for index in range(1, exits - 1))
    return ("Leave at the first exit", *between, "Go on to the last exit")[:exits]


def _thumbnails(samples: Sequence[SampleImage], exits: Sequence[int]) -> tuple[page.Thumbnail, ...]:
    return tuple(
        page.Thumbnail(
            index=index,
            name=sample.name,
            caption=", ".join(ABSENT if e is None else f"{e:.3f}" for e in sample.easiness),
            source=_data_url(sample.jpeg_base64),
            exit_index=exit_index,
        )
        for index, (sample, exit_index) in enumerate(zip(samples, exits, strict=True))
    )


def _data_url(jpeg_base64: str) -> str:
    """A picture's data URL, or nothing where the text is not base64: records come from anywhere."""
    try:
        data = base64.b64decode(jpeg_base64, validate=True)
    except ValueError:
        return ""
    return f"data:image/jpeg;base64,{jpeg_base64}" if data else ""


def _position(setting: Setting, index: int, charts: Sequence[MovingChart]) -> dict[str, object]:
    """What a position shows, and where everything that moves then stands, for the script."""
    moves = {
        name: moved_to(places[index]) for chart in charts for name, places in chart.places.items()
    }
    return {**asdict(setting), "moves": moves}
