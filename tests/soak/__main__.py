"""``python -m tests.soak --seconds 600``: status 1 where an answer was lost or wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.soak.run import soak


def main() -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally, growth = soak(Path(folder), chosen.seconds, chosen.seed)
    print(
        f"{tally.calls:,} calls, {tally.answers:,} answers, {tally.degraded:,} degraded; "
        f"{tally.interrupted:,} interruptions, {tally.forks:,} forks"
    )
    for unit, slope in growth.per_minute().items():
        print(f"{slope:+,.2f} {unit} per minute")
    for what, found in (("lost", tally.lost), ("wrong", tally.wrong)):
        print(f"{len(found):,} {what}")
        for line in dict.fromkeys(found[:20]):
            print(f"  {line}")
    return int(bool(tally.lost or tally.wrong))


if __name__ == "__main__":
    sys.exit(main())
