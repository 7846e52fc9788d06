from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dyninfer.errors import ConfigError, InputError
from dyninfer.search.budgets import Budgets, Measure
from dyninfer.search.device_table import SCHEMA_VERSION, DeviceTable, MeasuredNetwork, read_table
from dyninfer.search.evolution import Search, Settings
from dyninfer.search.pieces import Kind, Piece
from dyninfer.search.space import START
from dyninfer.search.state import resume, save
from dyninfer.search.structure import Block, Structure
from tests.dyninfer.search.structures import SMALL
from tests.dyninfer.search.tables import (
    HELD_OUT,
    SIZE,
    document,
    measured,
    time_of,
    time_of_network,
)

BUDGET = 1.5 * time_of_network(START)


@pytest.fixture(scope="module")
def table() -> DeviceTable:
    return DeviceTable(document())


def test_a_network_takes_what_its_pieces_and_maps_do(table: DeviceTable) -> None:
    # of kernels 3 and 5, depths of 2 to 10, channels between those that were measured
    stem, second, *others = SMALL.blocks
    small = Structure((stem, replace(second, width=16), *others))
    assert table.latency_ms(small) == pytest.approx(time_of_network(small), rel=1e-9)
    assert table.piece_ms(HELD_OUT[1]) == pytest.approx(time_of(HELD_OUT[1]), rel=1e-9)


def test_work_is_counted_as_the_costs_are() -> None:
    # a bottleneck of 64, 16 and 64 channels at stride 4: 64 places of 32x32 pixels
    assert Piece(Kind.NEXT, 4, 3, 64, 64, 16).work == 64 * (64 * 16 + 9 * 16 * 16 + 16 * 64)
    # with stride 2 its first convolution has four times the places, and there is a projection
    down = 4 * 64 * 32 * 16 + 64 * (9 * 16 * 16 + 16 * 64 + 32 * 64)
    assert Piece(Kind.DOWN, 4, 3, 32, 64, 16).work == down
    assert Piece(Kind.GIVEN, 8, 0, 24, 24, 0).work == 16 * 24


def test_beyond_what_was_measured_the_speed_is_that_of_the_nearest(table: DeviceTable) -> None:
    edge = Piece(Kind.NEXT, 32, 3, 2048, 2048, 1024)
    beyond = replace(edge, inputs=4096, outputs=4096, width=2048)
    expected = time_of(edge) / edge.work * beyond.work
    assert table.piece_ms(beyond) == pytest.approx(expected, rel=1e-9)


def test_its_error_is_stated(table: DeviceTable) -> None:
    assert str(table.piece_errors) == "-20% to +25%, half within 25%"
    assert str(table.network_errors) == "+0% to +0%, half within 0%"


def test_pieces_like_which_none_was_measured(table: DeviceTable) -> None:
    seven = Structure((*START.blocks[:5], replace(START.blocks[5], kernel=7)))
    with pytest.raises(InputError, match=r"no time of a bottleneck \(down\) of kernel 7 at stride"):
        table.latency_ms(seven)
    grouped = Structure((*START.blocks[:1], Block(32, 256, 3, 2, 1, 64, 2), *START.blocks[2:]))
    with pytest.raises(InputError, match="no grouped convolutions"):
        table.latency_ms(grouped)


def test_a_table_is_the_same_once_read(tmp_path: Path, table: DeviceTable) -> None:
    path = tmp_path / "blocks.json"
    path.write_text(table.document.model_dump_json(indent=1))
    again = read_table(path)
    assert (again.document, again.sha256) == (table.document, table.sha256)


