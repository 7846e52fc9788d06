from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.compare import _Figure, _in_reach, _Judge, compare_records
from dyninfer.benchmarks.latency.comparison import Change, ScenarioChange, Verdict
from dyninfer.benchmarks.latency.record import BaselineRatio, Baselines, BenchRecord
from dyninfer.benchmarks.latency.record_file import read_record, write_record
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario
from dyninfer.benchmarks.latency.statistics import mean_of
from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.gpu import Gpu
from dyninfer.benchmarks.machine.host import Host
from dyninfer.benchmarks.machine.recorder import Range
from dyninfer.benchmarks.report.comparison import (
    Outcome,
    as_data,
    changes_table,
    lines_of,
    outcome_of,
    verdict_of,
)
from dyninfer.errors import InputError
from dyninfer.evaluation.interleaved import RatioEstimate
from tests.benchmarks.latency.compared_records import EASY, HARD, drawn_rounds, record_of, result_of
from tests.support import refuses

AT_RATE = Scenario(rate_per_s=20.0, hard_fraction=0.0)


def drawn(seed: int, easy: float = 10.0, hard: float = 20.0, **noise: Any) -> BenchRecord:
    rng = np.random.default_rng(seed)
    return record_of(
        {EASY: drawn_rounds(rng, easy, **noise), HARD: drawn_rounds(rng, hard, **noise)}
    )


def one_round(*times: float) -> BenchRecord:
    return record_of({EASY: [times]}, yardstick_ms=[5.0])


def changed_machine(record: BenchRecord, **fields: object) -> BenchRecord:
    return replace(record, machine=replace(record.machine, **fields))


def test_what_did_not_change_is_rarely_flagged() -> None:
    flagged = [
        bool(compare_records(drawn(2 * seed), drawn(2 * seed + 1), tolerance=0.0).regressions)
        for seed in range(150)
    ]
    # two scenarios with two figures each, whatever their tolerance: 2.5 % on the slow side
    assert np.mean(flagged) <= 0.06


def test_with_the_tolerance_next_to_nothing_is_flagged() -> None:
    flagged = [
        bool(compare_records(drawn(2 * seed), drawn(2 * seed + 1)).regressions)
        for seed in range(100)
    ]
    assert sum(flagged) <= 2


def test_a_slow_down_by_a_tenth_is_found_nearly_always_and_at_its_place() -> None:
    found = [
        [
            change.scenario
            for change in compare_records(drawn(seed), drawn(seed + 500, hard=22.0)).regressions
        ]
        for seed in range(100)
    ]
    assert np.mean([HARD in scenarios for scenarios in found]) >= 0.95
    assert np.mean([EASY in scenarios for scenarios in found]) <= 0.05


def test_a_slow_down_just_within_the_tolerance_is_rarely_called_one_however_many_rounds() -> None:
    flagged = [
        bool(
            compare_records(
                drawn(seed, rounds=40), drawn(seed + 500, easy=10.29, hard=20.58, rounds=40)
            ).regressions
        )
        for seed in range(60)
    ]
    assert np.mean(flagged) <= 0.05


def test_a_slow_down_within_the_tolerance_is_let_pass() -> None:
    quiet = {"between": 0.001, "within": 0.002}
    comparison = compare_records(drawn(0, **quiet), drawn(1, hard=20.4, **quiet))
    assert comparison.regressions == ()
    hard = comparison.scenarios[1]
    assert hard.latency.p == 1
    assert hard.verdict is Verdict.SAME
    assert compare_records(drawn(0, **quiet), drawn(1, hard=20.4, **quiet), 0.01).regressions


def test_faster_is_no_regression() -> None:
    comparison = compare_records(drawn(0), drawn(1, easy=8.0))
    assert comparison.regressions == ()
    easy, hard = comparison.scenarios
    assert easy.verdict is Verdict.FASTER
    assert easy.latency.ratio.value == pytest.approx(0.8, rel=0.05)
    assert easy.throughput is not None
    assert easy.throughput.ratio.value == pytest.approx(1.25, rel=0.05)
    assert hard.verdict is not Verdict.SLOWER


def test_noise_that_hides_the_tolerance_is_called_unclear() -> None:
    noisy = {"between": 0.2, "within": 0.2}
    comparison = compare_records(drawn(2, **noisy), drawn(3, **noisy))
    assert {change.verdict for change in comparison.scenarios} == {Verdict.UNCLEAR}


