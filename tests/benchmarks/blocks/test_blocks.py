from __future__ import annotations

import json
import random
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from dyninfer.benchmarks.blocks import measure, take
from dyninfer.benchmarks.blocks.graph import INPUT, frame_graph, network_graph, piece_graph
from dyninfer.benchmarks.blocks.points import grid, held_out, networks
from dyninfer.engines import open_backend
from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.search.cost import cost_of
from dyninfer.search.device_table import read_table
from dyninfer.search.pieces import Kind, Piece, given_pieces, pieces_of_block
from dyninfer.search.space import START, Space
from dyninfer.search.structure import Block, Structure
from tests.dyninfer.cli.run import run
from tests.engines.trt.rig import make_rig
from tests.engines.trt.standin.library import engine_file

SIZE = (64, 96)
NARROW = Structure(
    (
        Block(3, 8, 3, 2),
        Block(8, 16, 3, 2, 2, 8),
        Block(16, 24, 5, 2, 1, 8),
        Block(24, 32, 3, 2, 1, 16),
        Block(32, 40, 3, 1, 3, 8),
        Block(40, 48, 3, 2, 1, 16),
    )
)
PIECES = [
    piece
    for block in zip(NARROW.blocks, NARROW.strides, strict=True)
    for piece, _ in pieces_of_block(*block)
] + given_pieces(NARROW)


def test_a_graph_costs_what_its_pieces_do(tmp_path: Path) -> None:
    whole = network_graph(NARROW, SIZE).write(tmp_path / "whole.onnx")
    assert whole.macs == cost_of(NARROW, SIZE).macs
    session = onnxruntime.InferenceSession(str(tmp_path / "whole.onnx"))
    found = session.run(None, {INPUT: np.ones((1, 3, *SIZE), np.float32)})
    assert [each.shape[1:] for each in found] == [
        (16, 16, 24), (24, 8, 12), (40, 4, 6), (48, 2, 3)
    ]  # fmt: skip
    assert all(np.isfinite(each).all() and each.any() for each in found)
    tiles = SIZE[0] * SIZE[1] // 32**2
    for piece in PIECES:
        macs = piece_graph(piece, SIZE).write(tmp_path / "piece.onnx").macs
        if piece.kind is not Kind.STEM:
            before = piece.stride // piece.block.stride if piece.width else piece.stride
            macs -= frame_graph(piece.inputs, before, SIZE).write(tmp_path / "frame.onnx").macs
        assert macs == (0 if piece.kind is Kind.GIVEN else tiles * piece.work)


@pytest.mark.parametrize("side", [480, 96, 64, 32])
def test_whatever_a_search_draws_lies_on_a_grid(side: int) -> None:
    rng, space = random.Random(3), Space(91, side)
    measured = grid(side)
    assert len(set(measured)) == len(measured)
    groups = {(piece.kind, piece.stride, piece.kernel) for piece in measured}
    drawn = [START]
    for _ in range(300):
        drawn.append(space.mutated(drawn[-1], rng))
    for structure in (*drawn, *networks(side)):
        for block in zip(structure.blocks, structure.strides, strict=True):
            for piece, _ in pieces_of_block(*block):
                assert (piece.kind, piece.stride, piece.kernel) in groups
    aside = held_out(networks(side), side)
    assert {piece.stride for piece in aside} == {4, 8, 16, 32}
    assert not set(aside) & set(measured)


def test_what_runs_in_turns_is_measured_without_its_frame(monkeypatch) -> None:
    turns: list[float] = []
    times = {"next": 5.0, "frame": 1.5}

    def fake(_backend, _name, graph, _folder):
        ms = times["next" if graph.channels == 16 and len(graph._nodes) > 4 else "frame"]
        turns.append(ms)
        return nullcontext(lambda: ms)

    monkeypatch.setattr(measure, "_opened", fake)
    (contest,) = measure.piece_contests([PIECES[2]], SIZE)
    steps: list[tuple[int, int]] = []
    found = measure.measure(None, [contest], 2, lambda _what, done, of: steps.append((done, of)))
    assert found == {measure.name_of(PIECES[2]): 3.5}
    assert (steps, len(turns)) == ([(0, 2), (1, 2)], 4)
    times["frame"] = 9.0  # as noise can make it, and a time is never 0 or less
    assert measure.measure(None, [contest], 1, lambda *_: None) == {
        measure.name_of(PIECES[2]): pytest.approx(0.1)
    }


