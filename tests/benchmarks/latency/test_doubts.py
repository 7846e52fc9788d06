"""From which figures on a record is doubted, and in which words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dyninfer.benchmarks.latency.doubts import doubts_of, unsteady_reasons, yardstick_spread
from dyninfer.benchmarks.latency.record import Baselines
from dyninfer.benchmarks.latency.scenario_record import Scenario, WarmUp
from dyninfer.benchmarks.machine import Range
from tests.benchmarks.latency.compared_records import EASY, HARD, record_of

THIRD = Scenario(hard_fraction=0.5)
CALM = record_of({scenario: [[5.0]] * 5 for scenario in (EASY, HARD, THIRD)})
MACHINE = doubts_of(CALM)


def lines(*changed: dict, spread: tuple[float, ...] = (5.0,)) -> list[str]:
    """Doubts of a record of which the first scenarios are changed so, but those of its machine."""
    scenarios = [replace(r, **own) for r, own in zip(CALM.scenarios, changed, strict=False)]
    record = replace(
        CALM,
        scenarios=(*scenarios, *CALM.scenarios[len(scenarios) :]),
        yardstick=replace(CALM.yardstick, rounds_ms=spread),
    )
    assert doubts_of(record)[: len(MACHINE)] == MACHINE
    return doubts_of(record)[len(MACHINE) :]


def test_a_calm_record_is_doubted_for_its_machine_alone() -> None:
    assert lines() == []
    assert lines({"late_share": 0.05}, {"late_share": 0.0}) == []


@pytest.mark.parametrize(
    ("rounds", "spread", "doubted"),
    [
        ((9.0, 10.0, 10.0, 11.0, 12.0), 0.1, False),
        ((9.0, 10.0, 10.0, 11.01, 12.0), 0.101, True),
        ((8.99, 8.99, 10.0, 10.0, 10.0), 0.101, True),
        ((10.0, 9.5, 10.5, 1.0, 99.0), 0.1, False),
    ],
)
def test_a_yardstick_that_varies_by_more_than_a_tenth(rounds, spread, doubted) -> None:
    record = replace(CALM, yardstick=replace(CALM.yardstick, rounds_ms=rounds))
    assert yardstick_spread(record) == pytest.approx(spread)
    told = f"took {min(rounds):.2f} to {max(rounds):.2f} ms"
    assert [told in line for line in lines(spread=rounds)] == [True] * doubted
    said = [f"the {which} record's yardstick varied by 10 %" for which in ("old", "new")]
    assert unsteady_reasons(record, CALM) == (said[0],) * doubted
    assert unsteady_reasons(CALM, record) == (said[1],) * doubted


@pytest.mark.parametrize(("cores", "told"), [(0.25, None), (0.26, "0.3"), (1.24, "1.2")])
def test_other_work_of_more_than_a_quarter_of_a_core(cores, told) -> None:
    reading = {"other_load_cores": Range(0.0, cores, 9.0)}
    busy = replace(CALM, log=replace(CALM.log, readings=reading))
    for which, pair in (("old", (busy, CALM)), ("new", (CALM, busy))):
        said = f"other work took {told} cores during the {which} record"
        assert unsteady_reasons(*pair) == (() if told is None else (said,))


def test_scenarios_are_named_by_the_first_and_a_count() -> None:
    ended = {"warm_up": WarmUp(3, 0.1, False)}
    assert lines(ended) == [f"still changing when its warm-up had to end: {EASY.name}"]
    assert lines({}, ended)[0].endswith(f": {HARD.name}")
    assert lines(ended, ended)[0].endswith(f": {EASY.name} (and 1 more)")
    assert lines(ended, ended, ended)[0].endswith(f": {EASY.name} (and 2 more)")
    (few,) = lines({}, {"rounds_ms": ((5.0,),) * 4})
    assert few == (
        "measured in fewer than 5 rounds, so its intervals are too narrow or absent: "
        f"{HARD.name}; give --rounds 5 or more, and more --seconds where calls are slow"
    )


def test_the_latest_calls_come_first_and_a_share_is_that_of_the_first() -> None:
    (late,) = lines({"late_share": 0.051}, {"late_share": 0.334}, {"late_share": 0.2})
    assert late.startswith(f"33% of the calls started late at {HARD.name} (and 2 more): their")
    (off,) = lines({}, {"hard_fraction": 0.4375}, {"hard_fraction": 0.25})
    assert off.startswith("43.75% of the images were hard, since the calls were few, at ")
    assert off.endswith(f"at {HARD.name} (and 1 more); measure longer (--seconds)")


def test_a_baseline_that_could_not_run_is_told_with_its_reason() -> None:
    baselines = Baselines(5, (), (), (), {"pytorch": "torch is missing"})
    assert doubts_of(replace(CALM, baselines=baselines)) == [
        *MACHINE,
        "no baseline pytorch: torch is missing",
    ]
