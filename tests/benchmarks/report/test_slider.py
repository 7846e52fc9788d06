from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.record import LatencyModel, SampleImage, ThresholdPoint
from dyninfer.benchmarks.latency.step_costs import RunsFor, StepCost
from dyninfer.benchmarks.report.slider import (
    batches_text,
    by_easiness,
    exit_of,
    policy_text,
    settings_of,
    start_of,
    threshold_text,
)
from dyninfer.benchmarks.report.slider_charts import quality_of
from dyninfer.routing.policy import Threshold, route
from tests.benchmarks.report.report_records import full_record, three_exits_record

SHARES = st.floats(0, 1, width=32)


@given(st.lists(SHARES | st.none(), min_size=1, max_size=3), st.floats(0, 1.5))
def test_a_picture_leaves_where_the_runtime_lets_it_leave(easiness, threshold) -> None:
    values = [np.array([np.nan if e is None else e], np.float32) for e in easiness]
    goes_on = [bool(route(value, np.float32(threshold))[0]) for value in values]
    expected = goes_on.index(False) if False in goes_on else len(goes_on)
    assert exit_of(easiness, float(np.float32(threshold))) == expected


def test_an_easiness_equal_to_the_threshold_leaves_and_nan_goes_on_at_zero() -> None:
    assert exit_of([0.5], 0.5) == 0
    assert exit_of([0.5], np.nextafter(0.5, 1)) == 1
    assert exit_of([None], 0) == 1
    assert exit_of([None, 0.0], 0) == 1


@given(st.lists(SHARES, min_size=1, max_size=30), st.integers(0, 30))
def test_a_shown_threshold_decides_as_the_exact_one_does(easiness, chosen) -> None:
    exact = easiness[chosen % len(easiness)]
    shown = float(threshold_text(exact, easiness))
    assert [e < shown for e in easiness] == [e < exact for e in easiness]
    assert (shown > 1) == (exact > 1)


def test_a_shown_threshold_is_short_where_it_can_be() -> None:
    assert threshold_text(0.123456789, [0.1, 0.9]) == "0.1235"
    assert threshold_text(0.123456789, [0.12345678, 0.1234568]) == "0.1234568"
    assert threshold_text(float(np.nextafter(1, 2)), []) == "1.0000000000000002"


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (ThresholdPoint(0.0, 0.0, 1.0), "dyninfer.AlwaysEasy()"),
        (ThresholdPoint(1.5, 1.0, 1.0), "dyninfer.AlwaysHard()"),
        (ThresholdPoint(0.0, 0.1, 1.0), "dyninfer.Threshold(0)"),
        (ThresholdPoint(1.0, 0.99, 1.0), "dyninfer.Threshold(1)"),
        (ThresholdPoint(0.4213, 0.5, 1.0), "dyninfer.Threshold(0.4213)"),
    ],
)
def test_a_policy_to_copy_is_python_that_dyninfer_takes(point, expected) -> None:
    text = policy_text(point, [])
    assert text == f"detector.policy = {expected}"
    if "Threshold" in expected:
        assert Threshold(float(expected.split("(")[1][:-1])).value == point.threshold


def test_the_page_opens_near_half_of_the_images_hard() -> None:
    curve = [ThresholdPoint(0, share, 1.0) for share in (0, 0.3, 0.45, 0.6, 1)]
    assert start_of(curve) == 2
    assert start_of(curve[:1]) == 0


@pytest.mark.parametrize("record", [full_record(), three_exits_record()])
def test_every_setting_places_every_sample(record) -> None:
    samples = by_easiness(record.pictures.samples)
    quality = quality_of(record.pictures.curve)
    settings = settings_of(record, samples, quality)
    assert len(settings) == len(record.pictures.curve)
    for setting, point in zip(settings, record.pictures.curve, strict=True):
        expected = tuple(exit_of(sample.easiness, point.threshold) for sample in samples)
        assert setting.exits == expected
        last = record.measured.exits - 1
        assert setting.texts[f"count-{last}"] == f"{expected.count(last)} of {len(samples)}"
    assert set(settings[-1].exits) == {record.measured.exits - 1}


def test_larger_batches_are_told_by_the_model_of_two_exits() -> None:
    steps = (StepCost("first", 12.0, 10.0), StepCost("second", 24.0, 20.0, RunsFor.HARD))
    fitted = LatencyModel(steps, full_record().model.checks, 0.1)
    record = replace(full_record(), model=fitted)
    # 2 + 4 * 10 ms for four easy images; 4 + 4 * 20 ms more where all are hard
    assert batches_text(record, 0.0).endswith("an image takes 10.5 ms in batches of 4.")
    assert batches_text(record, 1.0).endswith("an image takes 31.5 ms in batches of 4.")
    # each hard by itself: the second body starts unless all four are easy
    middle = 10.5 + 0.5 * 20 + (1 - 0.5**4) * 4 / 4
    assert f"takes {middle:.1f} ms in batches of 4." in batches_text(record, 0.5)
    assert batches_text(replace(record, model=None), 0.5) == ""
    assert batches_text(three_exits_record(), 0.5) == ""
    alone = tuple(check for check in fitted.checks if check.scenario.batch == 1)
    assert batches_text(replace(record, model=replace(fitted, checks=alone)), 0.5) == ""


def test_samples_run_from_the_hardest_to_the_easiest() -> None:
    samples = [SampleImage(str(e), (e,), "") for e in (0.5, None, 0.1, 0.9)]
    assert [sample.easiness[0] for sample in by_easiness(samples)] == [None, 0.1, 0.5, 0.9]


def test_ap_stands_before_agreement_and_a_gap_in_ap_is_not_drawn() -> None:
    both = [ThresholdPoint(0, share, 1.0, ap=0.5, agreement=0.9) for share in (0, 1)]
    gap = [both[0], ThresholdPoint(0, 1, 1.0, agreement=0.9)]
    neither = [ThresholdPoint(0, 1, 1.0)]
    names = [quality.name if (quality := quality_of(c)) else None for c in (both, gap, neither, [])]
    assert names == ["AP", "Agreement", None, None]
