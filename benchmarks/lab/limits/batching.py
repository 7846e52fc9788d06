"""A mixed batch, against its images one by one, and against all of them through the last exit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import dyninfer
from dyninfer.benchmarks.lab.limits.bare_route import BareRoute
from dyninfer.benchmarks.lab.limits.record import LimitResult
from dyninfer.benchmarks.lab.limits.repeated import repeated, warm_rounds
from dyninfer.benchmarks.latency.scenarios import ForcedHard, spread_rows
from dyninfer.bundle.manifest import Manifest
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import Run, compare
from dyninfer.routing.policy import LeaveAt
from dyninfer.runtime.detector import Detector

BATCH, HARD = 8, 2
SINGLES_LIMIT = 0.9
ABOVE_MACS = 0.05
MIXED, ONE_BY_ONE, ALL_LAST = "mixed batch", "one by one", "batch through the last exit"
BARE, BARE_ONE_BY_ONE = "mixed batch, sessions alone", "one by one, sessions alone"
_Inputs = dict[str, npt.NDArray[Any]]


def measure(bundle: Path, rounds: int) -> list[LimitResult]:
    """Time a batch of 8 of which 2 go on, by prepared tensors, in turns with the others.

    The bare sessions tell what the engines themselves make of a batch: where they gain nothing,
    the runtime cannot either.

    Raises:
        InputError: the bundle does not tell its work, or there are too few rounds.
    """
    bare = BareRoute(bundle)
    images = random_images(bare.manifest, BATCH)
    hard = np.flatnonzero(spread_rows(HARD, BATCH, 0)).tolist()
    mixed = ForcedHard(HARD / BATCH, BATCH)
    with dyninfer.load(bundle, max_batch=BATCH) as detector:
        runs = {
            MIXED: repeated(lambda: detector.infer(images, policy=mixed)),
            ONE_BY_ONE: _one_by_one_run(detector, images, hard),
            ALL_LAST: repeated(lambda: detector.infer(images, policy=LeaveAt(1))),
            BARE: repeated(bare.bind(images, [int(row in hard) for row in range(BATCH)]).run),
            BARE_ONE_BY_ONE: _bare_one_by_one_run(bare, images, hard),
        }
        times = warm_rounds(runs, rounds)
    engines = compare(times[BARE], times[BARE_ONE_BY_ONE]).median
    runtime = compare(times[MIXED], times[BARE]).median
    note = (
        f"the sessions alone take {engines:.3f} of one by one in such a batch; dyninfer takes "
        f"{runtime:.3f} of the sessions alone"
    )
    share = mac_share(bare.manifest)
    return [
        _result("batch-singles", ONE_BY_ONE, SINGLES_LIMIT, times, note),
        _result(
            "batch-last-exit",
            ALL_LAST,
            share + ABOVE_MACS,
            times,
            f"{share:.3f} of the multiply-accumulates, and 0.05; {note}",
        ),
    ]


def mac_share(manifest: Manifest) -> float:
    """Multiply-accumulates of the mixed batch over those of all images at the last exit.

    Raises:
        InputError: the manifest does not tell any.
    """
    first, last = (manifest.macs_to(index) for index in (0, 1))
    if not last:
        raise InputError(f"{manifest.name} does not say how many multiply-accumulates it takes")
    return ((BATCH - HARD) * first + HARD * last) / (BATCH * last)


def random_images(manifest: Manifest, batch: int, seed: int = 0) -> _Inputs:
    """Image input's name -> (batch, 3, H, W) float32 in [0, 1)."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.random((batch, 3, spec.height, spec.width), dtype=np.float32)
        for name, spec in manifest.image_inputs.items()
    }


def _singles(images: _Inputs) -> list[_Inputs]:
    return [{name: a[row : row + 1] for name, a in images.items()} for row in range(BATCH)]


def _bare_one_by_one_run(bare: BareRoute, images: _Inputs, hard: list[int]) -> Run:
    easy_alone, hard_alone = (bare.bind(_singles(images)[way], [way]) for way in (0, 1))

    def call() -> None:
        for row in range(BATCH):
            (hard_alone if row in hard else easy_alone).run()

    return repeated(call)


def _one_by_one_run(detector: Detector, images: _Inputs, hard: list[int]) -> Run:
    singles = _singles(images)

    def call() -> None:
        for row, image in enumerate(singles):
            detector.infer(image, policy=LeaveAt(int(row in hard)))

    return repeated(call)


def _result(
    key: str, other: str, limit: float, times: dict[str, list[float]], note: str
) -> LimitResult:
    return LimitResult(
        key=key,
        what=f"a batch of {BATCH} of which {HARD} are hard, over {other}",
        limit=limit,
        measured=compare(times[MIXED], times[other]),
        times_ms=times,
        note=note,
    )
