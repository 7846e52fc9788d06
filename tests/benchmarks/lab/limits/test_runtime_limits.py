"""Limits of the runtime itself, with few rounds and tiny models: the bookkeeping is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import Bundle, Forced, InputError
from dyninfer.benchmarks.lab.limits import batching, overhead
from dyninfer.benchmarks.lab.limits.bare_route import BareRoute
from dyninfer.benchmarks.lab.limits.overhead import SIZE, write_idle_bundle
from tests import support


@pytest.fixture
def idle(tmp_path: Path) -> Path:
    return write_idle_bundle(tmp_path / "idle.dyn")


def test_the_idle_bundle_routes_by_one_pixel_and_finds_one_box(idle: Path) -> None:
    pictures = [np.full((SIZE, SIZE, 3), (0, 0, shade), np.uint8) for shade in (0, 255)]
    with dyninfer.load(idle) as detector:
        found = detector(pictures)
    assert [(d.exit_index, d.easiness) for d in found] == [(1, 0.0), (0, 1.0)]
    assert [d.class_names for d in found] == [("right",), ("right",)]
    np.testing.assert_allclose(found[0].boxes_xyxy, [[4, 4, 20, 20]])


def test_the_overhead_is_what_the_sessions_do_not_take(monkeypatch) -> None:
    monkeypatch.setattr(overhead, "CALLS", 5)
    results = overhead.measure(3)
    assert [result.key for result in results] == [case.key for case in overhead.CASES]
    for result in results:
        total, floor = (np.array(times) for times in result.times_ms.values())
        assert result.unit == "microseconds"
        assert "prepare " in result.note
        assert result.measured.median == pytest.approx(1000 * np.median(total - floor))
        assert result.measured.median > 0


@pytest.mark.parametrize("ways", [(0, 0, 0), (1, 1, 1), (0, 1, 0)])
def test_sessions_run_by_hand_do_what_the_runtime_does(small_bundle: Path, ways) -> None:
    images = support.random_images(3, 64, 96)
    bound = BareRoute(small_bundle).bind({"images": images}, ways)
    for memory in bound.memory[1::2]:  # outputs
        for array in memory.values():
            array.fill(np.nan)
    bound.run()
    found = [array for memory in bound.memory[1::2] for array in memory.values()]
    assert all(np.isfinite(array).all() for array in found)
    with dyninfer.load(small_bundle) as detector:
        expected = detector.infer({"images": images}, policy=Forced(ways))
    boxes = bound.memory[-1]["boxes_xyxy"]
    last = [row for row in range(3) if ways[row] == max(ways)]
    for position, row in enumerate(last):
        np.testing.assert_allclose(boxes[position], expected[row].outputs["boxes_xyxy"], atol=1e-3)


@pytest.mark.parametrize(
    ("write", "ways"),
    [
        (support.write_static_two_stages, (0, 0)),
        (support.write_three_exits, (2, 0, 1, 2)),
        (support.write_select_detectors, (1, 0)),
        (support.write_select_classifiers, (1, 1)),
    ],
)
def test_any_route_is_run_by_hand(tmp_path: Path, write, ways) -> None:
    route = BareRoute(write(tmp_path / "any.dyn"))
    images = batching.random_images(route.manifest, len(ways))
    with dyninfer.load(tmp_path / "any.dyn") as detector:
        expected = detector.infer(images, policy=Forced(ways))
    bound = route.bind(images, ways)
    made = bound.memory[1::2]
    for outputs in made:
        for array in outputs.values():
            array.fill(np.nan)
    bound.run()
    for name in route.manifest.task.outputs:
        found = np.concatenate([outputs[name] for outputs in made if name in outputs])
        wanted = np.concatenate(
            [
                e.outputs[name][None]
                for way in sorted(set(ways))
                for e in expected
                if e.exit_index == way
            ]
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_the_share_of_work_of_a_mixed_batch(idle: Path) -> None:
    macs = {"first": 100, "router": 1, "head": 50, "second": 200}
    support.reseal(idle, lambda m: [m["stages"][n].update(macs=v) for n, v in macs.items()])
    share = batching.mac_share(Bundle.open(idle).manifest)
    assert share == pytest.approx((8 * 101 + 6 * 50 + 2 * 200) / (8 * 301))


def test_a_bundle_that_does_not_tell_its_work_has_no_share_of_it(idle: Path) -> None:
    with support.refuses(InputError, "multiply-accumulates"):
        batching.measure(idle, 2)


def test_mixed_batches_are_compared_with_both_alternatives(small_bundle: Path) -> None:
    results = batching.measure(small_bundle, 2)
    assert [result.key for result in results] == ["batch-singles", "batch-last-exit"]
    assert results[1].limit == pytest.approx(
        batching.mac_share(Bundle.open(small_bundle).manifest) + 0.05
    )
    assert results[0].limit == 0.9
    assert all(len(times) == 2 for result in results for times in result.times_ms.values())
