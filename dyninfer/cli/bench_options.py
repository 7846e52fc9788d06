"""What the options of ``dyninfer bench`` mean: lists of numbers, how long, pictures, baselines."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from dyninfer.benchmarks.baselines.setup import ALL, IN_PYTORCH, LAST_EXIT, check_names
from dyninfer.bundle.manifest import Manifest
from dyninfer.cli.bench_arguments import (
    BaselineOptions,
    EffortOptions,
    PictureOptions,
    ScenarioOptions,
)
from dyninfer.cli.common import expand_sources, parse_image_size, progress_bar, warn
from dyninfer.errors import InputError, PolicyError
from dyninfer.evaluation.dataset import load_samples
from dyninfer.exporters.cascade.options import made_from_onnx
from dyninfer.exporters.sources import find_sources
from dyninfer.images.spec import MAX_SIDE

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.pictures import BenchPictures
    from dyninfer.benchmarks.latency.request import BaselineRequest, Effort
    from dyninfer.benchmarks.latency.scenarios import Choices

MOST = 4096
"""Images in a call, or callers at once."""
MOST_PIXELS = 100_000_000
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


def make_effort(asked: EffortOptions) -> Effort:
    """How long to measure: what was given, else what suits the mode."""
    from dyninfer.benchmarks.latency.request import Effort

    usual = (
        Effort(seconds=0.6, rounds=5, min_calls=3, warm_up_seconds=0.8, idle_seconds=0.5)
        if asked.quick
        else Effort()
    )
    named: dict[str, Any] = {**vars(asked)}
    del named["quick"]
    return replace(usual, **{name: value for name, value in named.items() if value is not None})


def choose_pictures(
    manifest: Manifest, asked: PictureOptions, scenarios: ScenarioOptions
) -> BenchPictures:
    """The user's pictures, decoded under a progress bar, or synthetic ones."""
    from dyninfer.benchmarks.latency.pictures import (
        DEFAULT_SIZE,
        load_pictures,
        synthetic_pictures,
    )

    if asked.annotations is not None and not asked.images:
        raise typer.BadParameter("--annotations tells what is in pictures; give --images too")
    if scenarios.decode and not asked.images:
        raise typer.BadParameter("--decode reads files; give --images too")
    if asked.synthetic is not None and asked.images:
        raise typer.BadParameter("give one of --images and --synthetic")
    if not asked.images:
        height, width = parse_image_size(asked.synthetic) or DEFAULT_SIZE
        if max(height, width) > MAX_SIDE or height * width > MOST_PIXELS:
            raise typer.BadParameter(
                f"--synthetic {asked.synthetic} is too large; expected sides up to {MAX_SIDE} and "
                f"up to {MOST_PIXELS // 10**6} million pixels"
            )
        return synthetic_pictures(height, width)
    paths = expand_sources(asked.images)
    samples = load_samples(paths, asked.annotations, manifest.class_names)
    with progress_bar() as progress:
        task = progress.add_task("reading pictures", total=min(asked.kept, len(samples.items)))
        return load_pictures(samples, asked.kept, lambda: progress.advance(task))


def choose_baselines(
    manifest: Manifest, asked: BaselineOptions, effort: EffortOptions
) -> BaselineRequest:
    """The baselines that were named, else the cheap one where the bundle has it.

    No more rounds are taken than of the bundle; few, and no memory, where the run is quick.
    """
    from dyninfer.benchmarks.latency.request import LEAST_PAIRS, MOST_PAIRS, BaselineRequest

    against, quick = asked.against, effort.quick
    if against == "none":
        return BaselineRequest(reason="switched off by --against none")
    usual = LEAST_PAIRS if quick else MOST_PAIRS
    most = usual if effort.rounds is None else min(usual, effort.rounds)
    if against is None:
        if quick:
            return BaselineRequest(reason="left out by --quick; name some with --against")
        if len(manifest.ways) < 2:
            return BaselineRequest(reason="one exit has no baseline of its own; see --against")
        return BaselineRequest((LAST_EXIT,), rounds=most, memory=False)
    try:
        names = check_names(parse_list(against, "--against", str))
    except InputError as error:
        raise typer.BadParameter(str(error)) from None
    return BaselineRequest(names, tuple(asked.source or ()), rounds=most, memory=not quick)


def check_sources(manifest: Manifest, bundle: Path, asked: BaselineOptions) -> None:
    """Look for the bundle's sources where a baseline in PyTorch was named; warn of idle ones.

    With ``all``, a baseline that cannot be made is left out and told like any other.
    """
    sources = asked.source or ()
    if missing := [path for path in sources if not path.exists()]:
        raise typer.BadParameter(f"--source {missing[0]} does not exist")
    named = {entry.strip() for entry in (asked.against or "").split(",")}
    if (wanted := named & IN_PYTORCH) and made_from_onnx(manifest):
        raise InputError(
            f"{manifest.name} was made from ONNX files, not from PyTorch, so there is no "
            f"{min(wanted)}; name another baseline, or the path of an ONNX file"
        )
    if named & IN_PYTORCH:
        find_sources(manifest, bundle, sources)
    elif sources and ALL not in named:
        warn(f"--source is not used: --against names none of {', '.join(sorted(IN_PYTORCH))}")
