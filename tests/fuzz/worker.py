"""The process in which inputs are fed: limited, and of which nothing is expected to survive."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import resource
import shutil
import stat
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from dyninfer.errors import DyninferError
from tests.fuzz.target import Target, load_target

GIB = 1 << 30
ADDRESS_LIMIT = 12 * GIB  # beyond what is mapped at the start; what protects the machine
FILE_LIMIT = GIB
ACCEPTED, REFUSED = "accepted", "refused"

Case = int | Path
"""The number of an input to make, or the folder of one that is kept."""


@dataclass(frozen=True)
class Limits:
    """What an input may take, beyond which it is a finding."""

    seconds: float = 20.0
    memory: int = 4 * GIB


LIMITS = Limits()


@dataclass(frozen=True)
class Order:
    """What a worker is to do: the kind, the class of its target, the seed, and the cases."""

    kind: str
    target: str
    seed: int
    cases: Sequence[Case]
    folder: Path
    limits: Limits


def work(order: Order, results: Connection) -> None:
    """Feed each case and send what came of it, ``(outcome, detail)``; at first None when ready."""
    os.setsid()  # so that whatever this process starts is ended with it
    log = (order.folder / "log").open("a", encoding="utf-8")  # appending survives truncation
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    faulthandler.enable(log)
    (order.folder / "material").mkdir()
    target = load_target(order.target, order.folder / "material")
    _limit_resources()
    results.send(None)
    for case in order.cases:
        log.truncate(0)
        outcome, detail = _try(target, order, case)
        if (peak := _peak_bytes()) > order.limits.memory:
            results.send(("memory", f"{peak / GIB:.1f} GiB were used\n{detail}"))
            return  # the next input would be blamed for it
        results.send((outcome, detail))
        if outcome not in (ACCEPTED, REFUSED):
            results.recv()  # once the input was kept


def _try(target: Target, order: Order, case: Case) -> tuple[str, str]:
    given = order.folder / "input"
    remove(given)
    if isinstance(case, Path):
        shutil.copytree(case, given, symlinks=True)
    else:
        given.mkdir()
        try:
            target.make(Random(f"{order.kind}:{order.seed}:{case}"), given)
        except Exception:
            return "not made", traceback.format_exc()
    os.chdir(given)
    faulthandler.dump_traceback_later(0.9 * order.limits.seconds)  # tells where an input hangs
    try:
        target.feed(given)
    except DyninferError as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    except BaseException as error:
        return type(error).__name__, traceback.format_exc()
    finally:
        faulthandler.cancel_dump_traceback_later()
    return ACCEPTED, ""


def remove(folder: Path) -> None:
    """Remove a folder of an input, whatever rights were left in it."""
    with contextlib.suppress(FileNotFoundError):
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


def _limit_resources() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ADDRESS_LIMIT,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_bytes() -> int:
    """Of this process alone; what getrusage tells may be its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
