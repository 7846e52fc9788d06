from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import dyninfer
from dyninfer.benchmarks.baselines.run import Progress
from dyninfer.benchmarks.latency.doubts import doubts_of
from dyninfer.benchmarks.latency.pictures import synthetic_pictures
from dyninfer.benchmarks.latency.record import Baselines, BenchRecord, Yardstick
from dyninfer.benchmarks.latency.record_file import read_record, write_record
from dyninfer.benchmarks.latency.request import BaselineRequest, BenchRequest, Effort
from dyninfer.benchmarks.latency.scenario_record import ScenarioResult
from dyninfer.benchmarks.latency.scenarios import Choices
from dyninfer.benchmarks.latency.take import (
    BenchInterrupted,
    rounds_of_comparison,
    take_record,
)
from tests import support

SHORT = Effort(seconds=0.02, rounds=3, min_calls=8, warm_up_seconds=0.02)


def request_of(bundle: Path, **changes) -> BenchRequest:
    return BenchRequest(
        command="dyninfer bench two.dyn",
        bundle=bundle,
        pictures=synthetic_pictures(16, 24),
        choices=Choices(batches=(1, 2), rates=(200.0,)),
        effort=SHORT,
        **changes,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.write_two_exits(tmp_path_factory.mktemp("bundle") / "two.dyn")


@pytest.fixture(scope="module")
def record(bundle: Path) -> BenchRecord:
    return take_record(request_of(bundle))


def test_a_record_holds_what_was_run_and_says_what_is_missing(record: BenchRecord) -> None:
    assert record.measured.bundle == "two.dyn"
    assert record.measured.exits == 2
    assert record.measured.image_inputs == {"images": "8x8"}
    assert [(s.name, s.role) for s in record.measured.stages] == [
        ("first", "body of exit 0"),
        ("router", "router of exit 0"),
        ("head", "head of exit 0"),
        ("second", "body of exit 1"),
    ]
    assert record.clock == "perf_counter_ns"
    assert record.machine.usable_cores >= 1
    assert record.log.seconds >= 0
    assert record.peak_memory_mib > 10
    assert record.yardstick.median_ms > 0
    assert len(record.scenarios) == 9
    assert record.baselines is None
    assert record.missing["baselines"] == "not asked for; see --against"
    assert "--images" in record.missing["curve"]
    assert record.model is not None or "model" in record.missing
    assert record.energy is not None or "energy" in record.missing


def test_spans_of_a_closed_loop_add_up_to_its_time_per_image(record: BenchRecord) -> None:
    for result in record.scenarios:
        if result.scenario.rate_per_s is None:
            total = sum(span.ms_per_image.value for span in result.spans)
            mean = result.latency.mean_ms.value / result.scenario.batch
            assert total == pytest.approx(mean, rel=1e-6)
            assert mean <= result.ms_per_image.value


def test_a_record_is_read_back_as_it_was_written(record: BenchRecord, tmp_path: Path) -> None:
    write_record(record, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == record
    assert "two.dyn" in (tmp_path / "record.json").read_text()


def test_no_folder_of_the_machine_is_in_a_record(record: BenchRecord, bundle: Path) -> None:
    record = replace(record, missing={}, log=replace(record.log, missing={}))
    assert str(bundle.parent) not in json.dumps(asdict(record))


def test_steps_are_told_before_they_run(bundle: Path) -> None:
    told: list[tuple[str, int, int]] = []
    request = replace(request_of(bundle), choices=Choices(batches=(1,), hard=(0.0, 1.0)))
    take_record(request, lambda what, done, total: told.append((what, done, total)))
    rounds = [step for step in told if step[2] > 1]
    assert [done for _, done, _ in rounds] == list(range(8))
    assert rounds[0] == ("warming up: batch 1, 0 % hard", 0, 8)
    assert rounds[-1][0].startswith("round 3/3: ")


def test_a_policy_that_was_asked_for_routes_the_scenarios_that_are_not_forced(
    bundle: Path,
) -> None:
    request = replace(
        request_of(bundle, policy=dyninfer.AlwaysHard()),
        choices=Choices(batches=(1,), hard=(0.0,), as_routed=True),
    )
    forced, routed = take_record(request).scenarios
    assert (forced.hard_fraction, routed.hard_fraction) == (0.0, 1.0)
    assert routed.scenario.name == "batch 1, as routed"


def test_a_comparison_that_fails_does_not_cost_what_was_measured_before(bundle: Path) -> None:
    request = replace(
        request_of(bundle, baselines=BaselineRequest(("always-last-exit",), rounds=1)),
        choices=Choices(batches=(1,), hard=(0.0,)),
    )
    found = take_record(request)
    assert found.baselines is None
    assert found.missing["baselines"].startswith("the comparison failed: ")
    assert len(found.scenarios) == 1


@pytest.fixture
def small(bundle: Path) -> BenchRequest:
    """One scenario, and a baseline."""
    request = request_of(bundle, baselines=BaselineRequest(("always-last-exit",), rounds=2))
    return replace(request, choices=Choices(batches=(1,), hard=(0.0,)))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (dyninfer.InputError("it broke"), "it broke"),
    ],
    ids=["disk", "memory", "own"],
)
def test_a_machine_that_gives_out_during_the_comparison_does_not_cost_the_scenarios(
    small: BenchRequest, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("dyninfer.benchmarks.latency.take.run_baselines", fail)
    found = take_record(small)
    assert found.missing["baselines"] == f"the comparison failed: {reason}"
    assert len(found.scenarios) == 1


def test_an_interruption_of_the_comparison_brings_what_was_measured_before(
    small: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dyninfer.benchmarks.latency.take.run_baselines", interrupted)
    with pytest.raises(BenchInterrupted) as caught:
        take_record(small)
    found = caught.value.record
    assert found.missing["baselines"] == "interrupted"
    assert found.baselines is None
    assert len(found.scenarios) == 1
    assert found.seconds > 0


def test_an_interruption_of_the_scenarios_brings_the_rounds_before_it(
    small: BenchRequest,
) -> None:
    effort = Effort(seconds=0.05, rounds=4, min_calls=8, warm_up_seconds=0.1, idle_seconds=0.1)
    choices = Choices(batches=(1,), hard=(0.0, 1.0))
    asked = replace(small, effort=effort, choices=choices)

    def until_interrupted(number: int) -> Progress:
        calls = iter(range(number))

        def on_step(what: str, _done: int, _total: int) -> None:
            if what.startswith("round ") and next(calls, None) is None:
                raise KeyboardInterrupt

        return on_step

    with pytest.raises(BenchInterrupted) as caught:
        take_record(asked, until_interrupted(3))
    found = caught.value.record
    assert found.missing["rounds"] == "interrupted in round 2 of 4"
    assert found.missing["baselines"] == found.missing["curve"] == "interrupted"
    assert sorted(len(result.rounds_ms) for result in found.scenarios) == [1, 2]
    with pytest.raises(BenchInterrupted) as caught:
        take_record(asked, until_interrupted(1))
    found = caught.value.record
    assert found.missing["rounds"] == "interrupted in round 1 of 4, before 1 of 2 scenarios"
    assert len(found.scenarios) == 1
    with pytest.raises(KeyboardInterrupt) as nothing:
        take_record(asked, until_interrupted(0))
    assert not isinstance(nothing.value, BenchInterrupted)


def test_a_curve_that_cannot_be_made_does_not_cost_the_scenarios(
    small: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise dyninfer.InputError("the pictures have gone")

    monkeypatch.setattr("dyninfer.benchmarks.latency.take.describe_pictures", fail)
    found = take_record(replace(small, baselines=BaselineRequest()))
    assert found.missing["curve"] == "it could not be made: the pictures have gone"
    assert (found.pictures.count, found.pictures.sizes) == (8, {"16x24": 8})
    assert len(found.scenarios) == 1


def test_a_meter_that_does_not_answer_at_rest_is_told_as_missing(
    small: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []

    class Mute:
        source = "a fake"

        def joules(self) -> float:
            raise dyninfer.DyninferError("the meter does not answer")

        def close(self) -> None:
            closed.append(True)

    def find(_device: str) -> tuple[Mute, str]:
        return Mute(), "a fake"

    monkeypatch.setattr("dyninfer.benchmarks.latency.energy_log.find_energy_meter", find)
    found = take_record(replace(small, baselines=BaselineRequest()))
    assert (found.energy, found.missing["energy"]) == (None, "the meter does not answer")
    assert len(found.scenarios) == len(closed) == 1


@pytest.mark.parametrize(("ms", "rounds"), [(5.0, 20), (500.0, 15), (5000.0, 8)])
def test_slow_calls_are_compared_in_fewer_rounds(
    record: BenchRecord, ms: float, rounds: int
) -> None:
    first = record.scenarios[0]
    mean = replace(first.latency.mean_ms, value=ms)
    slow = replace(first, latency=replace(first.latency, mean_ms=mean))
    asked = BaselineRequest(("always-last-exit",))
    assert rounds_of_comparison(asked, [slow], 60.0) == rounds
    assert rounds_of_comparison(asked, [], 60.0) == 20
    assert rounds_of_comparison(replace(asked, rounds=3), [slow], 60.0) == 3


def test_a_bundle_of_one_exit_is_measured(tmp_path: Path) -> None:
    path = support.write_static(tmp_path / "one.dyn")
    found = take_record(replace(request_of(path), choices=Choices(batches=(1,))))
    assert [result.scenario.name for result in found.scenarios] == ["batch 1, exit 0"]
    assert found.scenarios[0].hard_fraction == 1.0


def test_doubts_are_told_one_line_each(record: BenchRecord) -> None:
    calm = replace(
        record,
        yardstick=Yardstick("x", (5.0, 5.1), 5.05),
        scenarios=tuple(
            replace(
                r,
                warm_up=replace(r.warm_up, stable=True),
                late_share=None,
                rounds_ms=((5.0,),) * 5,
            )
            for r in record.scenarios
        ),
    )
    machine = doubts_of(calm)
    shares = iter((0.06, 0.4, 0.2))
    late = [
        replace(r, late_share=next(shares) if r.scenario.rate_per_s else 0.05)
        for r in calm.scenarios
    ]
    late[0] = replace(late[0], warm_up=replace(late[0].warm_up, stable=False))
    late[1] = replace(late[1], rounds_ms=((5.0,),) * 4)
    doubtful = replace(
        calm,
        yardstick=Yardstick("x", (5.0, 6.5), 5.5),
        scenarios=tuple(late),
        baselines=Baselines(2, (), (), (), {"naive": "it broke"}),
    )
    new = [line for line in doubts_of(doubtful) if line not in machine]
    assert len(new) == 5
    assert "5.00 to 6.50 ms" in new[0]
    assert "batch 1, 0 % hard" in new[1]
    assert "fewer than 5 rounds" in new[2]
    assert "batch 1, 50 % hard; give --rounds 5 or more" in new[2]
    assert "40% of the calls" in new[3]
    assert "(and 2 more)" in new[3]
    assert new[4] == "no baseline naive: it broke"


@pytest.mark.parametrize(
    ("text", "part"), [("{}", "Field required"), ("[1]", "record"), ("nothing", "Invalid JSON")]
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with support.refuses(dyninfer.InputError, str(path), part):
        read_record(path)
    with support.refuses(dyninfer.InputError, "cannot be read"):
        read_record(tmp_path / "none.json")


def damaged(record: BenchRecord, place: tuple[str | int, ...], value: object) -> str:
    """The text of a record with one value replaced."""
    whole = asdict(record)
    part = whole
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("scenarios",), []),
        (("yardstick", "rounds_ms"), []),
        (("yardstick", "rounds_ms"), [0.0, 1.0]),
        (("yardstick", "rounds_ms"), [float("nan"), 1.0]),
        (("peak_memory_mib",), 0.0),
        (("scenarios", 0, "rounds_ms"), []),
        (("scenarios", 0, "rounds_ms"), [[]]),
        (("scenarios", 0, "rounds_ms"), [[1.0, -1.0]]),
        (("scenarios", 0, "rounds_ms"), [[float("inf")]]),
        (("scenarios", 0, "latency", "mean_ms", "value"), float("nan")),
        (("scenarios", 0, "latency", "p50_ms"), {"value": 0.0, "low": 0.0, "high": 0.0}),
        (("scenarios", 0, "images_per_s"), {"value": 5.0, "low": 6.0, "high": 7.0}),
        (("scenarios", 0, "latency", "count"), 0),
        (("scenarios", 0, "scenario", "batch"), 0),
        (("scenarios", 0, "scenario", "hard_fraction"), 2.0),
    ],
)
def test_a_record_without_times_that_can_be_is_refused_before_it_breaks_something(
    record: BenchRecord, tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    path = tmp_path / "record.json"
    path.write_text(damaged(record, place, value))
    with support.refuses(dyninfer.InputError, str(path), ".".join(map(str, place[:2]))):
        read_record(path)


def test_a_record_of_a_later_dyninfer_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"schema_version": 3, "another": "format"}')
    with support.refuses(dyninfer.InputError, "schema version 3", "reads up to 2", "newer one"):
        read_record(path)


@pytest.mark.parametrize(
    ("place", "value", "part"),
    [
        (("measured", "exits"), 10**9, "measured.exits"),
        (("measured", "exits"), 0, "measured.exits"),
        (("measured", "exits"), 1, "exit 1, and measured.exits is 1"),
        (("measured", "ways"), ["exit 0"], "1 names of ways, and measured.exits is 2"),
        (("pictures", "easiness"), [[0.5], [0.5]], "2 routers"),
    ],
)
def test_a_record_whose_exits_do_not_fit_is_refused(
    record: BenchRecord, tmp_path: Path, place: tuple[str, ...], value: object, part: str
) -> None:
    path = tmp_path / "record.json"
    path.write_text(damaged(record, place, value))
    with support.refuses(dyninfer.InputError, str(path), part):
        read_record(path)


def test_nothing_of_a_record_reaches_a_terminal_as_a_command(
    record: BenchRecord, tmp_path: Path
) -> None:
    escape, path = "two\x1b[31m\x9b2J\n\x07.dyn\x7f", tmp_path / "record.json"
    bad = replace(
        record,
        command=escape,
        measured=replace(record.measured, bundle=escape, image_inputs={escape: escape}),
        missing={escape: escape},
    )
    write_record(bad, path)
    found = read_record(path)
    assert found.command == found.measured.bundle == "two [31m 2J .dyn "
    assert found.missing == found.measured.image_inputs == {found.command: found.command}
    assert found.scenarios == record.scenarios
    path.write_text(damaged(record, ("pictures", "sizes"), {escape: "no number"}))
    with support.refuses(dyninfer.InputError, "two [31m") as caught:
        read_record(path)
    assert "\x1b" not in str(caught.value)


def test_a_share_that_few_calls_did_not_reach_is_doubted(record: BenchRecord) -> None:
    first = record.scenarios[0]
    rare = replace(first, scenario=replace(first.scenario, hard_fraction=0.01), hard_fraction=0.0)
    assert rare.achieved_share == 0.0
    assert replace(rare, hard_fraction=0.0095).achieved_share is None
    assert first.achieved_share is None

    def told(only: ScenarioResult) -> list[str]:
        lines = doubts_of(replace(record, scenarios=(only,)))
        return [line for line in lines if "of the images were hard" in line]

    assert told(first) == []
    (line,) = told(rare)
    assert line.startswith("0.00% of the images")
    assert "batch 1, 1 % hard" in line
