from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.exporters.graphs import node_macs
from dyninfer.exporters.precision import sensitivity
from dyninfer.exporters.precision.graph import layer_groups, layers_of
from dyninfer.exporters.precision.int8 import observe_stage, prepare_int8
from dyninfer.exporters.precision.sensitivity import (
    Trial,
    affordable,
    deviations,
    fewer_and_fewer,
    paired_iou,
    quantise_within,
)
from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings
from tests.exporters.precision.helpers import conv, feed_of, images, silu, weights
from tests.support import tiny_model


def detections(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 500, (2, 300, 2)), rng.uniform(5, 100, (2, 300, 2))
    return {
        "boxes_xyxy": np.concatenate([corner, corner + size], -1).astype(np.float32),
        "class_scores": rng.random((2, 300, 4), np.float32),
    }


def test_equal_outputs_do_not_deviate() -> None:
    outputs = detections() | {"easiness": np.array([0.5], np.float32)}
    found = deviations(outputs, outputs)
    assert found.pop("boxes_xyxy") == pytest.approx(0, abs=1e-9)
    assert set(found.values()) == {0.0}


def test_only_boxes_that_may_become_detections_count() -> None:
    reference = detections()
    found = {name: array.copy() for name, array in reference.items()}
    worst = reference["class_scores"].max(-1).argsort(1)[:, :150]
    for row in range(2):
        found["boxes_xyxy"][row, worst[row]] += 300
        found["class_scores"][row, worst[row]] = 0
    assert max(deviations(reference, found).values()) == pytest.approx(0, abs=1e-9)


@given(factor=st.floats(0.01, 2))
def test_features_deviate_by_their_relative_error(factor) -> None:
    array = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    found = deviations({"feature": array}, {"feature": array * np.float32(1 + factor)})
    assert found["feature"] == pytest.approx(factor, rel=1e-4)


@pytest.mark.parametrize("name", ["feature", "boxes_xyxy", "class_scores", "easiness"])
def test_what_is_not_finite_deviates_without_end(name) -> None:
    reference = detections() | {name: detections().get(name, np.ones((2, 1), np.float32))}
    broken = reference | {name: reference[name] * np.float32(np.nan)}
    assert deviations(reference, broken)[name] == np.inf


def test_overlap_of_pairs() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]], float)
    others = np.array([[1, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(paired_iou(boxes, others)[:2], [1 / 3, 0])
    assert paired_iou(boxes, others)[2] == 0  # without an area
    small = np.array([[0, 0, 0.5, 0.25], [3, 3, 3.5, 3.5]])
    np.testing.assert_allclose(paired_iou(small, small), 1)
    tall = np.array([[1, 0, 3, 4], [0, 0, 4, 2.0]])
    np.testing.assert_allclose(paired_iou(tall, tall + np.array([0, 2, 0, 2])), [1 / 3, 0])


def with_a_loud_channel():
    """Three layers; the second makes one channel 3,000 times as large, which the third mutes."""
    loud, quiet = weights(8, 8, 3, 3, seed=1), weights(8, 8, 3, 3, seed=2)
    loud[0] *= 3000
    quiet[:, 0] /= 3000
    return tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"feature": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            *silu("c1", "s1"),
            conv("s1", "w2", "c2"),
            conv("c2", "w3", "c3"),
            *silu("c3", "feature"),
        ],
        {"w1": weights(8, 3, 3, 3), "w2": loud, "w3": quiet},
    )


def choose(share: float, bound: float = 0.05):
    settings = Int8Settings(
        method=CalibrationMethod.MINMAX, max_deviation=bound, max_float_share=share
    )
    prepared = prepare_int8(with_a_loud_channel())
    observed = observe_stage(prepared, feed_of(images()), settings)
    tried = []
    choice = quantise_within(
        prepared, observed, images(2), settings, lambda *step: tried.append(step)
    )
    return choice, [node.name for node in layers_of(prepared.graph)], tried


def test_the_layer_that_8_bits_cannot_hold_is_kept() -> None:
    everything, layers, tried = choose(share=0)
    assert everything.kept == ()
    assert everything.deviation > 0.2
    assert tried == []
    chosen, _, tried = choose(share=0.9)
    assert tried == [(1, 3), (2, 3), (3, 3)]
    assert layers[1] in chosen.kept or layers[2] in chosen.kept
    assert layers[0] not in chosen.kept
    assert chosen.deviation <= 0.05


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([1.0, 0.95], 0),  # less, and not worth a layer in float32
        ([1.0, 0.94, 0.1], 0),  # the largest number that helps decides
        ([1.0, 0.9375], 2),
        ([1.0, 1.2, 0.8], 1),
        ([1.0, 1.2, 0.95], 0),
        ([0.051, 0.05, 0.06], 2),  # within the bound counts, however little is gained
        ([1.0, 1.0, 1.0], 0),
    ],
)
def test_layers_stay_in_float32_where_that_is_worth_it(monkeypatch, found, kept) -> None:
    deviation = iter(found)
    monkeypatch.setattr(Trial, "deviation", lambda *_: next(deviation))
    chosen, _, _ = choose(share=0.9)
    assert len(chosen.kept) == kept
    assert chosen.deviation == found[{0: 0, 2: 1, 1: 2}[kept]]


