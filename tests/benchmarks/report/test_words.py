from __future__ import annotations

from dataclasses import replace

from dyninfer.benchmarks.latency.record import Baselines, LatencyModel, ModelCheck, PicturesRecord
from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario, ScenarioResult
from dyninfer.benchmarks.report import conditions, words
from dyninfer.benchmarks.report.words import plain_result
from dyninfer.evaluation.interleaved import RatioEstimate
from tests.benchmarks.report.report_records import (
    baselines,
    full_record,
    minimal_record,
    scenario_result,
    single_call_record,
)

RECORD = full_record()


def with_ratios(easy: float, hard: float, spread: float = 0.02) -> Baselines:
    """Ratios whose intervals reach ``spread`` of them either way."""

    def ratio_of(old: RatioEstimate, side: str) -> RatioEstimate:
        middle = easy if side == "exit 0" else hard
        low, high = middle * (1 - spread), middle * (1 + spread)
        return replace(old, median=middle, low=low, high=high)

    changed = tuple(
        replace(entry, ratio=ratio_of(entry.ratio, entry.side)) for entry in baselines().ratios
    )
    return replace(baselines(), ratios=changed)


def sentence_with(found: Baselines | None) -> str:
    return words.result_sentence(replace(RECORD, baselines=found))


def test_the_result_names_easy_hard_and_half_and_the_gain_over_the_last_exit() -> None:
    easy, half, hard = (plain_result(RECORD, share) for share in (0, 0.5, 1))
    assert easy is not None
    assert half is not None
    assert hard is not None
    text = sentence_with(with_ratios(0.6, 1.0))
    for result in (easy, half, hard):
        assert f"{result.latency.mean_ms.value:.1f} ms" in text
    # half of the images at 0.6 and half at 1.0 of the last exit's time: 0.8
    assert "1.25 times as fast as always running the last exit's detector alone (1.23 to " in text


def test_a_loss_is_called_one() -> None:
    assert "1.20 times as long as always running" in sentence_with(with_ratios(1.0, 1.4))
    assert "about as long as always running" in sentence_with(with_ratios(0.9, 1.11))


def test_figures_whose_intervals_overlap_are_not_compared_without_saying_so() -> None:
    wide = sentence_with(with_ratios(1.0, 1.2, spread=0.3))
    assert (
        "indistinguishable from always running the last exit's detector alone: 0.77 to 1.43" in wide
    )
    assert "their intervals overlap" not in wide

    def stretched(result: ScenarioResult) -> ScenarioResult:
        mean = result.latency.mean_ms
        wider = Estimate(mean.value, mean.value / 2, mean.value * 2)
        return replace(result, latency=replace(result.latency, mean_ms=wider))

    unsure = replace(RECORD, scenarios=tuple(map(stretched, RECORD.scenarios)), baselines=None)
    text = words.result_sentence(unsure)
    assert "(their intervals overlap); at 50 % hard" in text
    assert "indistinguishable from sending every image through to the last exit" in text


def test_a_cascade_that_never_breaks_even_is_advised_against() -> None:
    model = LatencyModel((), (), 0.1, break_even=0.0)
    slow = words.break_even_words(replace(RECORD, model=model, baselines=with_ratios(1.08, 1.9)))
    assert slow == (
        "Do not cascade: even an easy image takes 1.08 times as long as the last exit's detector "
        "alone (1.06 to 1.10; measured, batch 1)."
    )
    unsure = with_ratios(1.01, 1.9)
    text = words.break_even_words(replace(RECORD, model=model, baselines=unsure))
    assert "(0.99 to 1.03, which may be chance; measured, batch 1)" in text
    tested = (ModelCheck(Scenario(), 10.0, 11.0, True),)
    never = LatencyModel((), tested, 0.1, break_even_by_batch={1: 0.0, 8: 0.0})
    text = words.break_even_words(replace(RECORD, model=never, baselines=None))
    assert text.startswith("Do not cascade. Estimated by the model")


def test_of_branches_the_dearest_is_what_choosing_is_compared_with() -> None:
    measured = replace(
        RECORD.measured,
        ways=("branch 0", "branch 1", "branch 2"),
        easiest="branch 2",
    )
    model = LatencyModel((), (), 0.1, break_even=0.4)
    record = replace(RECORD, model=model, measured=measured, baselines=None)
    assert words.break_even_words(record) == (
        "Choosing is faster than the dearest branch alone as long as fewer than 40 % of the images "
        "take it and all others the cheapest (measured, batch 1)."
    )
    slow = replace(record, model=replace(model, break_even=0.0))
    assert words.break_even_words(slow) == (
        "Do not choose: the dearest branch alone is faster at any share."
    )


def test_a_last_exit_that_is_no_better_is_a_warning() -> None:
    first, *middle, last = RECORD.pictures.curve
    worse = (replace(first, ap=0.234), *middle, replace(last, ap=0.212))
    record = replace(RECORD, pictures=replace(RECORD.pictures, curve=worse))
    told = "the last exit is no better here: a cascade costs accuracy (AP 21.2, exit 0 23.4, on"
    assert any(line.startswith(told) for line in words.warnings(record))
    assert not any("no better" in line for line in words.warnings(RECORD))


def test_without_that_baseline_the_comparison_is_with_all_images_hard() -> None:
    text = sentence_with(None)
    half, hard = plain_result(RECORD, 0.5), plain_result(RECORD, 1)
    assert half is not None
    assert hard is not None
    gain = hard.latency.mean_ms.value / half.latency.mean_ms.value
    assert f"{gain:.2f} times as fast as sending every image through" in text


