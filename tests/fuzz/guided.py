"""Fuzzing that follows coverage: ``python -m tests.fuzz.guided KIND --seconds N``, with atheris.

Bytes that reach new places in dyninfer's own readers are kept and changed further. Whatever is
raised but a DyninferError ends the run, with the input as ``crash-...`` in the folder ``--keep``.
"""

import argparse
import contextlib
import json
import shutil
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["dyninfer", "pickletools"]):
    from dyninfer.bundle.documents import SEAL
    from dyninfer.errors import DyninferError
    from tests.fuzz import readers
from tests.fuzz.mutation import BLANK_SEAL, mutate_json


def _mutate(data: bytes, most: int, seed: int) -> bytes:
    """Of a document now and then a value; else bytes, as libFuzzer does."""
    if seed % 2 and data.startswith(b"{"):
        try:
            changed = mutate_json(Random(seed), json.loads(data))
        except (ValueError, RecursionError):
            changed = None
        if isinstance(changed, dict):
            made = json.dumps(changed | {SEAL: BLANK_SEAL} if SEAL in changed else changed).encode()
            return made if len(made) <= most else data
    return bytes(atheris.Mutate(data, most))


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("kind", choices=readers.FILES)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    chosen = parser.parse_args()
    place = chosen.keep.absolute() / f"guided-{chosen.kind}"
    shutil.rmtree(place / "work", ignore_errors=True)
    (place / "work").mkdir(parents=True)
    (place / "corpus").mkdir(exist_ok=True)
    for number, seed in enumerate(readers.seeds(chosen.kind, place / "work")):
        (place / f"corpus/made-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        with contextlib.suppress(DyninferError):
            readers.read(chosen.kind, data, place / "work/file")

    limits = ("-timeout=20", "-rss_limit_mb=4096", "-max_len=1000000")
    options = (*limits, f"-max_total_time={chosen.seconds}", f"-artifact_prefix={place}/")
    atheris.Setup(["guided", *options, str(place / "corpus")], once, custom_mutator=_mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