def test_nothing_is_searched_where_the_bound_holds() -> None:
    choice, _, tried = choose(share=0.9, bound=10)
    assert choice.kept == ()
    assert tried == []


def test_a_layer_goes_with_its_activation() -> None:
    prepared = prepare_int8(with_a_loud_channel())
    sizes = [len(group) for group in layer_groups(prepared.graph).values()]
    assert sizes == [3, 1, 3]
    assert len(frozenset().union(*layer_groups(prepared.graph).values())) == sum(sizes)


@given(
    macs=st.lists(st.integers(1, 1000), max_size=40),
    share=st.floats(0, 1),
)
def test_what_is_taken_fits_and_nothing_that_was_left_does(macs, share) -> None:
    budget = share * sum(macs)
    places = affordable(macs, budget)
    assert places == sorted(set(places))
    assert sum(macs[place] for place in places) <= budget
    for place in set(range(len(macs))) - set(places):
        before = sum(macs[taken] for taken in places if taken < place)
        assert before + macs[place] > budget * (1 - 1e-9)


@pytest.mark.parametrize(
    ("macs", "budget", "places"),
    [
        ([], 1, []),
        ([1, 1], 0, []),
        ([1, 1, 1], 2, [0, 1]),
        ([6, 3, 9, 2, 1], 10, [0, 1, 4]),  # a large one does not end it
        ([11, 10], 10, [1]),
    ],
)
def test_a_layer_too_many_leaves_room_for_smaller_ones(macs, budget, places) -> None:
    assert affordable(macs, budget) == places


@pytest.mark.parametrize(
    ("most", "counts"),
    [(0, []), (1, [1]), (2, [2, 1]), (3, [3, 2, 1]), (4, [4, 2, 1]), (9, [9, 8, 4, 2, 1])],
)
def test_counts_fall_to_one(most, counts) -> None:
    assert fewer_and_fewer(most) == counts


def test_work_decides_what_is_affordable() -> None:
    prepared = prepare_int8(with_a_loud_channel())
    macs = [node_macs(layer) for layer in layers_of(prepared.graph)]
    assert macs == [64 * 27 * 8, 64 * 72 * 8, 64 * 72 * 8]
    assert affordable(macs, 0.1 * sum(macs)) == []
    assert affordable(macs[::-1], 0.6 * sum(macs)) == [0, 2]


def test_deviations_are_those_of_the_surest_boxes() -> None:
    reference = detections()
    moved = {name: array.copy() for name, array in reference.items()}
    for row in range(2):
        surest = reference["class_scores"][row].max(-1).argsort()[::-1][:100]
        boxes = moved["boxes_xyxy"][row]
        boxes[surest[:50], 0::2] += (boxes[surest[:50], 2] - boxes[surest[:50], 0])[:, None] / 2
        moved["class_scores"][row, surest[99]] += 0.5  # the last that counts
    found = deviations(reference, moved)
    # half of the candidates lie half beside themselves, an overlap of a third
    assert found["boxes_xyxy"] == pytest.approx(1 / 2 * 2 / 3, rel=1e-5)
    tops = [scores[scores.max(-1).argsort()[::-1][:100]] for scores in reference["class_scores"]]
    root = np.sqrt(np.mean(np.square(tops)))
    assert found["class_scores"] == pytest.approx(0.5 * np.sqrt(1 / 100) / root, rel=1e-5)


def test_easiness_deviates_by_its_largest_error_and_zeros_by_theirs() -> None:
    found = deviations(
        {"easiness": np.array([0.5, 0.25]), "feature": np.zeros(4)},
        {"easiness": np.array([0.625, 0.25]), "feature": np.array([0.0, 2, 0, 0])},
    )
    assert found == {"easiness": 0.125, "feature": 1.0}


def test_the_24_layers_of_the_largest_errors_are_tried_alone(monkeypatch) -> None:
    asked: list[int] = []

    def each_alone(_model, _full, _target, layers, _sample):
        asked.extend(layers)
        return [{"out": np.zeros(1)} for _ in layers]

    monkeypatch.setattr(sensitivity, "own_errors", lambda *_: {n: float(n) for n in range(30)})
    monkeypatch.setattr(sensitivity, "node_macs", lambda _layer: 1)
    monkeypatch.setattr(sensitivity, "each_alone", each_alone)
    trial = SimpleNamespace(samples=[None], reference=[{"out": np.zeros(1)}])
    sensitivity._ranked(None, None, None, trial, 1.0, lambda *_: None)
    assert asked == list(range(29, 5, -1))
