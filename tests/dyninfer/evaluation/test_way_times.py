from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit
from dyninfer.evaluation.way_times import WayTimes, last_way_alone_ms, measure_way_times
from dyninfer.routing.policy import AlwaysEasy
from dyninfer.runtime.plan import alone, stages_of
from tests import support


def test_every_way_is_timed_on_every_picture(three_exits: dyninfer.Detector) -> None:
    three_exits.policy = AlwaysEasy()
    seen = []
    pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 200)]
    times = measure_way_times(three_exits, iter(pictures), lambda: seen.append(1))
    assert [len(samples) for samples in times.ms] == [2, 2, 2]
    assert all(ms > 0 for samples in times.ms for ms in samples)
    assert len(seen) == 2
    assert three_exits.policy == AlwaysEasy()
    steps = {"prepare", "body_1", "router_1", "head_1", "read-back", "postprocess"}
    assert set(times.step_ms[0]) == steps
    first = {"prepare", "body_1", "router_1", "body_2", "router_2"}
    assert set(times.step_ms[2]) == first | {"body_3", "read-back", "postprocess"}


def test_the_last_way_needs_what_it_reads_and_what_that_reads(tmp_path: Path) -> None:
    def needed(path: Path) -> set[str]:
        manifest = Bundle.open(path).manifest
        return set(stages_of(alone(manifest, len(manifest.ways) - 1)))

    assert needed(support.write_static(tmp_path / "static.dyn")) == {"body"}
    # two unrelated detectors
    assert needed(support.write_two_exits(tmp_path / "two.dyn")) == {"second"}
    # the third body reads a feature of the first; the second exit is not needed
    assert needed(support.write_three_exits(tmp_path / "three.dyn")) == {"body_1", "body_3"}


def test_a_detector_that_reads_features_is_never_slower_alone(small_bundle: Path) -> None:
    manifest = Bundle.open(small_bundle).manifest
    steps = {"prepare": 1.0, "first": 10.0, "router": 2.0, "second": 20.0, "postprocess": 0.5}
    times = WayTimes(((15.0,), (33.5,)), ({"prepare": 1.0}, steps))
    assert last_way_alone_ms(times, manifest) == pytest.approx(31.5)


def test_an_image_of_its_own_is_prepared_alone(tmp_path: Path) -> None:
    models = {
        "first": support.means_of("images", 8, 8, "value"),
        "router": support.channel_router("value", 0),
        "head": support.detecting_head("value", 0),
        "second": support.detecting_body("images_2", 4, 1000),
    }
    exits = (
        Exit(body="first", router="router", head="head"),
        Exit(body="second", image_input="images_2"),
    )
    path = support.write_tiny_bundle(
        tmp_path / "own.dyn", models, CascadeRoute(exits=exits), {"images": 8, "images_2": 4}
    )
    steps = {"prepare": 3.0, "first": 10.0, "router": 2.0, "second": 20.0, "postprocess": 0.5}
    times = WayTimes(((15.0,), (33.5,)), ({"prepare": 1.0}, steps))
    assert last_way_alone_ms(times, Bundle.open(path).manifest) == pytest.approx(22.5)
