from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.scenario_record import Estimate, Scenario
from dyninfer.benchmarks.report.figures import (
    ABSENT,
    interval,
    memory,
    ms,
    number,
    percent,
)
from dyninfer.evaluation.interleaved import RatioEstimate


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (12.345, "12.3"),
        (0.012345, "0.0123"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (-3.14159, "-3.14"),
        (None, ABSENT),
        (float("nan"), ABSENT),
    ],
)
def test_numbers_have_three_digits_without_an_exponent(value, expected) -> None:
    assert number(value) == expected


def test_a_figure_of_one_round_has_no_interval_to_show() -> None:
    assert interval(Estimate(12.3, 12.1, 12.6)) == "12.1 to 12.6"
    assert interval(Estimate(12.3, 12.3, 12.3)) == ""
    assert interval(None) == ABSENT


@given(st.floats(1e-6, 1e9))
def test_a_number_reads_back_within_half_of_its_third_digit(value) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=0.00501)


@pytest.mark.parametrize(
    ("share", "decimals", "expected"),
    [
        (0, 1, "0 %"),
        (1, 1, "100 %"),
        (0.5, 0, "50 %"),
        (0.00001, 0, "<1 %"),
        (0.9999, 0, ">99 %"),
        (0.0001, 1, "<0.1 %"),
        (0.99999, 1, ">99.9 %"),
        (None, 0, ABSENT),
    ],
)
def test_hardly_any_is_not_none_and_nearly_all_is_not_all(share, decimals, expected) -> None:
    assert percent(share, decimals) == expected


def test_an_interval_has_the_decimals_of_its_middle() -> None:
    assert interval(Estimate(12.345, 11.98765, 13)) == "12.0 to 13.0"
    assert interval(RatioEstimate(0.5, 0.45678, 0.55, 0.95, 20)) == "0.457 to 0.550"
    assert interval(None) == ABSENT


def test_units_are_named() -> None:
    assert ms(3.14159) == "3.14 ms"
    assert ms(None) == ABSENT
    assert memory(412) == "412 MiB"
    assert memory(2048) == "2.00 GiB"


def test_scenarios_in_words_differ_where_the_scenarios_do() -> None:
    scenarios = [
        Scenario(),
        Scenario(batch=4),
        Scenario(hard_fraction=0.25),
        Scenario(concurrency=4),
        Scenario(rate_per_s=27.5),
        Scenario(decode=True),
    ]
    words = [scenario.name for scenario in scenarios]
    assert len(set(words)) == len(words)
    everything = Scenario(8, 0.5, 2, 30, decode=True)
    assert everything.name == "batch 8, 50 % hard, 2 callers, 30 calls/s, with decoding"
