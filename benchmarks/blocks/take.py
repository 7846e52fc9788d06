"""A device's table, measured from the first block to the last network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from dyninfer.benchmarks.blocks.measure import (
    Progress,
    measure,
    name_of,
    network_contest,
    piece_contests,
)
from dyninfer.benchmarks.blocks.points import grid, held_out, networks
from dyninfer.benchmarks.machine.describe import describe_machine
from dyninfer.engines.base import Backend
from dyninfer.search.device_table import (
    DeviceRun,
    DeviceTable,
    MeasuredNetwork,
    MeasuredPiece,
    TableDocument,
)
from dyninfer.search.pieces import Piece

PASSES, QUICK_PASSES = 3, 1

__all__ = ["Progress", "take_table"]


def take_table(
    backend: Backend[Any, Any], image_size: tuple[int, int], on_step: Progress, *, quick: bool
) -> DeviceTable:
    """Measure all blocks that a search may ask for, and some backbones as a whole.

    ``on_step`` is told what is measured, how many steps were done, and of how many.

    Raises:
        EngineBuildError: the backend cannot run one of them.
    """
    side = min(image_size)
    structures = networks(side)
    measured, aside = grid(side), held_out(structures, side)
    contests = piece_contests([*measured, *aside], image_size)
    contests.append(network_contest(structures, image_size))
    passes = QUICK_PASSES if quick else PASSES
    times = measure(backend, contests, passes, on_step)

    def entries(pieces: Sequence[Piece]) -> tuple[MeasuredPiece, ...]:
        return tuple(MeasuredPiece(**asdict(each), ms=times[name_of(each)]) for each in pieces)

    return DeviceTable(
        TableDocument(
            finished_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            image_size=image_size,
            run=DeviceRun(
                backend=backend.name,
                version=backend.version,
                provider=backend.provider,
                device=backend.device,
                device_name=backend.device_name,
                passes=passes,
            ),
            machine=asdict(describe_machine()),
            pieces=entries(measured),
            held_out=entries(aside),
            networks=tuple(
                MeasuredNetwork(structure=each.text, ms=times[str(number)])
                for number, each in enumerate(structures)
            ),
        )
    )
