"""Which limits there are, and how each is measured in a process of its own."""

from __future__ import annotations

import difflib
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.errors import EngineRunError, InputError

PACKAGE = "dyninfer.benchmarks.lab.limits"


@dataclass(frozen=True)
class Group:
    """Limits that the module of this name measures together, if need be on the full-size bundle."""

    name: str
    what: str
    needs_bundle: bool
    rounds: int


GROUPS: Mapping[str, Group] = {
    group.name: group
    for group in (
        Group("preprocessing", "a picture to a tensor", False, 100),
        Group("postprocessing", "candidates to detections", False, 30),
        Group("overhead", "stages that do nothing", False, 30),
        Group("loading", "opening a bundle", True, 10),
        Group("memory", "peak of fresh processes", True, 3),
        Group("engines", "the stages alone", True, 30),
        Group("end_to_end", "a frame to detections", True, 15),
        Group("batching", "eight images at once", True, 10),
    )
}


def check_groups(text: str) -> tuple[Group, ...]:
    """``engines,memory`` -> the groups, in the order of :data:`GROUPS`.

    Raises:
        InputError: a name is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in GROUPS:
            near = difflib.get_close_matches(name, GROUPS, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(
                f"{name!r} is not a group of limits, expected some of {', '.join(GROUPS)}{hint}"
            )
    if not names:
        raise InputError(f"no group of limits is named, expected some of {', '.join(GROUPS)}")
    return tuple(group for name, group in GROUPS.items() if name in names)


def measure_apart(group: Group, bundle: Path, rounds: int | None) -> list[LimitResult]:
    """Measure a group in a fresh process, so that nothing of another group is left in it.

    Raises:
        DyninferError: what the group's own ``measure`` raises, or its process was ended.
    """
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        try:
            return pool.submit(measure_here, group, bundle, rounds or group.rounds).result()
        except BrokenProcessPool:
            raise EngineRunError(
                f"the process of the group {group.name} was ended, which is what a system short "
                f"of memory does; measure it alone with --only {group.name}"
            ) from None


def measure_here(group: Group, bundle: Path, rounds: int) -> list[LimitResult]:
    """Import the group's module and measure."""
    measure: Callable[..., list[LimitResult]] = import_module(f"{PACKAGE}.{group.name}").measure
    return measure(bundle, rounds=rounds) if group.needs_bundle else measure(rounds=rounds)
