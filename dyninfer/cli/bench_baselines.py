"""The baselines that ``dyninfer bench`` was asked for, checked before anything is measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dyninfer.cli.bench_options import parse_list
from dyninfer.cli.common import warn
from dyninfer.errors import InputError

if TYPE_CHECKING:
    from dyninfer.benchmarks.latency.against import BaselineRequest
    from dyninfer.bundle.manifest import Manifest
    from dyninfer.cli.bench_arguments import BaselineOptions, EffortOptions

NO_BASELINE = "none"


def choose_baselines(
    manifest: Manifest, asked: BaselineOptions, effort: EffortOptions
) -> BaselineRequest:
    """The baselines that were named, else the cheap one where the bundle has it.

    No more rounds are taken than of the bundle; few, and no memory, where the run is quick.
    """
    from dyninfer.benchmarks.baselines.setup import LAST_EXIT, check_names
    from dyninfer.benchmarks.latency.against import LEAST_ROUNDS, MOST_ROUNDS, BaselineRequest

    against, quick = asked.against, effort.quick
    if against == NO_BASELINE:
        return BaselineRequest(reason="switched off by --against none")
    usual = LEAST_ROUNDS if quick else MOST_ROUNDS
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
    from dyninfer.benchmarks.baselines.setup import ALL, IN_PYTORCH
    from dyninfer.exporters.sources import find_sources

    sources = asked.source or ()
    if missing := [path for path in sources if not path.exists()]:
        raise typer.BadParameter(f"--source {missing[0]} does not exist")
    named = {entry.strip() for entry in (asked.against or "").split(",")}
    if named & IN_PYTORCH:
        find_sources(manifest, bundle, sources)
    elif sources and ALL not in named:
        warn(f"--source is not used: --against names none of {', '.join(sorted(IN_PYTORCH))}")
