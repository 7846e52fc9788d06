from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from dyninfer.exporters.graphs import closed
from dyninfer.exporters.precision.graph import layer_groups, layers_of
from dyninfer.exporters.precision.int8 import observe_stage, prepare_int8, to_int8
from dyninfer.exporters.precision.layer_errors import each_alone, own_errors
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from tests.exporters.precision.helpers import conv, feed_of, images, run, silu, weights
from tests.support import tiny_model

TARGETS = pytest.mark.parametrize("target", list(Int8Target))


def three_layers(loud: float = 1.0):
    """Behind the second layer is no activation, and it gives out what the third reads.

    One of its weights in a channel is ``loud`` times as large as the others.
    """
    w2 = weights(8, 8, 3, 3, seed=1)
    w2[:, 0, 0, 0] *= loud
    return tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"middle": ["batch", 8, 8, 8], "deep": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            *silu("c1", "s1"),
            conv("s1", "w2", "middle"),
            conv("middle", "w3", "c3"),
            *silu("c3", "deep"),
        ],
        {"w1": weights(8, 3, 3, 3), "w2": w2, "w3": weights(8, 8, 3, 3, seed=2)},
    )


def quantised(source, target):
    prepared, settings = prepare_int8(source), Int8Settings(target=target)
    observed = observe_stage(prepared, feed_of(images()), settings)
    return prepared, to_int8(prepared, observed, settings), observed, settings


def relative(found: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(found - reference) / np.linalg.norm(reference))


@TARGETS
def test_an_error_is_that_of_the_layer_alone_on_what_it_reads(target) -> None:
    prepared, full, observed, settings = quantised(three_layers(), target)
    (sample,) = images(1, seed=5)
    errors = own_errors(prepared, full, target, sample)
    first, second, third = layers_of(prepared.graph)
    assert list(errors) == [first, second, third]
    lone = to_int8(prepared, observed, settings, only=layer_groups(prepared.graph)[third])
    expected = relative(run(lone, sample)["deep"], run(closed(prepared), sample)["deep"])
    assert errors[third] == pytest.approx(expected, rel=0.35)  # of 7 bits, where there are no more
    assert all(1e-4 < error < 0.05 for error in errors.values())


@TARGETS
def test_a_relu_that_the_range_stands_for_belongs_to_its_layer(target) -> None:
    """ONNX Runtime leaves it out on the CPU."""
    model = tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {"deep": ["batch", 8, 8, 8]},
        [
            conv("images", "w1", "c1"),
            helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
            conv("r1", "w2", "deep"),
        ],
        {"w1": weights(8, 3, 3, 3), "w2": weights(8, 8, 3, 3, seed=1)},
    )
    prepared, full, observed, settings = quantised(model, target)
    assert ("Relu" in {node.op_type for node in full.graph.node}) is (target is not Int8Target.CPU)
    (sample,) = images(1, seed=5)
    errors = own_errors(prepared, full, target, sample)
    first, second = layers_of(prepared.graph)
    assert list(errors) == [first, second]
    assert all(1e-4 < error < 0.05 for error in errors.values())
    (alone,) = each_alone(prepared, full, target, [first], sample)
    lone = to_int8(prepared, observed, settings, only=layer_groups(prepared.graph)[first])
    expected = relative(run(lone, sample)["deep"], run(closed(prepared), sample)["deep"])
    assert relative(alone["deep"], run(closed(prepared), sample)["deep"]) == pytest.approx(
        expected, rel=0.25
    )


@TARGETS
def test_a_loud_weight_shows_in_its_own_layer_only(target) -> None:
    (sample,) = images(1, seed=5)
    quiet, loud = (
        [*own_errors(*quantised(three_layers(factor), target)[:2], target, sample).values()]
        for factor in (1, 300)
    )
    assert loud[0] == pytest.approx(quiet[0], rel=1e-3)
    assert loud[1] != pytest.approx(quiet[1], rel=0.05)


@TARGETS
def test_each_alone_changes_what_comes_behind_it(target) -> None:
    prepared, full, _, _ = quantised(three_layers(), target)
    (sample,) = images(1, seed=5)
    reference = run(closed(prepared), sample)
    layers = layers_of(prepared.graph)
    alone = [*each_alone(prepared, full, target, layers, sample)]
    off = [{name: relative(found[name], reference[name]) for name in reference} for found in alone]
    assert [set(found) for found in alone] == [{"middle", "deep"}] * 3
    assert all(1e-4 < error["deep"] < 0.05 for error in off)
    assert off[0]["middle"] > 1e-4
    assert off[1]["middle"] > 1e-4
    assert off[2]["middle"] == pytest.approx(0, abs=1e-6)
    together = relative(run(full, sample)["deep"], reference["deep"])
    assert max(error["deep"] for error in off) < together


def test_the_source_stays_as_it_is() -> None:
    prepared, full, _, _ = quantised(three_layers(), Int8Target.CPU)
    before, whole = ir.to_proto(prepared).SerializeToString(), full.SerializeToString()
    own_errors(prepared, full, Int8Target.CPU, images(1)[0])
    list(each_alone(prepared, full, Int8Target.CPU, layers_of(prepared.graph)[:1], images(1)[0]))
    assert ir.to_proto(prepared).SerializeToString() == before
    assert full.SerializeToString() == whole


def test_nothing_in_8_bits_has_no_errors() -> None:
    prepared, _, observed, settings = quantised(three_layers(), Int8Target.CPU)
    plain = to_int8(prepared, observed, settings, keep=layers_of(prepared.graph))
    assert own_errors(prepared, closed(prepared), Int8Target.CPU, images(1)[0]) == {}
    assert own_errors(prepared, plain, Int8Target.CPU, images(1)[0]) == {}
