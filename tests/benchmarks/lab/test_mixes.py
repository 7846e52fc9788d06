from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.benchmarks.baselines import contest
from dyninfer.benchmarks.baselines.child import ChildError
from dyninfer.benchmarks.baselines.contest import ContestTimes, Entry
from dyninfer.benchmarks.baselines.setup import CallKind, Kind, Setup
from dyninfer.benchmarks.lab import mixes
from dyninfer.errors import InputError

MIXES = ("onnxruntime", "openvino,router=onnxruntime:int8", "pytorch-eager")


class Opened:
    """A contender whose calls take as many milliseconds as is said of its precision."""

    setups: list[Setup]

    def __init__(self, setup: Setup) -> None:
        self.setups.append(setup)
        self.setup = setup

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, way: int, _call: CallKind, calls: int = 1, *, wake: bool = False) -> dict:
        del calls, wake
        ms = 400.0 if self.setup.kind is Kind.EAGER else 200.0
        return {"ms": (ms / 4 if self.setup.engine.precision else ms) * (1 + way), "idle_cpu_ms": 0}


@pytest.fixture
def setups(monkeypatch) -> list[Setup]:
    monkeypatch.setattr(Opened, "setups", [], raising=False)
    monkeypatch.setattr(contest, "Worker", Opened)
    monkeypatch.setattr(contest.time, "sleep", lambda _: None)
    return Opened.setups


def test_every_mix_is_compared_with_the_first_and_with_pytorch(small_bundle, setups) -> None:
    rows = mixes.measure(small_bundle, MIXES, [Path("full.pt")], 3)
    assert [(r.mix, r.way, r.median_ms, r.ratio, r.of_eager) for r in rows] == [
        (MIXES[0], "easy", 200, 1, 0.5),
        (MIXES[1], "easy", 50, 0.25, 0.125),
        (MIXES[2], "easy", 400, 2, 1),
        (MIXES[0], "hard", 400, 1, 0.5),
        (MIXES[1], "hard", 100, 0.25, 0.125),
        (MIXES[2], "hard", 800, 2, 1),
    ]
    assert [(s.kind, s.engine.backend, s.engine.precision) for s in setups] == [
        (Kind.DYNINFER, "onnxruntime", None),
        (Kind.DYNINFER, "openvino,router=onnxruntime", "int8"),
        (Kind.EAGER, None, None),
    ]
    assert setups[2].sources == ("full.pt",)


def test_a_ratio_has_its_interval_and_none_is_made_up_without_pytorch() -> None:
    entries = [Entry(mix, CallKind.API) for mix in MIXES[:2]]
    taken = [(4.0, 4.0, 8.0), (1.0, 2.0, 5.0)]
    first, second = mixes.rows_of(
        "easy", [ContestTimes(e, 0, ms, 0.0) for e, ms in zip(entries, taken, strict=True)]
    )
    assert (first.ratio, first.of_eager) == (1, None)
    assert second.ratio == 0.5  # of the sums
    assert second.ratio_low <= 0.5 <= second.ratio_high
    assert second.ratio_low < second.ratio_high


def test_a_mix_that_cannot_be_opened_is_told(small_bundle, monkeypatch, setups) -> None:
    def refuse(_setup: Setup) -> Opened:
        raise ChildError("no build in int8 fits")

    monkeypatch.setattr(contest, "Worker", refuse)
    with pytest.raises(InputError, match="mix onnxruntime cannot be run: no build in int8 fits"):
        mixes.measure(small_bundle, MIXES[:2], [], 3)
    assert setups == []


def test_the_table_has_a_column_for_pytorch_where_that_was_run(
    small_bundle, setups, capsys
) -> None:
    del setups
    mixes.print_rows("tiny", mixes.measure(small_bundle, MIXES, [], 3))
    assert "0.125" not in (shown := capsys.readouterr().out)
    assert "of eager" in shown
    mixes.print_rows("tiny", mixes.measure(small_bundle, MIXES[:2], [], 3))
    assert "of eager" not in capsys.readouterr().out
