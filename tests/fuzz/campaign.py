"""Runs inputs in workers, starts these anew when they die, and keeps what was found."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.target import KINDS
from tests.fuzz.worker import ACCEPTED, LIMITS, REFUSED, Case, Limits, Order, work

START_S = 180.0  # PyTorch is imported, on a machine that may be busy
BATCH = 200


@dataclass(frozen=True)
class Finding:
    """An input that did what none may do: to hang, to crash, to raise what is no DyninferError."""

    kind: str
    case: Case
    outcome: str
    detail: str

    @property
    def cause(self) -> str:
        """What findings of one cause have in common: the outcome, and where it was raised."""
        where = re.findall(r'File "([^"]+)", line (\d+)', self.detail)
        own = [f"{Path(path).name}:{line}" for path, line in where if "/tests/fuzz/" not in path]
        if not own:
            return self.outcome
        innermost = 0 if "most recent call first" in self.detail else -1  # as faulthandler has it
        return f"{self.outcome} at {own[innermost]}"


@dataclass
class Tally:
    """What became of the inputs of one kind."""

    kind: str
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)  # the first of every cause
    refusals: Counter[str] = field(default_factory=Counter)  # by their class

    def add(self, case: Case, outcome: str, detail: str) -> Finding | None:
        """Count one; the finding where it is the first of its cause."""
        self.outcomes[outcome] += 1
        if outcome == REFUSED:
            self.refusals[detail.partition(":")[0]] += 1
        if outcome in (ACCEPTED, REFUSED):
            return None
        finding = Finding(self.kind, case, outcome, detail)
        new = finding.cause not in self.findings
        self.findings.setdefault(finding.cause, finding)
        return finding if new else None

    def __str__(self) -> str:
        others = {o: n for o, n in self.outcomes.items() if o not in (ACCEPTED, REFUSED, "crash")}
        found = "".join(f", {count:,} {outcome}" for outcome, count in sorted(others.items()))
        return (
            f"{self.kind} {self.outcomes[REFUSED]:,} refused, {self.outcomes[ACCEPTED]:,} "
            f"accepted, {self.outcomes['crash']:,} crashes{found}"
        )


def run_cases(
    tally: Tally,
    seed: int,
    cases: Sequence[Case],
    keep: Path | None = None,
    until: float = float("inf"),
    limits: Limits = LIMITS,
) -> int:
    """Feed cases of the tally's kind one after the other, whatever happens to the workers.

    Args:
        tally: what became of them is added to it.
        seed: of inputs that are made.
        cases: numbers of inputs, or folders of kept ones.
        keep: folder in which the first input of every cause is kept with what it did.
        until: value of :func:`time.monotonic` at which to stop.
        limits: what an input may take.

    Returns:
        How many were fed.
    """
    done = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as name:
        while done < len(cases) and time.monotonic() < until:
            target = KINDS[tally.kind]
            order = Order(tally.kind, target, seed, cases[done:], Path(name), limits)
            with _Worker(order) as worker:
                while done < len(cases) and time.monotonic() < until:
                    outcome, detail = worker.next()
                    if finding := tally.add(cases[done], outcome, detail):
                        _keep(finding, seed, Path(name) / "input", keep)
                    done += 1
                    if not worker.usable:
                        break
                    if outcome not in (ACCEPTED, REFUSED):
                        worker.go_on()
    return done


class _Worker:
    """One process and what it says."""

    def __init__(self, order: Order) -> None:
        self.usable = True
        self._seconds = order.limits.seconds
        self._log = order.folder / "log"
        shutil.rmtree(order.folder / "material", ignore_errors=True)
        context = multiprocessing.get_context("spawn")
        self._results, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(order, theirs))
        self._process.start()
        theirs.close()

    def __enter__(self) -> _Worker:
        try:
            if not self._results.poll(START_S) or self._results.recv() is not None:
                raise RuntimeError("a worker did not start")
        except EOFError:
            self.__exit__()
            text = self._log.read_text("utf-8", "replace") if self._log.exists() else ""
            raise RuntimeError(f"a worker did not start:\n{text}") from None
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._results.close()

    def next(self) -> tuple[str, str]:
        """Outcome and detail of the next input."""
        try:
            if self._results.poll(self._seconds):
                outcome, detail = self._results.recv()
                self.usable = outcome != "memory"
                return outcome, detail
            self.usable = False
            return "hang", self._said()
        except (EOFError, ConnectionResetError):
            self._process.join()
            self.usable = False
            return "crash", f"exit status {self._process.exitcode}\n{self._said()}"

    def go_on(self) -> None:
        """Let it overwrite an input of which something was found."""
        self._results.send(None)

    def _said(self) -> str:
        return self._log.read_text("utf-8", "replace")[-4000:]


def _keep(finding: Finding, seed: int, given: Path, keep: Path | None) -> None:
    if keep is None:
        return
    number = finding.case.name if isinstance(finding.case, Path) else finding.case
    place = keep / f"{finding.kind}-{seed}-{number}".replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    (place / "why.txt").write_text(f"{finding.cause}\n{finding.detail}\n", "utf-8", "replace")
    with contextlib.suppress(shutil.Error, OSError):  # pipes and the like are made anew by number
        shutil.copytree(given, place / "input", symlinks=True, dirs_exist_ok=True)