@pytest.fixture
def few(monkeypatch) -> None:
    monkeypatch.setattr(take, "grid", lambda _side: PIECES)
    monkeypatch.setattr(take, "networks", lambda _side: [NARROW])
    monkeypatch.setattr(take, "held_out", lambda *_: [Piece(Kind.NEXT, 4, 3, 24, 24, 8)])


@pytest.mark.usefixtures("few")
def test_blocks_are_measured_and_a_table_is_written(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ("bench", "--blocks", "--quick", "--image-size", "64x96")
    status, out, err = run(capsys, *arguments)
    assert (status, err) == (0, "")
    table = read_table(Path("blocks.json"))
    assert table.image_size == SIZE
    assert [entry.piece for entry in table.document.pieces] == PIECES
    assert table.document.run.backend == "onnxruntime"
    assert table.document.machine["usable_cores"] >= 1
    assert table.latency_ms(NARROW) > 0
    assert "of 1 whole backbone it is off by" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80 or "next: " in out
    assert [path.name for path in tmp_path.iterdir()] == ["blocks.json"]
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (1, "")
    assert "blocks.json exists; give --output" in err
    status, out, _ = run(capsys, *arguments, "-o", "blocks.json", "--json")
    assert (status, json.loads(out)["image_size"]) == (0, [64, 96])


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (("--image-size", "100"), 1, "expected multiples of 32"),
        (("-o", "missing/blocks.json"), 1, "there is no folder missing"),
        (("bundle.dyn",), 2, "give one of BUNDLE, --compare OLD NEW, --from RECORD and --blocks"),
        (("--images", "."), 2, "--images is for a bundle, and --blocks measures none"),
        (("--precision", "fp16"), 2, "--precision is for a bundle"),
        (("--backend", "a=openvino"), 2, "expected for --blocks one of onnxruntime"),
        (("--backend", "tensorrt", "--device", "cpu"), 1, "does not run on device 'cpu'"),
    ],
    ids=["odd", "no folder", "bundle", "images", "precision", "mixed", "no gpu"],
)
def test_what_cannot_be_measured(capsys, arguments, status: int, expected: str) -> None:
    found, out, err = run(capsys, "bench", "--blocks", *arguments)
    assert (found, out) == (status, "")
    assert expected in err.splitlines()[-1]


def test_an_image_size_is_of_blocks_alone(capsys) -> None:
    status, _, err = run(capsys, "bench", "everyday", "--image-size", "640")
    assert status == 2
    assert "--image-size is for --blocks, not for a bundle" in err


def test_tensorrt_compiles_each_piece(tmp_path: Path) -> None:
    """By the real compiler, which needs no GPU; its engine was not run on one."""
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
    stage = piece_graph(PIECES[1], SIZE).write(tmp_path / "b0.onnx")
    library = load_library(Flavour.RTX)
    cuda = SimpleNamespace(active=nullcontext)
    backend = SimpleNamespace(platform=SimpleNamespace(library=library, cuda=cuda))
    made = measure.compiled(backend, "b0", stage, tmp_path / "b0.onnx")
    assert (made.suffix, made.stat().st_size > 1000) == (".engine", True)


def test_tensorrt_is_timed_by_the_devices_clock(monkeypatch) -> None:
    """On the stand-in; a GPU was not at hand."""
    rig = make_rig()

    def made(_backend, _name, _stage, path: Path) -> Path:
        engine = path.with_suffix(".engine")
        engine.write_bytes(engine_file(path))
        return engine

    monkeypatch.setattr(measure, "compiled", made)
    contests = measure.piece_contests([PIECES[2]], SIZE)
    found = measure.measure(rig.backend, contests, 1, lambda *_: None)
    assert found[measure.name_of(PIECES[2])] > 0
    rig.backend.close()
    assert not rig.machine.leaks(), rig.machine.leaks()
    assert not rig.machine.violations, rig.machine.violations


def test_openvino_measures_as_well() -> None:
    pytest.importorskip("openvino", reason="pip install dyninfer[openvino]")
    backend = open_backend("openvino")
    try:
        found = measure.measure(
            backend, measure.piece_contests([PIECES[2]], SIZE), 1, lambda *_: None
        )
    finally:
        backend.close()
    assert found[measure.name_of(PIECES[2])] > 0