def test_one_exit_or_a_single_scenario_make_a_plain_sentence() -> None:
    static = minimal_record()
    time = static.scenarios[0].latency.mean_ms.value
    assert words.result_sentence(static) == f"An image takes {time:.1f} ms (batch 1)."
    assert "(batch 1, 0 % hard)" in words.result_sentence(single_call_record())
    assert words.result_sentence(replace(RECORD, scenarios=())) == "No scenario was measured."


def test_without_the_middle_only_the_ends_are_told() -> None:
    ends = tuple(r for r in RECORD.scenarios if r.scenario in (Scenario(1, 0.0), Scenario(1, 1.0)))
    text = words.result_sentence(replace(RECORD, scenarios=ends))
    assert text.count(" ms") == 2
    assert "50 %" not in text


def test_warnings_tell_of_unstable_warm_ups_and_few_calls() -> None:
    quiet = replace(RECORD, scenarios=RECORD.scenarios[:4], baselines=None)
    assert words.warnings(quiet) == []
    found = words.warnings(single_call_record())
    assert any("warm-up" in line for line in found)
    assert any("few calls (1 or more" in line for line in found)


def test_warnings_name_three_scenarios_and_count_the_rest() -> None:
    few = tuple(scenario_result(Scenario(batch=b), calls=5) for b in range(1, 7))
    (line,) = words.warnings(replace(RECORD, scenarios=few, baselines=None))
    assert "batch 3, as routed; 3 other scenarios" in line


def test_pictures_are_counted_and_their_sizes_told() -> None:
    mixed = PicturesRecord("pictures", 9, {"1x1": 4, "2x2": 2, "3x3": 2, "4x4": 1})
    expected = "9 pictures; height x width 1x1 (4), 2x2 (2), 3x3 (2) and 1 other size"
    assert conditions.pictures_words(replace(RECORD, pictures=mixed)) == expected
    same = PicturesRecord("pictures", 9, {"1x2": 9})
    assert conditions.pictures_words(replace(RECORD, pictures=same)).endswith(
        "all 1x2 (height x width)"
    )
    assert PicturesRecord("own pictures", 1, {"1x2": 1}).in_words == "1 own picture"
    synthetic = minimal_record()
    told = "16 synthetic pictures, 720x1280 (height x width)"
    assert conditions.pictures_words(synthetic) == told


def test_mixed_precisions_are_told_stage_by_stage() -> None:
    assert conditions.precision_words(RECORD) == "fp32"
    stages = (replace(RECORD.measured.stages[0], precision="int8"), *RECORD.measured.stages[1:2])
    mixed = replace(RECORD, measured=replace(RECORD.measured, stages=stages))
    assert conditions.precision_words(mixed) == "first int8, router fp32"


def test_a_reason_ends_like_a_sentence() -> None:
    record = replace(RECORD, missing={"model": "too few scenarios", "energy": "None found!"})
    assert words.why_missing(record, ("model",), "x") == "too few scenarios."
    assert words.why_missing(record, ("other", "energy"), "x") == "None found!"
    assert words.why_missing(record, ("other",), "not asked for") == "not asked for."


def test_break_even_is_told_as_measured_or_by_the_model_or_not_at_all() -> None:

    def text(model: LatencyModel) -> str:
        return words.break_even_words(replace(RECORD, model=model, baselines=None))

    plain = LatencyModel((), (), 0.1)
    assert text(plain) == ""
    assert "fewer than 47 % of the images" in text(replace(plain, break_even=0.47))
    assert "fewer than 1 % of the images" in text(replace(plain, break_even=0.004))
    assert "fewer than 99 % of the images" in text(replace(plain, break_even=0.999))
    assert "faster than" in text(replace(plain, break_even=1.0))
    measured = replace(plain, break_even=0.47, break_even_interval=(0.0, 0.584))
    assert "(0 % to 58 % by the intervals of the ratios; measured, batch 1)" in text(measured)
    always = replace(plain, break_even=1.0, break_even_interval=(0.934, 1.0))
    assert text(always).endswith("hard images, or only up to 93 % hard, as the ratios vary.")
    assert text(replace(plain, break_even=0.0)).startswith("Do not cascade: the last exit's")
    tested = replace(plain, checks=(ModelCheck(Scenario(), 10.0, 11.0, True),))
    by_model = replace(tested, break_even_by_batch={1: 0.4, 8: 0.55})
    assert text(by_model).startswith("Estimated by the model")
    assert text(replace(by_model, checks=())) == ""
    assert text(replace(by_model, mean_error=0.3)) == ""
    assert "at batch 1 up to 40 % hard; at batch 8 up to 55 % hard." in text(by_model)
    off = replace(by_model, break_even_intervals_by_batch={1: (0.31, 0.52), 8: (0.55, 0.55)})
    assert "batch 1 up to 40 % hard (31 % to 52 % as far as the model is off); at batch" in text(
        off
    )
    assert text(off).endswith("up to 55 % hard.")
    ends = replace(tested, break_even_by_batch={1: 0.0, 8: 1.0})
    assert "at batch 1 never; at batch 8 at any share of hard images." in text(ends)
    both = text(replace(by_model, break_even=0.47))
    assert both.index("47 %") < both.index("40 % hard")


def test_energy_is_told_by_exit_or_why_not() -> None:
    assert "0.410 J at exit 0, 0.770 J at exit 1 (Intel RAPL" in words.energy_words(RECORD)
    absent = words.energy_words(minimal_record())
    assert absent == "Energy was not measured: this machine has no energy meter."