NEXT = Piece(Kind.NEXT, 8, 3, 128, 128, 24)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pieces": []}, "pieces: Tuple should have at least 1 item"),
        ({"networks": []}, "networks: Tuple should have at least 1 item"),
        ({"image_size": [480, 500]}, "image_size.1: Input should be a multiple of 32"),
        ({"run": {}}, "run.backend: Field required"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
        ({"kind": "dyninfer search"}, "kind: Input should be 'dyninfer device table'"),
        ({"networks": [{"structure": "{", "ms": 1}]}, "it is no literal"),
        ({"networks": [{"structure": "x" * 70000, "ms": 1}]}, "at most 65536 characters"),
        ({"ms": -1.0}, "pieces.0.ms: Input should be greater than 0"),
        ({"ms": float("nan")}, "pieces.0.ms: Input should be"),
        ({"ms": 1e300}, "pieces.0.ms: Input should be less than"),
        ({"kernel": 0}, "a piece next has kernel 0 and width 24"),
        ({"width": 0}, "a piece next has kernel 3 and width 0"),
        ({"width": 32}, "the pieces next of stride 8 and kernel 3 are no full grid"),
        ({"outputs": 1 << 17}, "pieces.0.outputs: Input should be less than or equal to 65536"),
        ({"kind of piece": "stem2"}, "pieces.0.kind: Input should be 'stem'"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_hostile_tables_are_refused_in_one_line(tmp_path: Path, change, expected: str) -> None:
    written = json.loads(document().model_dump_json())
    first = next(
        entry
        for entry in written["pieces"]
        if entry == json.loads(measured(NEXT).model_dump_json())
    )
    written["pieces"].remove(first)
    renamed = {"kind" if name == "kind of piece" else name: value for name, value in change.items()}
    own = renamed.keys() <= first.keys() and change.keys() != {"kind"}
    written["pieces"].insert(0, {**first, **renamed} if own else first)
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps(written if own else {**written, **change}))
    with pytest.raises(ConfigError, match="is no device table: ") as refused:
        read_table(path)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_table_at_all(tmp_path: Path) -> None:
    path = tmp_path / "blocks.json"
    with pytest.raises(
        ConfigError, match="does not exist; measure it with dyninfer bench --blocks"
    ):
        read_table(path)
    later = {"schema_version": SCHEMA_VERSION + 1}
    for text, expected in (
        ("{", "no device table can be"),
        ("[" * 9999, "too deeply"),
        ("[]", "is no"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            read_table(path)
    path.write_text(json.dumps(later))
    with pytest.raises(ConfigError, match="written by a newer dyninfer"):
        read_table(path)
    twice = document(pieces=(measured(NEXT), measured(NEXT)))
    path.write_text(twice.model_dump_json())
    with pytest.raises(ConfigError, match="is there twice"):
        read_table(path)


def test_a_search_keeps_to_a_latency_and_goes_on_as_if_never_stopped(
    tmp_path: Path, table: DeviceTable
) -> None:
    settings = Settings(Budgets(latency_ms=BUDGET), Measure(SIZE, table))
    whole = Search(settings)
    whole.advance(600)
    assert all(time_of_network(each.structure) <= BUDGET * 1.000001 for each in whole.population)
    assert whole.best.score > whole.population[-1].score
    assert whole.price(whole.best) == whole.best.latency_ms
    path = tmp_path / "found.search.json"
    stopped = Search(settings)
    stopped.advance(250)
    save(stopped, path)
    again = Settings(settings.budgets, Measure(SIZE, DeviceTable(document())))
    continued = resume(path, again)
    continued.advance(600)
    assert (continued.population, continued.front) == (whole.population, whole.front)
    other = document(networks=(MeasuredNetwork(structure=START.text, ms=1),))
    with pytest.raises(ConfigError, match="of a search with another device table;"):
        resume(path, Settings(settings.budgets, Measure(SIZE, DeviceTable(other))))


def test_a_latency_that_the_start_network_breaks(table: DeviceTable) -> None:
    with pytest.raises(
        InputError, match=r"has, at 480x480, [\d.]+ ms, more than the budget of 1 ms:"
    ):
        Search(Settings(Budgets(latency_ms=1), Measure(SIZE, table)))


def test_a_table_of_another_image_size(table: DeviceTable) -> None:
    with pytest.raises(
        InputError, match="is 640x640, but the device table was measured at 480x480"
    ):
        Measure((640, 640), table)
