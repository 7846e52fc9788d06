"""Device tables of a machine that is a formula, so that every prediction is known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dyninfer.benchmarks.blocks.points import grid
from dyninfer.search.device_table import DeviceRun, MeasuredNetwork, MeasuredPiece, TableDocument
from dyninfer.search.pieces import Kind, Piece, given_pieces, pieces_of_block
from dyninfer.search.space import START
from dyninfer.search.structure import Structure

SIZE = (480, 480)
RUN = DeviceRun(
    backend="onnxruntime",
    version="1.23",
    provider="cpu",
    device="cpu",
    device_name="a formula",
    passes=1,
)
HELD_OUT = (Piece(Kind.DOWN, 4, 5, 32, 96, 24), Piece(Kind.NEXT, 16, 3, 640, 640, 96))


def time_of(piece: Piece) -> float:
    """Linear in logarithms, as interpolation is: the wider, the faster for each of its works."""
    ms = piece.work * 1e-6 * (1 + piece.kernel) / piece.stride**0.5
    for power, value in zip((-0.1, -0.2, 0.3), piece.shape, strict=False):
        ms *= value**power
    return float(ms)


def time_of_network(structure: Structure) -> float:
    blocks = zip(structure.blocks, structure.strides, strict=True)
    pieces = [(piece, times) for block in blocks for piece, times in pieces_of_block(*block)]
    pieces += [(piece, 1) for piece in given_pieces(structure)]
    return sum(times * time_of(piece) for piece, times in pieces)


def measured(piece: Piece, factor: float = 1.0) -> MeasuredPiece:
    return MeasuredPiece(**asdict(piece), ms=factor * time_of(piece))


def document(**changed: Any) -> TableDocument:
    fields: dict[str, Any] = {
        "finished_utc": "2026-11-29T07:00:00+00:00",
        "image_size": SIZE,
        "run": RUN,
        "machine": {"cpu": "a formula"},
        "pieces": tuple(map(measured, grid(min(SIZE)))),
        "held_out": (measured(HELD_OUT[0], 0.8), measured(HELD_OUT[1], 1.25)),
        "networks": (MeasuredNetwork(structure=START.text, ms=time_of_network(START)),),
    }
    return TableDocument(**{**fields, **changed})
