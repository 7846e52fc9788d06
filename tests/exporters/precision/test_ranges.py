from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from dyninfer.errors import ExportError, InputError
from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.graph import float_tensors
from dyninfer.exporters.precision.prepare import opened
from dyninfer.exporters.precision.ranges import grouped, observe
from dyninfer.exporters.probe import Probe
from tests.exporters.precision.helpers import feed_of, images, two_layers
from tests.support import tiny_model


def prepared():
    """A model, and the names of its tensors."""
    stage = opened(two_layers())
    return closed(stage), float_tensors(stage.graph)


@pytest.mark.parametrize("memory_mib", [1, 512])
def test_extremes_and_histograms_are_those_of_the_values(memory_mib) -> None:
    (model, names), inputs = prepared(), images()
    assert names == {"images", "c1", "c1_gate", "feature", "c2", "c2_gate", "deep"}
    seen = observe(model, names, feed_of(inputs), histograms=True, memory_mib=memory_mib)
    for name in names:
        values = np.concatenate([Probe(model, [name]).read(i)[name] for i in inputs])
        assert seen[name].lowest == pytest.approx(values.min(), rel=1e-5, abs=1e-6)
        assert seen[name].highest == pytest.approx(values.max(), rel=1e-5, abs=1e-6)
        counts = seen[name].magnitudes
        assert counts.sum() == values.size
        half = (np.abs(values) < seen[name].largest / 2).sum()
        assert abs(counts[: len(counts) // 2].sum() - half) <= 2  # a value on the edge may fall


def test_one_tensor_at_a_time_gives_the_same() -> None:
    (model, names), inputs = prepared(), feed_of(images())
    together = observe(model, names, inputs, histograms=True, memory_mib=64)
    runs = []
    alone = observe(
        model, names, inputs, histograms=True, memory_mib=0, tick=lambda: runs.append(1)
    )
    assert len(runs) == 4 * (1 + len(names))
    for name in names:
        np.testing.assert_array_equal(alone[name].magnitudes, together[name].magnitudes)


@given(
    sizes=st.dictionaries(st.text(), st.integers(0, 100)),
    budget=st.integers(1, 150),
)
def test_groups_hold_everything_once_and_fit(sizes, budget) -> None:
    groups = grouped(sizes, budget)
    assert [name for group in groups for name in group] == list(sizes)
    for group in groups:
        assert len(group) == 1 or sum(sizes[name] for name in group) <= budget


def test_no_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        observe(two_layers(), ["c1"], feed_of([]), histograms=False, memory_mib=1)


def test_a_tensor_of_nan_is_named() -> None:
    model = tiny_model(
        {"images": ["batch", 1]},
        {"root": ["batch", 1]},
        [helper.make_node("Sqrt", ["images"], ["root"])],
    )
    inputs = [{"images": np.array([[-1.0]], np.float32)}]
    with pytest.raises(ExportError, match="'root'"):
        observe(model, ["root"], feed_of(inputs), histograms=False, memory_mib=1)


def test_infinity_is_seen_and_has_no_histogram() -> None:
    model = tiny_model(
        {"images": ["batch", 1]},
        {"log": ["batch", 1]},
        [helper.make_node("Log", ["images"], ["log"])],
    )
    inputs = [{"images": np.array([[0.0], [1.0]], np.float32)}]
    seen = observe(model, ["log", "images"], feed_of(inputs), histograms=True, memory_mib=1)
    assert not seen["log"].is_finite
    assert seen["log"].magnitudes is None
    assert seen["images"].magnitudes is not None
