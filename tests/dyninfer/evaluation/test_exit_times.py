from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.evaluation.exit_times import (
    ExitTimes,
    last_exit_alone_ms,
    measure_exit_times,
    stages_of_last_exit,
)
from dyninfer.routing.policy import AlwaysEasy
from tests.support import write_static, write_three_exits, write_two_exits


def test_every_exit_is_timed_on_every_picture(three_exits: dyninfer.Detector) -> None:
    three_exits.policy = AlwaysEasy()
    seen = []
    pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 200)]
    times = measure_exit_times(three_exits, iter(pictures), lambda: seen.append(1))
    assert [len(samples) for samples in times.exit_ms] == [2, 2, 2]
    assert all(ms > 0 for samples in times.exit_ms for ms in samples)
    assert len(seen) == 2
    assert three_exits.policy == AlwaysEasy()
    steps = {"prepare", "body_1", "router_1", "head_1", "read-back", "postprocess"}
    assert set(times.step_ms[0]) == steps
    first = {"prepare", "body_1", "router_1", "body_2", "router_2"}
    assert set(times.step_ms[2]) == first | {"body_3", "read-back", "postprocess"}


def test_the_last_exit_needs_what_it_reads_and_what_that_reads(tmp_path: Path) -> None:
    def needed(path: Path) -> frozenset[str]:
        return stages_of_last_exit(Bundle.open(path).manifest)

    assert needed(write_static(tmp_path / "static.dyn")) == {"body"}
    # two unrelated detectors
    assert needed(write_two_exits(tmp_path / "two.dyn")) == {"second"}
    # the third body reads a feature of the first; the second exit is not needed
    assert needed(write_three_exits(tmp_path / "three.dyn")) == {"body_1", "body_3"}


def test_a_detector_that_reads_features_is_never_slower_alone(small_bundle: Path) -> None:
    manifest = Bundle.open(small_bundle).manifest
    assert stages_of_last_exit(manifest) == {"first", "second"}
    steps = {"prepare": 1.0, "first": 10.0, "router": 2.0, "second": 20.0, "postprocess": 0.5}
    times = ExitTimes(((15.0,), (33.5,)), ({"prepare": 1.0}, steps))
    assert last_exit_alone_ms(times, manifest) == pytest.approx(31.5)


def test_an_image_of_its_own_is_prepared_alone(tmp_path: Path) -> None:
    from dyninfer.bundle.manifest import CascadeRoute, Exit
    from tests import support

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
    times = ExitTimes(((15.0,), (33.5,)), ({"prepare": 1.0}, steps))
    assert last_exit_alone_ms(times, Bundle.open(path).manifest) == pytest.approx(22.5)
