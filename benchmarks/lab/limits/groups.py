"""Which limits there are, and how each is measured in a process of its own."""

from __future__ import annotations

import difflib
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from dyninfer.benchmarks.lab.limits import (
    batching,
    full_size,
    overhead,
    postprocessing,
    preprocessing,
)
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.errors import EngineRunError, InputError


@dataclass(frozen=True)
class Group:
    """Limits that a function measures together: of the full-size bundle, if it takes one."""

    what: str
    measure: Callable[..., list[LimitResult]]
    needs_bundle: bool
    rounds: int


GROUPS: Mapping[str, Group] = {
    "preprocessing": Group("a picture to a tensor", preprocessing.measure, False, 100),
    "postprocessing": Group("candidates to detections", postprocessing.measure, False, 30),
    "overhead": Group("stages that do nothing", overhead.measure, False, 30),
    "loading": Group("opening a bundle", full_size.measure_loading, True, 10),
    "memory": Group("peak of fresh processes", full_size.measure_memory_of_graph, True, 3),
    "engines": Group("the stages alone", full_size.measure_engines, True, 30),
    "end_to_end": Group("a frame to detections", full_size.measure_end_to_end, True, 15),
    "batching": Group("eight images at once", batching.measure, True, 10),
}


def check_groups(text: str) -> tuple[str, ...]:
    """``engines,memory`` -> the groups' names, in the order of :data:`GROUPS`.

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
    return tuple(name for name in GROUPS if name in names)


def measure_apart(name: str, bundle: Path, rounds: int | None) -> list[LimitResult]:
    """Measure a group in a fresh process, so that nothing of another group is left in it.

    Raises:
        DyninferError: what the group's own ``measure`` raises, or its process was ended.
    """
    group = GROUPS[name]
    arguments = (bundle,) if group.needs_bundle else ()
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        try:
            return pool.submit(group.measure, *arguments, rounds or group.rounds).result()
        except BrokenProcessPool:
            raise EngineRunError(
                f"the process of the group {name} was ended, which is what a system short "
                f"of memory does; measure it alone with --only {name}"
            ) from None
