from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer.engines.ort.runtime import PlainStages
from dyninfer.routing.policy import default_policy
from dyninfer.runtime.arrays import ArrayRunner
from dyninfer.runtime.executor import execute, trace
from dyninfer.runtime.plan import decision_points, plan, steps_before
from tests import support
from tests.exporters.router import cascades

WRITERS = (
    support.write_two_exits,
    support.write_three_exits,
    support.write_static_two_stages,
    support.write_select_classifiers,
    support.write_select_detectors,
)
CODES = [(0.9, 0.1, 1.0), (0.2, 0.8, 2.0), (0.3, 0.4, 3.0), (0.1, 0.6, 4.0)]


@pytest.mark.parametrize("write", WRITERS)
def test_plain_sessions_route_and_trace_as_a_detector_does(tmp_path, write) -> None:
    with dyninfer.load(write(tmp_path / "one.dyn")) as detector:
        manifest = detector.manifest
        images = {
            name: support.coded_images(CODES, manifest.image_inputs[name].height)
            for name in manifest.image_tensors
        }
        runner = ArrayRunner(images, PlainStages(detector.bundle).run)
        route = plan(manifest)
        result = execute(route, runner, len(CODES), default_policy(decision_points(route)))
        found = {
            row: (group.way, {name: array[at] for name, array in group.outputs.items()})
            for group in result.groups
            for at, row in enumerate(group.rows)
        }
        for row, expected in enumerate(detector.infer(images)):
            way, outputs = found[row]
            assert way == expected.exit_index
            for name, array in expected.outputs.items():
                np.testing.assert_array_equal(outputs[name], array)
        ours, theirs = trace(route, runner, len(CODES)), detector.trace(images)
        for one, other in zip(ours.ways, theirs.ways, strict=True):
            for name, array in other.items():
                np.testing.assert_array_equal(one[name], array)


def test_what_is_needed_before_a_stage_are_the_stages_of_its_own_way(tmp_path) -> None:
    def before(path, stage: str) -> list[str]:
        manifest = dyninfer.Bundle.open(path).manifest
        return [step.stage for step in steps_before(manifest, stage)]

    three = support.write_three_exits(tmp_path / "three.dyn")
    assert before(three, "body_1") == []
    assert before(three, "router_2") == ["body_2"]
    assert before(three, "head_2") == ["body_2"]
    assert before(three, "body_3") == ["body_1"]
    select = support.write_select_detectors(tmp_path / "select.dyn")
    assert before(select, "chooser") == before(select, "body_1") == []
    assert before(select, "head_1") == ["body_1"]


def test_a_router_is_fed_by_its_own_exit_where_later_exits_make_the_same_tensors(tmp_path) -> None:
    bundle = cascades.write_learnable(tmp_path / "pair.dyn")
    router = support.tiny_model(
        {"class_scores": ["batch", 1, 2]},
        {"easiness": ["batch"]},
        [
            support.helper.make_node(
                "ReduceMax", ["class_scores"], ["easiness"], axes=[1, 2], keepdims=0
            )
        ],
    )
    data = router.SerializeToString()
    (bundle / "onnx" / "router.onnx").write_bytes(data)
    entry = support.stage_entry(router, "onnx/router.onnx", data).model_dump(mode="json")

    def change(manifest) -> None:
        manifest["stages"]["router"] = entry
        manifest["route"]["exits"][0]["router"] = "router"

    support.reseal(bundle, change)
    steps = steps_before(dyninfer.Bundle.open(bundle).manifest, "router")
    assert [step.stage for step in steps] == ["first"]