times = st.floats(0.01, 1e4)
rounds_of_times = st.lists(st.lists(times, min_size=1, max_size=6), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(rounds_of_times, rounds_of_times, st.floats(0, 0.5))
def test_a_record_never_regresses_against_itself(easy, hard, tolerance) -> None:
    record = record_of({EASY: easy, HARD: hard})
    comparison = compare_records(record, record, tolerance)
    assert comparison.regressions == ()
    assert all(change.latency.ratio.value == 1 for change in comparison.scenarios)
    assert not comparison.machine_changed


def test_a_hard_tail_that_the_median_does_not_see_is_found_by_throughput() -> None:
    rng = np.random.default_rng(0)

    def mixed(hard_ms: float) -> list[list[float]]:
        easy, hard = drawn_rounds(rng, 10.0), drawn_rounds(rng, hard_ms)
        return [[*e, *h[:4]] for e, h in zip(easy, hard, strict=True)]

    routed = Scenario()
    comparison = compare_records(record_of({routed: mixed(20.0)}), record_of({routed: mixed(30.0)}))
    (change,) = comparison.scenarios
    assert change.latency.verdict is not Verdict.SLOWER
    assert change.throughput is not None
    assert change.throughput.verdict is Verdict.SLOWER
    assert comparison.regressions == (change,)
    assert any("images/s" in line for line in lines_of(comparison))
    (row,) = changes_table(comparison).rows  # of the median, whose ratio stands beside it
    assert row[-1].text == change.latency.verdict.value


def test_at_a_fixed_rate_throughput_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    old, new = (record_of({AT_RATE: drawn_rounds(rng, 10.0)}) for _ in range(2))
    assert compare_records(old, new).scenarios[0].throughput is None


def test_throughput_counts_all_images_of_all_callers() -> None:
    crowd = Scenario(batch=4, hard_fraction=0.0, concurrency=2)
    record = record_of({crowd: [[100.0, 100.0]] * 4})
    (change,) = compare_records(record, record).scenarios
    assert change.throughput is not None
    assert change.throughput.old == pytest.approx(80.0)


def test_a_slower_yardstick_puts_the_verdict_in_doubt() -> None:
    rng = np.random.default_rng(3)

    def timed_by(record: BenchRecord, pace_ms: float) -> BenchRecord:
        rounds_ms = tuple(pace_ms * (1 + 0.01 * rng.random(12)))
        return replace(record, yardstick=replace(record.yardstick, rounds_ms=rounds_ms))

    old, new = timed_by(drawn(0), 5.0), timed_by(drawn(1, easy=11.0, hard=22.0), 5.5)
    comparison = compare_records(old, new)
    assert comparison.machine_changed
    assert len(comparison.regressions) == 2  # on times as they were measured
    assert comparison.scenarios[0].adjusted == pytest.approx(1, abs=0.05)
    *_, yardstick, easy, hard, verdict = lines_of(comparison)
    assert "10 % slower; compare on the same machine in the same state" in yardstick
    for line, change in zip((easy, hard), comparison.scenarios, strict=True):
        assert line.startswith(change.scenario.name)
        assert line.endswith(f"over the yardstick's {change.adjusted:.3f}")
    assert "no verdict on the code" in verdict


def test_a_faster_machine_may_hide_slower_code() -> None:
    def timed_by(record: BenchRecord, pace_ms: float) -> BenchRecord:
        rounds_ms = tuple(pace_ms * (1 + 0.01 * np.random.default_rng(3).random(12)))
        return replace(record, yardstick=replace(record.yardstick, rounds_ms=rounds_ms))

    old, new = timed_by(drawn(0), 5.0), timed_by(drawn(1, easy=8.0, hard=16.0), 2.5)
    comparison = compare_records(old, new)
    assert comparison.scenarios[0].verdict is Verdict.FASTER
    assert comparison.scenarios[0].adjusted == pytest.approx(1.6, rel=0.05)
    assert outcome_of(comparison) is Outcome.UNCLEAR
    assert "no verdict on the code" in verdict_of(comparison)


def test_a_steady_yardstick_leaves_the_verdict_as_it_is() -> None:
    comparison = compare_records(drawn(0), drawn(1, hard=25.0))
    assert not comparison.machine_changed
    assert "no verdict" not in lines_of(comparison)[-1]
    assert "1 of 2 scenarios slower" in lines_of(comparison)[-1]
    assert "100 % hard" in lines_of(comparison)[-1]


def test_other_work_on_the_machine_puts_the_verdict_in_doubt() -> None:
    old, new = drawn(0), drawn(1, hard=25.0)
    assert compare_records(old, new).unsteady == ()
    busy = replace(new, log=replace(new.log, readings={"other_load_cores": Range(0.1, 1.5, 2.0)}))
    comparison = compare_records(old, busy)
    assert comparison.unsteady == ("other work took 1.5 cores during the new record",)
    assert len(comparison.regressions) == 1
    assert lines_of(comparison)[-1].endswith("measure both again while it does nothing else")
    paces = (5.0, 9.0) * 6
    uneven = replace(old, yardstick=replace(old.yardstick, rounds_ms=paces))
    (reason,) = compare_records(uneven, new).unsteady
    assert "old record's yardstick varied by 57 %" in reason


def test_another_yardstick_is_no_yardstick() -> None:
    old, new = drawn(0), drawn(1)
    new = replace(new, yardstick=replace(new.yardstick, what="another product"))
    for pair in ((old, new), (new, old)):
        comparison = compare_records(*pair)
        assert comparison.yardstick is None
        assert comparison.scenarios[0].adjusted is None
        assert {difference.what for difference in comparison.differences} == {"yardstick"}


@pytest.mark.parametrize(
    "fields", [{"cpu": "another processor"}, {"usable_cores": 16}], ids=["processor", "cores"]
)
def test_another_machine_is_refused(fields) -> None:
    with refuses(InputError, "different machines", str(next(iter(fields.values())))):
        compare_records(drawn(0), changed_machine(drawn(1), **fields))


def test_differences_beside_the_times_stand_at_the_top() -> None:
    old = drawn(0)
    new = changed_machine(drawn(1), versions={"numpy": "2.1", "onnxruntime": "1.31"})
    measured = replace(
        new.measured,
        backend_version="2.0",
        image_inputs={"images": "16x16"},
        stages=(replace(new.measured.stages[0], precision="int8"),),
    )
    comparison = compare_records(old, replace(new, measured=measured))
    found = {difference.what: str(difference) for difference in comparison.differences}
    assert set(found) == {
        "backend version", "precision", "image size", "numpy", "onnxruntime"
    }  # fmt: skip
    assert found["onnxruntime"] == "onnxruntime: absent -> 1.31"
    assert lines_of(comparison)[0].startswith("differs: ")


def test_how_the_machine_was_set_stands_among_the_differences() -> None:
    gpu = Gpu("V100", power_limit_w=300.0, application_sm_mhz=1380.0)
    set_up = {
        "nvidia_driver": "535.1",
        "cuda_driver": "12.2",
        "cpu_state": CpuState(governor="performance", min_mhz=3000.0, max_mhz=3000.0, boost=False),
        "host": Host(cpu_quota_cores=2.0),
        "gpus": (gpu,),
    }
    old = changed_machine(drawn(0), **set_up)
    new = changed_machine(
        drawn(1),
        nvidia_driver=None,
        cuda_driver="12.4",
        cpu_state=CpuState(governor="powersave", min_mhz=800.0, max_mhz=3000.0, boost=True),
        host=None,
        gpus=(replace(gpu, power_limit_w=250.0, application_sm_mhz=1200.0),),
    )
    crowd = Scenario(batch=16, hard_fraction=0.0)
    new = replace(new, scenarios=(*new.scenarios, result_of(crowd, [[10.0]] * 12)))
    assert list(map(str, compare_records(old, new).differences)) == [
        "largest batch: 1 -> 16",
        "NVIDIA driver: 535.1 -> unknown",
        "CUDA of the driver: 12.2 -> 12.4",
        "governor: performance -> powersave",
        "clock limits: 3000 to 3000 MHz -> 800 to 3000 MHz",
        "boost: off -> on",
        "processor quota: 2 cores -> none",
        "GPU power limit, W: 300 -> 250",
        "GPU application clock, MHz: 1380 -> 1200",
    ]
    assert compare_records(old, old).differences == ()


def test_scenarios_of_one_record_only_are_listed() -> None:
    rng = np.random.default_rng(0)
    rounds = drawn_rounds(rng, 10.0)
    old = record_of({EASY: rounds, HARD: rounds})
    new = record_of({AT_RATE: rounds, EASY: rounds})
    comparison = compare_records(old, new)
    assert [change.scenario for change in comparison.scenarios] == [EASY]
    assert (comparison.only_old, comparison.only_new) == ((HARD,), (AT_RATE,))
    assert f"only in the old record: {HARD.name}" in lines_of(comparison)


def test_records_without_a_common_scenario_are_refused() -> None:
    rng = np.random.default_rng(0)
    old, new = (record_of({scenario: drawn_rounds(rng, 10.0)}) for scenario in (EASY, HARD))
    with refuses(InputError, "share no scenario", EASY.name, HARD.name):
        compare_records(old, new)


def test_too_few_rounds_are_no_verdict_however_large_the_change() -> None:
    comparison = compare_records(one_round(10.0, 10.1), one_round(50.0, 50.1))
    assert comparison.too_few_rounds
    assert comparison.regressions == ()
    assert "too few rounds" in lines_of(comparison)[-1]
    assert "--rounds 5 or more" in lines_of(comparison)[-1]
    assert comparison.rounds_needed == 5
    assert not compare_records(drawn(0), drawn(1)).too_few_rounds


def test_the_rounds_that_are_needed_are_the_fewest_that_do() -> None:
    def of(rounds: int) -> BenchRecord:
        return record_of({EASY: [[10.0]] * rounds, HARD: [[20.0]] * rounds})

    needed = compare_records(of(2), of(2)).rounds_needed
    assert needed is not None
    assert not compare_records(of(needed), of(needed)).too_few_rounds
    assert compare_records(of(needed - 1), of(needed - 1)).too_few_rounds


CROWD = Scenario(batch=4, hard_fraction=0.0)


@pytest.mark.parametrize(
    ("scenarios", "confidence", "needed"),
    [
        ((AT_RATE,), 0.95, 4),  # one figure: 2 / 70, and with one round less 2 / 20
        ((EASY,), 0.95, 5),  # two figures: 2 * 2 / 70 is too much
        ((EASY, HARD, CROWD), 0.95, 5),  # six: 6 * 2 / 252
        ((AT_RATE,), 0.3, 2),  # 2 / 6
        ((AT_RATE,), 0.0, 2),  # any chance is small enough, but one round has no interval
    ],
)
def test_each_figure_asks_for_more_rounds(scenarios, confidence, needed) -> None:
    record = record_of({scenario: [[10.0]] * 3 for scenario in scenarios})
    found = compare_records(record, record, confidence=confidence)
    assert found.rounds_needed == needed
    assert found.too_few_rounds is (needed > 3)


def test_more_figures_than_any_number_of_rounds_can_tell_apart() -> None:
    record = record_of(
        {Scenario(batch=batch, hard_fraction=0.0): [[10.0]] * 2 for batch in range(1, 127)}
    )
    found = compare_records(record, record)
    assert (found.rounds_needed, found.too_few_rounds) == (None, True)


def test_another_model_is_refused_but_not_another_export_of_one() -> None:
    old, new = drawn(0), drawn(1)
    export = replace(new.measured, manifest_sha256="1" * 64)
    comparison = compare_records(old, replace(new, measured=export))
    old_hash = old.measured.manifest_sha256[:12]
    assert [str(found) for found in comparison.differences] == [
        f"manifest: {old_hash} -> {'1' * 12}"
    ]
    stage = replace(export.stages[0], name="body")
    for what, fields in (
        ("family", {"family": "other"}),
        ("stages", {"stages": (stage,)}),
        ("image size", {"image_inputs": {"images": "16x16"}}),
    ):
        other = replace(new, measured=replace(export, **fields))
        for pair in ((old, other), (other, old)):
            with refuses(InputError, "different models", what):
                compare_records(*pair)


def test_memory_and_baselines_are_told_and_not_judged() -> None:
    def with_ratio(record: BenchRecord, ratio: float, mib: float) -> BenchRecord:
        found = BaselineRatio("naive", "easy", RatioEstimate(ratio, ratio, ratio, 0.95, 12))
        return replace(record, baselines=Baselines(12, (), (found,), ()), peak_memory_mib=mib)

    comparison = compare_records(with_ratio(drawn(0), 0.5, 100), with_ratio(drawn(0), 0.9, 300))
    assert comparison.regressions == ()
    lines = lines_of(comparison)
    assert "peak memory: 100 -> 300 MiB (+200.0 %)" in lines
    assert "time over naive, easy: 0.500 -> 0.900" in lines


def test_of_baselines_those_are_told_that_both_records_have() -> None:
    def record(*names: str) -> BenchRecord:
        ratios = (BaselineRatio(n, "easy", RatioEstimate(0.5, 0.5, 0.5, 0.95, 12)) for n in names)
        return replace(drawn(0), baselines=Baselines(12, (), tuple(ratios), ()))

    for old, new in ((drawn(0), record("naive")), (record("naive"), drawn(0))):
        assert compare_records(old, new).baselines == ()
    told = compare_records(record("naive", "other"), record("third", "other")).baselines
    assert [(each.baseline, each.old, each.new) for each in told] == [("other", 0.5, 0.5)]


def test_the_whole_is_plain_data_and_a_record_read_back_compares_alike(tmp_path) -> None:
    records = [drawn(0), drawn(1, hard=25.0)]
    for name, record in zip(("old", "new"), records, strict=True):
        write_record(record, tmp_path / f"{name}.json")
    comparison = compare_records(*(read_record(tmp_path / f"{n}.json") for n in ("old", "new")))
    assert comparison == compare_records(*records)
    assert asdict(comparison)["scenarios"][1]["latency"]["verdict"] == "slower"
    told = as_data(comparison)
    assert told["verdict"] == lines_of(comparison)[-1]
    assert (told["slower"], told["machine_changed"]) == ([HARD.name], False)


@pytest.mark.parametrize(
    ("ratio", "p", "verdict"),
    [
        ((1.26, 1.1, 1.4), 0.25, Verdict.SLOWER),
        ((1.26, 1.1, 1.4), 0.26, Verdict.UNCLEAR),
        ((1.25, 1.1, 1.4), 0.25, Verdict.UNCLEAR),
        ((0.79, 0.7, 0.9), 0.25, Verdict.FASTER),
        ((0.79, 0.7, 0.9), 0.26, Verdict.UNCLEAR),
        ((0.8, 0.7, 0.9), 0.25, Verdict.UNCLEAR),
        ((1.0, 0.8, 1.25), 0.0, Verdict.SAME),
        ((1.0, 0.79, 1.25), 0.0, Verdict.UNCLEAR),
        ((1.0, 0.8, 1.26), 0.0, Verdict.UNCLEAR),
    ],
)
def test_a_verdict_at_its_limits(ratio, p, verdict) -> None:
    """A tolerance of 25 %, so from 0.8 to 1.25, and a confidence of 75 %."""
    assert _Judge(0.25, 0.75).verdict(Estimate(*ratio), p) is verdict


@pytest.mark.parametrize(
    ("old", "new", "tested", "reached"),
    [(3, 1, 1, True), (1, 3, 1, True), (3, 1, 2, False), (2, 1, 1, False), (4, 1, 1, True)],
)
def test_rounds_are_enough_where_their_smallest_p_is_all_that_is_allowed(
    old, new, tested, reached
) -> None:
    """Of one round in four to have the least time by chance: 2 / 4 either way."""
    assert _in_reach(old, new, tested, 0.5) is reached


def test_throughput_is_the_inverse_of_the_time_of_a_call() -> None:
    old, new = [10.0, 12.0, 11.0], [20.0, 25.0, 30.0]
    judge = _Judge(0.03, 0.95)
    time, rate = (judge.change(_Figure(old, new, mean_of, of), 1.0) for of in (None, 2000.0))
    assert (time.old, time.new) == (11.0, 25.0)
    assert (rate.old, rate.new) == pytest.approx((2000 / 11, 80.0))
    inverted = (1 / time.ratio.value, 1 / time.ratio.high, 1 / time.ratio.low)
    assert (rate.ratio.value, rate.ratio.low, rate.ratio.high) == pytest.approx(inverted)
    assert rate.ratio.low < rate.ratio.value < rate.ratio.high


@pytest.mark.parametrize(
    ("latency", "throughput", "verdict"),
    [
        ("same", None, "same"),
        ("same", "same", "same"),
        ("faster", "slower", "slower"),
        ("slower", None, "slower"),
        ("unclear", "faster", "faster"),
        ("faster", None, "faster"),
        ("same", "unclear", "unclear"),
    ],
)
def test_the_verdict_of_a_scenario_is_the_worst_that_is_certain(latency, throughput, verdict):
    judged = [
        word and Change(1.0, 1.0, Estimate(1.0, 1.0, 1.0), 1.0, Verdict(word))
        for word in (latency, throughput)
    ]
    assert ScenarioChange(EASY, *judged, None).verdict is Verdict(verdict)


def test_gpus_are_told_by_name_and_clocks_that_were_held_back_by_their_reason() -> None:
    old, new = drawn(0), drawn(1)
    for gpus, told in (((Gpu("V100"), Gpu(None)), "V100, unnamed"), ((Gpu("V100"),), "V100")):
        other = changed_machine(new, gpus=gpus)
        for pair, words in (((old, other), f"none and {told}"), ((other, old), f"{told} and none")):
            with refuses(InputError, "different machines", f"(GPUs: {words})"):
                compare_records(*pair)
    slowed = replace(new, log=replace(new.log, throttled=("heat", "power")))
    found = {d.what: str(d) for d in compare_records(old, slowed).differences}
    assert found["throttled"] == "throttled: no -> heat, power"
