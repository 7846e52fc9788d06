"""A minute of fuzzing with a fixed seed, everything that fuzzing found before, and the harness."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

from dyninfer.errors import DyninferError
from tests.fuzz import campaign, readers
from tests.fuzz.campaign import Tally, run_cases
from tests.fuzz.target import KINDS
from tests.fuzz.worker import GIB, Limits, Order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are those of Linux")
CORPUS = Path(__file__).parent / "corpus"
SEED = 11
PATIENT = Limits(seconds=90)  # the machine may be busy with other tests
COUNTS = {
    "bundle": 100,
    "calibration": 250,
    "record": 40,
    "checkpoint": 400,
    "onnx": 40,
    "picture": 500,
    "command line": 100,
}


def told(tally: Tally) -> str:
    return "\n".join(f"{f.cause}, input {f.case}: {f.detail}" for f in tally.findings.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_made_input_gets_past_the_project(kind: str) -> None:
    tally = Tally(kind)
    assert run_cases(tally, SEED, range(COUNTS[kind]), limits=PATIENT) == COUNTS[kind]
    assert not tally.findings, told(tally)
    assert tally.outcomes["refused"]
    assert tally.outcomes["accepted"]


@pytest.mark.parametrize("kind", sorted(folder.name for folder in CORPUS.iterdir()))
def test_what_was_found_once_is_not_found_again(kind: str) -> None:
    kept = sorted((CORPUS / kind).iterdir())
    tally = Tally(kind.replace("-", " "))
    run_cases(tally, SEED, kept, limits=PATIENT)
    assert not tally.findings, told(tally)


@pytest.mark.parametrize("kind", readers.FILES)
def test_readers_of_the_guided_fuzzer_get_past_the_seal(kind: str, tmp_path) -> None:
    (tmp_path / "made").mkdir()
    accepted, said = 0, []
    for seed in islice(readers.seeds(kind, tmp_path / "made"), 20):
        try:
            readers.read(kind, seed, tmp_path / "file")
            accepted += 1
        except DyninferError as error:
            said.append(str(error))
    assert accepted, said
    assert sum("does not match" in reason for reason in said) <= 1, said


def planted(folder: Path, acts: list[str]) -> list[Path]:
    """An input for each act, named by its number."""
    cases = [folder / f"{number}" for number in range(len(acts))]
    for case, act in zip(cases, acts, strict=True):
        case.mkdir(parents=True)
        (case / "act").write_text(act)
    return cases


def test_the_harness_finds_what_is_planted(tmp_path, monkeypatch) -> None:
    """Whatever an input does, those after it are fed, and each is counted as what it was."""
    monkeypatch.setitem(KINDS, "planted", "tests.fuzz.planted.Planted")
    acts = ["nothing", "crash", "refuse", "raise", "nothing", "memory", "exit", "refuse"]
    tally, limits = Tally("planted"), Limits(PATIENT.seconds, memory=GIB // 2)
    cases = planted(tmp_path / "acts", acts)
    assert run_cases(tally, 0, cases, tmp_path / "kept", limits=limits) == len(acts)
    assert tally.outcomes == {
        **{"accepted": 2, "refused": 2, "crash": 1, "memory": 1},
        **{"KeyError": 1, "SystemExit": 1},
    }
    assert str(tally) == (
        "planted 2 refused, 2 accepted, 1 crashes, 1 KeyError, 1 SystemExit, 1 memory"
    )
    crash = next(f for f in tally.findings.values() if f.outcome == "crash")
    assert "Segmentation fault" in crash.detail
    assert "string_at" in crash.detail
    kept = {place.name for place in (tmp_path / "kept").iterdir()}
    assert kept == {f"planted-0-{number}" for number in (1, 3, 5, 6)}
    assert (tmp_path / "kept" / "planted-0-1" / "input" / "act").read_text() == "crash"


def test_the_harness_gives_up_what_hangs_and_feeds_the_next(tmp_path, monkeypatch) -> None:
    """Nothing else is fed: on a busy machine it might take a second, too."""
    started: list[Order] = []

    class Watched(campaign._Worker):
        def __init__(self, order: Order) -> None:
            started.append(order)
            super().__init__(order)

    monkeypatch.setattr(campaign, "_Worker", Watched)
    monkeypatch.setitem(KINDS, "planted", "tests.fuzz.planted.Planted")
    tally, cases = Tally("planted"), planted(tmp_path / "acts", ["hang", "hang"])
    assert run_cases(tally, 0, cases, tmp_path / "kept", limits=Limits(seconds=1)) == 2
    assert [[*order.cases] for order in started] == [cases, cases[1:]]
    assert tally.outcomes == {"hang": 2}
    assert str(tally) == "planted 0 refused, 0 accepted, 0 crashes, 2 hang"
    assert (tmp_path / "kept" / "planted-0-0" / "input" / "act").read_text() == "hang"
