"""What the options of ``dyninfer bench`` mean: lists of numbers, how long, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from dyninfer.cli.common import parse_image_size, progress_bar
from dyninfer.errors import MissingExtra, PolicyError

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.effort import Effort
    from dyninfer.benchmarks.latency.pictures import BenchPictures
    from dyninfer.benchmarks.latency.scenarios import Choices
    from dyninfer.bundle.manifest import Manifest
    from dyninfer.cli.bench_arguments import EffortOptions, PictureOptions, ScenarioOptions

MOST = 4096
"""Images in a call, or callers at once."""
MOST_PIXELS = 100_000_000
LONGEST_S = 86_400.0
Value = TypeVar("Value")


def parse_counts(text: str, option: str) -> tuple[int, ...]:
    """``1,8`` -> (1, 8)."""

    def count(entry: str) -> int:
        if not entry.isdecimal() or not entry.strip("0"):
            raise typer.BadParameter(
                f"{option} {entry!r} is not a whole number from 1 up; expected for example 1,8"
            )
        if len(entry) > 9 or int(entry) > MOST:
            raise typer.BadParameter(f"{option} {entry[:20]} is too large; expected 1 to {MOST}")
        return int(entry)

    return parse_list(text, option, count)


def _rate(entry: str) -> float:
    value = _number(entry)
    if not value:
        raise typer.BadParameter(
            f"--rate {entry!r} is not a positive number of calls a second; expected for example "
            "5,30"
        )
    return value


def _share(entry: str) -> float:
    """``0.25`` or ``25%``."""
    from dyninfer.benchmarks.latency.scenarios import as_fraction

    value = _number(entry.removesuffix("%").strip())
    if value is None:
        raise typer.BadParameter(
            f"--hard {entry!r} is not a share; expected for example 0,25%,0.5,100%"
        )
    share = value / 100 if entry.endswith("%") else value
    if share > 1:
        hint = f"; write {value:g}% or {value / 100:g}" if share == value <= 100 else ""
        raise typer.BadParameter(
            f"--hard {entry!r} is more than all images: expected a share from 0 to 1{hint}"
        )
    try:
        return float(as_fraction(share))  # 33.3 / 100 is not quite 0.333
    except PolicyError as error:
        raise typer.BadParameter(f"--hard {entry!r}: {error}") from None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d+\.?\d*|\.\d+", text) else None


def parse_list(text: str, option: str, parse: Callable[[str], Value]) -> tuple[Value, ...]:
    """Entries between commas, each once."""
    entries = [entry.strip() for entry in text.split(",")]
    if not all(entries):
        raise typer.BadParameter(f"{option} {text!r} has an empty entry; expected a,b,c")
    return tuple(dict.fromkeys(map(parse, entries)))


def make_choices(asked: ScenarioOptions, *, as_routed: bool) -> Choices:
    """What to vary."""
    from dyninfer.benchmarks.latency.scenarios import Choices

    return Choices(
        batches=parse_counts(asked.batch, "--batch"),
        hard=None if asked.hard is None else parse_list(asked.hard, "--hard", _share),
        concurrency=parse_counts(asked.concurrency, "--concurrency"),
        rates=() if asked.rate is None else parse_list(asked.rate, "--rate", _rate),
        decode=asked.decode,
        as_routed=as_routed,
    )


def refuse_measuring(context: typer.Context, mode: str, kept: Collection[str]) -> None:
    """Refuse options of a measurement, but those ``kept``, where ``mode`` reads records instead."""
    for parameter in context.command.params:
        source = parameter.name and context.get_parameter_source(parameter.name)
        if parameter.name in kept or not source or source.name == "DEFAULT":
            continue
        raise typer.BadParameter(
            f"{max(parameter.opts, key=len)} is for a measurement, and {mode} makes none; "
            "leave one of them out"
        )


def make_effort(asked: EffortOptions) -> Effort:
    """How long to measure: what was given, else what suits the mode."""
    from dyninfer.benchmarks.latency.effort import Effort

    if asked.seconds is not None and not 0 < asked.seconds <= LONGEST_S:  # NaN is neither
        raise typer.BadParameter(
            f"--seconds {asked.seconds:g} cannot be measured; expected up to {LONGEST_S:g}"
        )
    usual = (
        Effort(seconds=0.6, rounds=5, min_calls=3, warm_up_seconds=0.8, idle_seconds=0.5)
        if asked.quick
        else Effort()
    )
    named = {"seconds": asked.seconds, "rounds": asked.rounds, "min_calls": asked.min_calls}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    return replace(usual, **given)


def parse_picture_size(text: str | None) -> tuple[int, int] | None:
    """``720x1280`` -> (720, 1280); None -> None."""
    from dyninfer.images.spec import MAX_SIDE

    size = parse_image_size(text)
    if size and (max(size) > MAX_SIDE or size[0] * size[1] > MOST_PIXELS):
        raise typer.BadParameter(
            f"--synthetic {text} is too large; expected sides up to {MAX_SIDE} and up to "
            f"{MOST_PIXELS // 10**6} million pixels"
        )
    return size


def check_pictures(asked: PictureOptions, scenarios: ScenarioOptions) -> None:
    """Refuse options that need pictures of the user's, where there are none, or the reverse."""
    if asked.annotations is not None and not asked.images:
        raise typer.BadParameter("--annotations tells what is in pictures; give --images too")
    if scenarios.decode and not asked.images:
        raise typer.BadParameter("--decode reads files; give --images too")
    if asked.synthetic is not None and asked.images:
        raise typer.BadParameter("give one of --images and --synthetic")
    parse_picture_size(asked.synthetic)


def choose_pictures(manifest: Manifest, asked: PictureOptions) -> BenchPictures:
    """The user's pictures, decoded under a progress bar, or made-up ones."""
    from dyninfer.benchmarks.latency.pictures import (
        DEFAULT_SIZE,
        load_pictures,
        synthetic_pictures,
    )
    from dyninfer.cli.common import expand_sources
    from dyninfer.evaluation.dataset import load_samples

    if not asked.images:
        height, width = parse_picture_size(asked.synthetic) or DEFAULT_SIZE
        return synthetic_pictures(height, width)
    paths = expand_sources(asked.images)
    samples = load_samples(paths, asked.annotations, manifest.class_names)
    with progress_bar() as progress:
        task = progress.add_task("reading pictures", total=min(asked.kept, len(samples.items)))
        return load_pictures(samples, asked.kept, lambda: progress.advance(task))


def check_report_library() -> None:
    """Say before the measurement that the report could not be written."""
    from importlib.util import find_spec

    if find_spec("jinja2") is None:
        raise MissingExtra('--report needs jinja2; install it: pip install "dyninfer[report]"')
