from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dyninfer.errors import InputError
from dyninfer.exporters.precision.clipping import (
    BINS,
    LEVELS,
    Observed,
    clipping_range,
    entropy_limit,
    percentile_limit,
)
from dyninfer.exporters.precision.ranges import count_magnitudes
from dyninfer.exporters.precision.settings import CalibrationMethod

VALUES = hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e4, 1e4, width=32))


def observed(values: np.ndarray) -> Observed:
    low, high = float(values.min()), float(values.max())
    return Observed(low, high, count_magnitudes(values, max(abs(low), abs(high))))


@given(values=VALUES, method=st.sampled_from(CalibrationMethod), percentile=st.floats(50.1, 100))
def test_a_range_lies_within_what_was_seen(values, method, percentile) -> None:
    seen = observed(values)
    low, high = clipping_range(seen, method, percentile)
    assert seen.lowest <= low <= seen.highest
    assert seen.lowest <= high <= seen.highest
    assert low <= high or seen.lowest > 0 or seen.highest < 0


@given(values=VALUES)
def test_all_values_fit_where_nothing_may_be_cut(values) -> None:
    seen = observed(values)
    whole = (seen.lowest, seen.highest)
    assert clipping_range(seen, CalibrationMethod.MINMAX, 99.9) == whole
    assert clipping_range(seen, CalibrationMethod.PERCENTILE, 100) == pytest.approx(whole)


@given(values=VALUES, percentile=st.floats(50.1, 100))
def test_a_percentile_holds_at_least_its_share(values, percentile) -> None:
    seen = observed(values)
    assert seen.magnitudes is not None
    parts = percentile_limit(seen.magnitudes.astype(float), percentile)
    held = seen.magnitudes[:parts].sum() / values.size
    assert held >= percentile / 100 - 1e-9
    if parts > 1:
        assert seen.magnitudes[: parts - 1].sum() / values.size < percentile / 100 + 1e-9


def test_a_tail_is_cut_and_the_other_end_is_kept() -> None:
    values = np.concatenate([np.linspace(-0.2, 2, 10_000), [80.0]]).astype(np.float32)
    for method in (CalibrationMethod.ENTROPY, CalibrationMethod.PERCENTILE):
        low, high = clipping_range(observed(values), method, 99.9)
        assert low == pytest.approx(-0.2)
        assert 1.5 < high < 12


def test_entropy_keeps_what_is_evenly_spread() -> None:
    assert entropy_limit(np.full(BINS, 5.0)) > BINS * 0.95


def test_entropy_of_nothing_but_zeros_keeps_everything() -> None:
    counts = np.zeros(BINS)
    counts[0] = 100
    assert entropy_limit(counts) == BINS


@given(counts=hnp.arrays(np.int64, BINS, elements=st.integers(0, 50)))
def test_entropy_never_takes_less_than_8_bits_can_tell_apart(counts) -> None:
    assert LEVELS <= entropy_limit(counts.astype(float)) <= BINS


def test_a_constant_zero_has_an_empty_range() -> None:
    assert clipping_range(observed(np.zeros(4, np.float32)), CalibrationMethod.ENTROPY, 99) == (
        0,
        0,
    )


def test_extremes_alone_do_not_make_a_histogram() -> None:
    with pytest.raises(InputError, match="histogram"):
        clipping_range(Observed(-1, 1), CalibrationMethod.PERCENTILE, 99)
