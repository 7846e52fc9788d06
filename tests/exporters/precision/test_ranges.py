from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper

from dyninfer.errors import ExportError, InputError
from dyninfer.exporters.graphs import Probe, closed
from dyninfer.exporters.precision import ranges
from dyninfer.exporters.precision.graph import float_tensors, opened
from dyninfer.exporters.precision.ranges import (
    Observed,
    _divergence,
    clipping_range,
    count_magnitudes,
    entropy_limit,
    observe,
    percentile_limit,
)
from dyninfer.exporters.precision.settings import CalibrationMethod
from tests.exporters.precision.helpers import feed_of, images, two_layers
from tests.support import tiny_model

BINS = 2048
LEVELS = 128
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


def prepared():
    """A model, and the names of its tensors."""
    stage = opened(two_layers())
    return closed(stage), float_tensors(stage.graph)


def test_extremes_and_histograms_are_those_of_the_values() -> None:
    (model, names), inputs = prepared(), images()
    assert names == {"images", "c1", "c1_gate", "feature", "c2", "c2_gate", "deep"}
    runs = []
    seen = observe(model, names, feed_of(inputs), histograms=True, tick=lambda: runs.append(1))
    assert len(runs) == 4  # one for each picture, whatever is looked at
    for name in names:
        values = np.concatenate([Probe(model, [name]).read(i)[name] for i in inputs])
        assert seen[name].lowest == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert seen[name].highest == pytest.approx(values.max(), rel=1e-5, abs=1e-6)
        counts = seen[name].magnitudes
        assert counts.sum() == values.size
        half = (np.abs(values) < seen[name].largest / 2).sum()
        assert abs(counts[: len(counts) // 2].sum() - half) <= 2  # a value on the edge may fall


@pytest.mark.parametrize(("each", "counted"), [(512, 512), (511, 171), (171, 171), (170, 103)])
def test_of_large_tensors_evenly_spaced_values_are_counted(monkeypatch, each, counted) -> None:
    """An odd number of places apart; the extremes are of all values."""
    monkeypatch.setattr(ranges, "VALUES", each)
    (model, _), inputs = prepared(), images()
    seen = observe(model, ["c1"], feed_of(inputs), histograms=True)["c1"]
    values = [Probe(model, ["c1"]).read(i)["c1"].ravel() for i in inputs]  # 512 each
    assert (seen.lowest, seen.highest) == (np.min(values), np.max(values))
    step = -(-512 // counted)
    assert step % 2 == 1
    expected = count_magnitudes(np.concatenate([v[::step] for v in values]), seen.largest)
    assert seen.magnitudes is not None
    assert seen.magnitudes.sum() == expected.sum() == 4 * counted
    assert_alike(seen.magnitudes, expected)


@pytest.mark.parametrize(("width", "counted"), [(512, 512 * 512), (513, 171 * 512)])
def test_a_quarter_of_a_million_values_are_counted(width: int, counted: int) -> None:
    shape = ["batch", 512, width]
    model = tiny_model(
        {"images": shape}, {"out": shape}, [helper.make_node("Neg", ["images"], ["out"])]
    )
    inputs = [{"images": np.ones((1, 512, width), np.float32)}]
    seen = observe(model, ["out"], feed_of(inputs), histograms=True)["out"]
    assert seen.magnitudes is not None
    assert seen.magnitudes.sum() == counted


def assert_alike(counts: np.ndarray, expected: np.ndarray) -> None:
    """But for values at the ends of a part, which may be counted in the next one."""
    moved = np.abs(counts.cumsum() - expected.cumsum())
    at_ends = np.maximum(expected, np.r_[expected[1:], 0])
    assert (moved <= at_ends).all()


@given(pictures=st.lists(VALUES, min_size=1, max_size=5), power=st.integers(-20, 20))
def test_what_comes_in_turns_is_counted_as_if_it_came_at_once(pictures, power) -> None:
    """Whatever comes first: the largest, a zero, or what is a millionth of what follows."""
    scaled = [values * np.float32(2.0) ** (power * place) for place, values in enumerate(pictures)]
    together = np.concatenate(scaled).astype(np.float32)
    largest, magnitudes = float(np.abs(together).max()), ranges._Magnitudes()
    for values in scaled:
        magnitudes.add(values.astype(np.float32))
    assert_alike(magnitudes.within(largest), count_magnitudes(together, largest))


def test_no_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        observe(two_layers(), ["c1"], feed_of([]), histograms=False)


def test_a_tensor_of_nan_is_named() -> None:
    model = tiny_model(
        {"images": ["batch", 1]},
        {"root": ["batch", 1]},
        [helper.make_node("Sqrt", ["images"], ["root"])],
    )
    inputs = [{"images": np.array([[-1.0]], np.float32)}]
    with pytest.raises(ExportError, match="'root'"):
        observe(model, ["root"], feed_of(inputs), histograms=False)


def test_infinity_is_seen_and_has_no_histogram() -> None:
    model = tiny_model(
        {"images": ["batch", 1]},
        {"log": ["batch", 1]},
        [helper.make_node("Log", ["images"], ["log"])],
    )
    inputs = [{"images": np.array([[0.0], [1.0]], np.float32)}]
    seen = observe(model, ["log", "images"], feed_of(inputs), histograms=True)
    assert not seen["log"].is_finite
    assert seen["log"].magnitudes is None
    assert seen["images"].magnitudes is not None


def loss_of_information(counts: np.ndarray, size: int) -> float:
    """Between a histogram cut at ``size`` parts and itself in 128 levels, part by part."""
    kept = [float(count) for count in counts[:size]]
    clipped = [*kept[:-1], kept[-1] + float(counts[size:].sum())]
    merged = [0.0] * size
    for level in range(128):
        members = [part for part in range(size) if part * 128 // size == level and kept[part] > 0]
        for part in members:
            merged[part] = sum(kept[m] for m in members) / len(members)
    p, q = (np.array(side) / sum(side) for side in (clipped, merged))
    held = p > 0
    return float((p[held] * np.log(p[held] / np.maximum(q[held], 1e-9))).sum())


@pytest.mark.parametrize("shape", ["tail", "even", "far"])
def test_entropy_takes_the_limit_that_loses_least(shape: str) -> None:
    rng = np.random.default_rng(0)
    counts = {
        "tail": np.histogram(np.abs(rng.standard_t(3, 20_000)), 320)[0],
        "even": rng.integers(0, 9, 320),
        "far": np.r_[rng.integers(50, 60, 200), rng.integers(0, 2, 120)],
    }[shape].astype(float)
    tried = counts.copy()
    tried[0] = tried[1]
    first = max(128, int(np.searchsorted(tried.cumsum() / tried.sum(), 0.99)) + 1)
    sizes = [*range(first, 320, 8), 320]
    losses = [loss_of_information(tried, size) for size in sizes]
    np.testing.assert_allclose([_divergence(tried, size) for size in sizes], losses, rtol=1e-9)
    assert entropy_limit(counts) == sizes[int(np.argmin(losses))]
    assert np.argmin(losses) > 0


def test_magnitudes_are_counted_in_equal_parts() -> None:
    values = np.array([0.0, 0.5, -0.5, 1 / BINS, 1 - 1e-4, -1.0], np.float32)
    counts = count_magnitudes(values, 1.0)
    assert (counts.sum(), len(counts)) == (6, BINS)
    assert {int(part): int(counts[part]) for part in np.flatnonzero(counts)} == {
        0: 1,
        1: 1,
        BINS // 2: 2,
        BINS - 1: 2,
    }
    assert count_magnitudes(np.zeros((2, 3)), 0.0)[0] == 6


@pytest.mark.parametrize(("percent", "parts"), [(50, 2), (50.1, 3), (75, 3), (100, 4), (20, 1)])
def test_a_percentile_is_reached_by_the_fewest_parts(percent: float, parts: int) -> None:
    assert percentile_limit(np.array([1.0, 1, 1, 1]), percent) == parts
    assert percentile_limit(np.array([1.0, 1, 1, 1, 0, 0]), percent) == parts


def test_a_limit_is_its_share_of_the_largest_magnitude() -> None:
    counts = np.array([5, 3, 1, 1])
    seen = Observed(-8.0, 4.0, counts)
    assert clipping_range(seen, CalibrationMethod.PERCENTILE, 80) == (-4, 4)
    assert clipping_range(seen, CalibrationMethod.PERCENTILE, 90) == (-6, 4)
    assert clipping_range(seen, CalibrationMethod.PERCENTILE, 50) == (-2, 2)
    assert (seen.largest, seen.is_finite) == (8, True)
    assert not Observed(0, np.inf).is_finite


def test_a_magnitude_is_counted_in_the_part_that_it_begins() -> None:
    magnitudes = ranges._Magnitudes()
    magnitudes.add(np.array([0.0, 0.5, -1.0], np.float32))
    assert np.flatnonzero(magnitudes.within(1.0)).tolist() == [0, BINS // 2, BINS - 1]
