"""Single changes of the code that decides answers: ``python -m tests.mutants``.

Cosmic Ray makes the changes: another comparison, another number, a condition turned round. Each is
tried in a copy of the checkout with the tests of its module; one that passes them all survives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.draw import Drawer
from tests.mutants.equivalent import why_equivalent
from tests.mutants.modules import MODULES
from tests.mutants.record import NOTICED, SURVIVED, Record
from tests.mutants.trial import Checkout

WANTED = 0.92


def try_module(module: str, each: int, seed: int, checkout: Checkout, record: Record) -> None:
    """Draw changes of a module, try those that are not known, and print the survivors."""
    drawer = Drawer(checkout.root, module)
    record.begin(module, drawer.changes)
    for mutant in drawer.draw(each, seed):
        if record.is_noticed(module, mutant.change):
            continue
        outcome = why_equivalent(module, mutant.change)
        if outcome is None:
            outcome = NOTICED if checkout.notices(mutant) else SURVIVED
        record.add(module, mutant.change, outcome)
        if outcome == SURVIVED:
            print(f"{module}: no test notices\n{mutant.change}\n", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 1 where less than 92 % of those that change an answer are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", help="paths; all that decide answers if absent")
    parser.add_argument("--each", type=int, default=2, help="mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="the same seed makes the same mutants")
    parser.add_argument(
        "--record",
        type=Path,
        help="a JSON file for the outcomes; a run goes on where the one that wrote it stopped, and "
        "tries its survivors again",
    )
    chosen = parser.parse_args(arguments)
    modules = chosen.modules or list(MODULES)
    if unknown := set(modules) - set(MODULES):
        parser.error(f"unknown modules {sorted(unknown)}; expected some of {', '.join(MODULES)}")
    try:
        record = Record(chosen.record, chosen.each, chosen.seed)
    except ValueError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        checkout = Checkout(Path(folder))
        for module in modules:
            try_module(module, chosen.each, chosen.seed, checkout, record)
    counts = record.sum()
    real = counts["drawn"] - counts["equivalent"]
    share = counts["noticed"] / max(real, 1)
    print(
        f"{counts['noticed']} of {real} noticed ({share:.0%}), and {counts['equivalent']} change "
        f"no answer; drawn from {counts['changes']}"
    )
    return int(share < WANTED)


if __name__ == "__main__":
    sys.exit(main())
