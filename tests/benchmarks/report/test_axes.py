from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dyninfer.benchmarks.report.axes import Scale, Ticks, linear_ticks, log_ticks, padded
from dyninfer.errors import InputError
from tests.support import refuses

NUMBERS = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-4, 1e6)


@st.composite
def ranges(draw: st.DrawFn, values: st.SearchStrategy[float] = NUMBERS) -> tuple[float, float]:
    low, high = sorted((draw(values), draw(values)))
    # narrower than this, neighbouring ticks are the same number
    if high - low < 1e-7 * max(abs(low), abs(high), 1e-3):
        high = low + max(1.0, abs(low))
    return low, high


def mantissa(step: float) -> float:
    return round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6)


@given(ranges(), st.integers(5, 12))
@example((858994.0, 858995.0), 6)
def test_ticks_lie_within_the_range_evenly_at_round_numbers(bounds, most) -> None:
    low, high = bounds
    ticks = linear_ticks(low, high, most)
    slack = 1e-6 * (high - low)
    assert 2 <= len(ticks.values) <= most
    assert low - slack <= ticks.values[0] <= ticks.values[-1] <= high + slack
    steps = [b - a for a, b in zip(ticks.values, ticks.values[1:], strict=False)]
    assert max(steps) - min(steps) <= 1e-6 * max(steps)
    assert mantissa(steps[0]) in (1, 2, 5, 10)
    step = float(f"{steps[0]:.6g}")  # a difference of large numbers is not exact
    assert abs(ticks.values[0] / step - round(ticks.values[0] / step)) < 1e-3


@given(ranges())
def test_labels_tell_ticks_apart_and_read_back_as_the_ticks(bounds) -> None:
    ticks = linear_ticks(*bounds)
    labels = ticks.labels()
    assert len(set(labels)) == len(labels)
    step = ticks.values[1] - ticks.values[0]
    for label, value in zip(labels, ticks.values, strict=True):
        assert abs(float(label.replace(",", "")) - value) <= 1e-3 * step


@given(ranges(POSITIVE), st.integers(5, 12))
def test_ticks_of_a_logarithmic_axis_rise_within_its_range(bounds, most) -> None:
    low, high = bounds
    ticks = log_ticks(low, high, most)
    assert 2 <= len(ticks.values) <= most
    assert list(ticks.values) == sorted(set(ticks.values))
    assert low * (1 - 1e-6) <= ticks.values[0]
    assert ticks.values[-1] <= high * (1 + 1e-6)
    assert len(set(ticks.labels())) == len(ticks.values)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0, 1), ("0.0", "0.2", "0.4", "0.6", "0.8", "1.0")),
        ((-3, 7), ("-2", "0", "2", "4", "6")),
        ((0, 25_000), ("0", "5,000", "10,000", "15,000", "20,000", "25,000")),
        ((0.1, 0.3), ("0.10", "0.15", "0.20", "0.25", "0.30")),
    ],
)
def test_ticks_are_the_numbers_that_one_would_choose(bounds, expected) -> None:
    assert linear_ticks(*bounds).labels() == expected


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.3, 3), ("0.5", "1.0", "2.0")),
        ((1, 100), ("1", "10", "100")),
        ((10, 500), ("10", "20", "50", "100", "200", "500")),
        ((0.1, 1e6), ("0.1", "10.0", "1,000.0", "100,000.0")),
        ((21, 29), ("22", "24", "26", "28")),
    ],
)
def test_logarithmic_ticks_are_the_numbers_that_one_would_choose(bounds, expected) -> None:
    assert log_ticks(*bounds).labels() == expected


def test_ticks_that_are_no_sum_of_rounded_steps_are_exact() -> None:
    assert linear_ticks(0, 1).values == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert linear_ticks(0, 0.35).values == (0, 0.1, 0.2, 0.3)


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (0, math.inf), (math.nan, 1)])
def test_an_empty_or_infinite_range_is_refused(bounds) -> None:
    with refuses(InputError, "axis runs from"):
        linear_ticks(*bounds)
    with refuses(InputError, "axis runs from"):
        log_ticks(*bounds)


def test_what_an_axis_cannot_do_is_refused() -> None:
    with refuses(InputError, "logarithmic axis starts at 0"):
        log_ticks(0, 1)


@given(ranges(POSITIVE), POSITIVE, POSITIVE, st.booleans())
def test_a_scale_keeps_the_order_and_stays_on_its_axis(bounds, one, other, log) -> None:
    scale = Scale(*bounds, 50, 350, log)
    assert scale(bounds[0]) == 50
    assert scale(bounds[1]) == pytest.approx(350)
    one, other = sorted((one, other))
    assert 50 <= scale(one) <= scale(other) + 1e-9 <= 350 + 1e-6


def test_equal_factors_have_equal_room_on_a_logarithmic_scale() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert scale(10) == pytest.approx(100)
    assert scale(20) - scale(2) == pytest.approx(100)


def test_a_vertical_axis_may_run_upwards() -> None:
    scale = Scale(0, 10, 200, 0)
    assert (scale(0), scale(5), scale(10)) == (200, 100, 0)


@given(st.lists(POSITIVE, min_size=1, max_size=5), st.booleans())
def test_padding_leaves_room_on_both_sides_even_of_equal_values(values, log) -> None:
    low, high = padded(values, log=log)
    assert low < min(values) <= max(values) < high
    assert not log or low > 0
    assert Scale(low, high, 0, 1, log).ticks().values


def test_padding_around_nothing_but_zero_has_a_width() -> None:
    assert padded([0.0]) == (-1, 1)


def test_labels_have_no_more_decimals_than_they_need() -> None:
    assert Ticks((1000.0, 2000.0), 0).labels() == ("1,000", "2,000")
