"""A campaign: ``python -m tests.fuzz --seconds 600``."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.campaign import BATCH, Tally, run_cases
from tests.fuzz.target import KINDS


def main() -> int:
    """Status 1 where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for all kinds together")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same inputs")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument(
        "--count", type=int, help="of inputs of each kind; as time allows if absent"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes at once")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="for findings")
    chosen = parser.parse_args()
    kinds = chosen.kinds or list(KINDS)
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"unknown kinds {sorted(unknown)}; expected some of {', '.join(KINDS)}")
    with ThreadPoolExecutor(chosen.workers) as pool:  # each waits for a process
        tallies = [*pool.map(lambda kind: _campaign(kind, chosen, len(kinds)), kinds)]
    for tally in tallies:
        print(tally)
        for cause, finding in tally.findings.items():
            print(f"  {cause}: input {finding.case}")
    print(f"{sum(sum(tally.outcomes.values()) for tally in tallies):,} inputs")
    return int(any(tally.findings for tally in tallies))


def _campaign(kind: str, chosen: argparse.Namespace, kinds: int) -> Tally:
    """Each kind has an equal share of the processes' time."""
    tally = Tally(kind)
    begun = time.monotonic()
    share = chosen.seconds * min(chosen.workers, kinds) / kinds
    until = begun + share if chosen.count is None else float("inf")
    first, last = chosen.first, chosen.first + (chosen.count or sys.maxsize // 2)
    while first < last and time.monotonic() < until:
        cases = range(first, min(first + 100 * BATCH, last))
        first += run_cases(tally, chosen.seed, cases, chosen.keep, until)
    return tally


if __name__ == "__main__":
    sys.exit(main())
