"""Times of pieces and of whole backbones on a backend, in turns."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dyninfer.benchmarks.blocks.graph import (
    INPUT,
    Graph,
    frame_graph,
    network_graph,
    piece_graph,
)
from dyninfer.bundle.manifest import Precision, Stage
from dyninfer.engines import TENSORRT
from dyninfer.engines.base import Backend
from dyninfer.evaluation.interleaved import Run, run_rounds
from dyninfer.search.pieces import Kind, Piece
from dyninfer.search.structure import Structure

ROUNDS = 2
_TURN_MS, _LEAST_RUNS, _MOST_RUNS = 8.0, 2, 20
"""A turn is so many runs, of which the quickest counts: whatever disturbs one makes it slower."""
_LEAST = 0.02  # of a piece's time with its frame, where the frame's alone is no less
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Contest:
    """What runs in turns: graphs by name, and for each piece the name of its frame, if any."""

    title: str
    graphs: Mapping[str, Callable[[], Graph]]
    frames: Mapping[str, str]


def piece_contests(pieces: Sequence[Piece], image_size: tuple[int, int]) -> list[Contest]:
    """Pieces of one kind, stride and kernel run beside each other and their frames."""
    groups: dict[tuple[Kind, int, int], list[Piece]] = defaultdict(list)
    for piece in pieces:
        groups[piece.kind, piece.stride, piece.kernel].append(piece)
    return [_contest(group, image_size) for group in groups.values()]


def _contest(pieces: Sequence[Piece], image_size: tuple[int, int]) -> Contest:
    graphs: dict[str, Callable[[], Graph]] = {}
    frames: dict[str, str] = {}
    for piece in pieces:
        name = name_of(piece)
        graphs[name] = partial(piece_graph, piece, image_size)
        if piece.kind is not Kind.STEM:
            before = piece.stride // piece.block.stride if piece.width else piece.stride
            frames[name] = frame = f"frame {piece.inputs} {before}"
            graphs[frame] = partial(frame_graph, piece.inputs, before, image_size)
    return Contest(str(pieces[0]), graphs, frames)


def network_contest(structures: Sequence[Structure], image_size: tuple[int, int]) -> Contest:
    """Whole backbones beside each other; their names are their numbers."""
    graphs = {
        str(number): partial(network_graph, structure, image_size)
        for number, structure in enumerate(structures)
    }
    return Contest("whole backbones", graphs, {})


def name_of(piece: Piece) -> str:
    """Of a piece in a contest."""
    return (
        f"{piece.kind.value} {piece.stride} {piece.kernel} {piece.inputs} {piece.outputs} "
        + str(piece.width)
    )


def measure(
    backend: Backend[Any, Any], contests: Sequence[Contest], passes: int, on_step: Progress
) -> dict[str, float]:
    """Milliseconds of everything but frames, whose time is subtracted; medians over all rounds.

    All contests are held ``passes`` times one after the other, so that a drift of the machine falls
    on all alike, and memory holds the engines of one.

    Raises:
        EngineBuildError: the backend cannot run one of them.
    """
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(passes):
        for position, contest in enumerate(contests):
            on_step(contest.title, number * len(contests) + position, passes * len(contests))
            for name, rounds in _hold(backend, contest).items():
                times[name] += rounds
    return {name: statistics.median(values) for name, values in times.items()}


def _hold(backend: Backend[Any, Any], contest: Contest) -> dict[str, list[float]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="dyninfer-blocks-")))
        runs = {
            name: stack.enter_context(_opened(backend, f"b{number}", make(), folder))
            for number, (name, make) in enumerate(contest.graphs.items())
        }
        found = run_rounds(runs, ROUNDS)
    return {
        name: [
            max(ms - found[contest.frames[name]][index], _LEAST * ms)
            if name in contest.frames
            else ms
            for index, ms in enumerate(rounds)
        ]
        for name, rounds in found.items()
        if name not in contest.frames.values()
    }


@contextmanager
def _opened(backend: Backend[Any, Any], name: str, graph: Graph, folder: Path) -> Iterator[Run]:
    """A graph as something to run, warm, which takes milliseconds each time."""
    path = folder / f"{name}.onnx"
    stage = graph.write(path)
    if backend.name in TENSORRT:
        path = compiled(backend, name, stage, path)
    outputs = frozenset(spec.name for spec in stage.outputs)
    engine = backend.open(name, stage, path, outputs)
    path.unlink()
    shape = stage.inputs[0].shape_for(1)
    assert shape is not None  # all axes but the batch are fixed
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    workspace = backend.workspace()
    try:

        def run_once() -> float:
            workspace.timed = True
            with backend.active():
                began = time.perf_counter()
                made = engine.run({INPUT: backend.from_host(values, workspace)}, workspace)
                waiting = [each.to_host() for each in made.values()]
                for each in waiting:
                    each.numpy()
                took = (time.perf_counter() - began) * 1e3
                spans = [ms for span, ms in workspace.device_spans() if span == name]
            return sum(spans) if spans else took

        for _ in range(backend.warm_rounds):
            last = run_once()
        count = max(_LEAST_RUNS, min(_MOST_RUNS, round(_TURN_MS / max(last, 1e-3))))
        yield lambda: min(run_once() for _ in range(count))
    finally:
        workspace.close()
        engine.close()


def compiled(backend: Backend[Any, Any], name: str, stage: Stage, path: Path) -> Path:
    """An engine of a file, as an application's bundle gets it from ``dyninfer build``."""
    from dyninfer.engines.trt.builder import EngineOptions, build_engine
    from dyninfer.engines.trt.file_types import StageFile
    from dyninfer.engines.trt.targets import BatchProfile

    platform = backend.platform  # type: ignore[attr-defined]  # of TrtBackend, imported by it alone
    library, active = platform.library, platform.cuda.active
    options = EngineOptions(BatchProfile(minimum=1, optimum=1, maximum=1))
    source = StageFile(name, stage, Precision.FP32, path)
    made = path.with_suffix(".engine")
    made.write_bytes(build_engine(library, source, options, active=active))
    return made
