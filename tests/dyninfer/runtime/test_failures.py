"""Engines that fail, hang or answer nonsense: raised, or answered by the last exit that worked."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import dyninfer
from dyninfer.bundle.manifest import CascadeRoute, Exit, StaticRoute
from dyninfer.results.tasks import TASKS
from dyninfer.runtime.failures import FailureCounts
from tests import support

EASY, HARD = (0.9, 0.0), (0.1, 0.0)
SCORES = "class_scores"
BOXES = "boxes_xyxy"
NONSENSE = {
    "NaN scores": {SCORES: np.nan},
    "infinite scores": {SCORES: np.inf},
    "scores of 7": {SCORES: 7.0},
    "scores of -5": {SCORES: -5.0},
    "NaN boxes": {BOXES: np.nan},
    "infinite boxes": {BOXES: np.inf},
    "boxes of 1e38": {BOXES: 1e38},
    "boxes of -5": {BOXES: -5.0},
}


def constant_body(values: dict[str, float]) -> onnx.ModelProto:
    """A second stage whose named outputs are one value everywhere; the others are sound."""
    nodes, constants = support.detection_nodes("mean", 1000)
    mean = helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0)
    nodes = [mean, *nodes]
    for name, value in values.items():
        maker = next(node for node in nodes if node.output[0] == name)
        maker.output[0] = f"sound_{name}"
        nodes += [
            helper.make_node("Mul", [f"sound_{name}", "zero"], [f"zero_{name}"]),
            helper.make_node("Add", [f"zero_{name}", f"all_{name}"], [name]),
        ]
        constants[f"all_{name}"] = np.array(value, np.float32)
    constants["zero"] = np.array(0, np.float32)
    return support.tiny_model({"images": ["batch", 3, 8, 8]}, support.DETECTIONS, nodes, constants)


def failing_body() -> onnx.ModelProto:
    """A second stage that fails whenever it runs: a reshape to an impossible size."""
    nodes, constants = support.detection_nodes("mean", 1000)
    first = [
        helper.make_node("ReduceMean", ["images"], ["all"], axes=[2, 3], keepdims=0),
        helper.make_node("Reshape", ["all", "size"], ["odd"]),
        helper.make_node("ReduceMean", ["odd"], ["mean"], axes=[1], keepdims=0),
    ]
    constants["size"] = np.array([-1, 7, 3])
    return support.tiny_model(
        {"images": ["batch", 3, 8, 8]}, support.DETECTIONS, [*first, *nodes], constants
    )


def endless_body(rounds: int = 10**12) -> onnx.ModelProto:
    """A second stage that hangs: a loop of so many rounds that it takes hours."""
    nodes, constants = support.detection_nodes("mean", 1000)
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Sin", ["before"], ["after"]),
        ],
        "round",
        [
            value("number", onnx.TensorProto.INT64, []),
            value("go_on", onnx.TensorProto.BOOL, []),
            value("before", onnx.TensorProto.FLOAT, None),
        ],
        [
            value("goes_on", onnx.TensorProto.BOOL, []),
            value("after", onnx.TensorProto.FLOAT, None),
        ],
    )
    first = [
        helper.make_node("ReduceMean", ["images"], ["start"], axes=[2, 3], keepdims=0),
        helper.make_node("Loop", ["rounds", "true", "start"], ["mean"], body=body),
    ]
    constants |= {"rounds": np.array(rounds), "true": np.array(True)}
    return support.tiny_model(
        {"images": ["batch", 3, 8, 8]}, support.DETECTIONS, [*first, *nodes], constants
    )


def write(path: Path, second: onnx.ModelProto, *, first: onnx.ModelProto | None = None) -> Path:
    models = {
        "first": support.means_of("images", 8, 8, "value"),
        "router": support.channel_router("value", 0),
        "head": first or support.detecting_head("value", 0),
        "second": second,
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    return support.write_tiny_bundle(path, models, CascadeRoute(exits=exits), {"images": 8})


def pictures(*easiness: float) -> list[np.ndarray]:
    return [np.full((8, 8, 3), round(255 * value), np.uint8) for value in easiness]


MIXED = pictures(0.9, 0.1, 0.9, 0.2)


@pytest.mark.parametrize("values", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_never_taken_for_an_empty_picture(tmp_path, values, caplog) -> None:
    path = write(tmp_path / "broken.dyn", constant_body(values))
    with dyninfer.load(path) as detector, caplog.at_level(logging.WARNING, "dyninfer"):
        assert [len(found) for found in detector(pictures(0.9, 0.8))] == [1, 1]
        for _ in range(2):
            with support.refuses(dyninfer.BrokenOutputError, "exit 1 gave broken outputs"):
                detector(MIXED)
        assert detector.failure_counts.broken_outputs >= 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize("values", NONSENSE.values(), ids=NONSENSE)
def test_where_it_may_degrade_the_last_exit_that_worked_answers(tmp_path, values) -> None:
    path = write(tmp_path / "broken.dyn", constant_body(values))
    with dyninfer.load(path, on_failure="degrade") as detector:
        found = detector(MIXED)
        alone = [detector(picture, policy=dyninfer.AlwaysEasy()) for picture in MIXED]
        assert [answer.degraded for answer in found] == [False, True, False, True]
        assert [answer.exit_index for answer in found] == [0] * 4
        for answer, expected in zip(found, alone, strict=True):
            np.testing.assert_array_equal(answer.boxes_xyxy, expected.boxes_xyxy)
            np.testing.assert_array_equal(answer.confidences, expected.confidences)
        counts = detector.failure_counts
        assert (counts.broken_outputs, counts.degraded, counts.failed_stages) == (2, 2, 0)
        assert found[1].to_dict()["degraded"] is True


@pytest.mark.parametrize("batch", [MIXED, MIXED[1:2]], ids=["mixed", "alone"])
def test_a_stage_that_fails_loses_no_image(tmp_path, batch) -> None:
    path = write(tmp_path / "failing.dyn", failing_body())
    with dyninfer.load(path) as detector:
        with support.refuses(dyninfer.EngineRunError, "second"):
            detector(batch)
        assert len(detector(MIXED[0])) == 1
    with dyninfer.load(path, on_failure="degrade") as detector:
        inputs = detector.prepare(batch)
        for found in (detector(batch), detector.infer(inputs)):
            degraded = [answer.degraded for answer in found]
            assert degraded == [picture[0, 0, 0] < 100 for picture in batch]
        expected = detector.infer(inputs, policy=dyninfer.AlwaysEasy())
        for ours, sound in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.outputs[BOXES], sound.outputs[BOXES])
        assert detector.failure_counts.failed_stages == 2 * sum(degraded)


def test_a_stage_that_hangs_is_stopped_at_the_deadline(tmp_path) -> None:
    path = write(tmp_path / "endless.dyn", endless_body())
    with dyninfer.load(path, deadline_ms=200) as detector:
        start = time.monotonic()
        with support.refuses(dyninfer.DeadlineError, "'second' was stopped", "200 ms"):
            detector(MIXED)
        assert time.monotonic() - start < 5
        assert len(detector(MIXED[0])) == 1
    with dyninfer.load(path, on_failure="degrade") as detector:
        found = detector(MIXED, deadline_ms=200)
        assert [answer.degraded for answer in found] == [False, True, False, True]
        raw = detector.infer(detector.prepare(MIXED), deadline_ms=100)
        assert [output.degraded for output in raw] == [False, True, False, True]
        assert detector.failure_counts.deadlines == 4
        assert len(detector(MIXED[0], deadline_ms=5000)) == 1


@pytest.mark.parametrize("on_failure", ["raise", "degrade"])
def test_a_failure_that_is_raised_is_counted(tmp_path, on_failure, caplog) -> None:
    """Of every image that has no answer for it: a metric would not show an outage otherwise."""
    alone, endless = (
        dyninfer.load(
            support.write_tiny_bundle(
                tmp_path / f"{name}.dyn", {"body": body}, StaticRoute(body="body"), {"images": 8}
            ),
            on_failure=on_failure,
        )
        for name, body in (("failing", failing_body()), ("endless", endless_body()))
    )
    with alone, endless, caplog.at_level(logging.WARNING, "dyninfer"):
        for _ in range(2):
            with support.refuses(dyninfer.EngineRunError, "'body'"):
                alone(MIXED)
        with support.refuses(dyninfer.EngineRunError, "'body'"):
            alone.infer(alone.prepare(MIXED[:3]))
        with support.refuses(dyninfer.DeadlineError, "50 ms"):
            endless(MIXED[:2], deadline_ms=50)
        assert alone.failure_counts == FailureCounts(failed_stages=11)
        assert endless.failure_counts == FailureCounts(deadlines=2)
    assert len(caplog.records) == 2


def test_after_the_deadline_no_later_exit_is_begun(two_exits) -> None:
    class Slow(dyninfer.Threshold):
        def decide(self, easiness, point):
            time.sleep(0.1)
            return super().decide(easiness, point)

    with support.refuses(dyninfer.DeadlineError, "50 ms"):
        two_exits(MIXED, policy=Slow(0.5), deadline_ms=50)
    assert two_exits.engines["second"].run_count == 0
    assert len(two_exits(MIXED, deadline_ms=60_000)) == 4


def test_without_an_exit_that_worked_a_failure_is_raised(tmp_path) -> None:
    path = write(tmp_path / "a.dyn", support.detecting_body("images", 8, 1000), first=broken_head())
    with dyninfer.load(path, on_failure="degrade") as detector:
        with support.refuses(dyninfer.BrokenOutputError, "exit 0"):
            detector(MIXED)
        assert len(detector(MIXED[1])) == 1


def broken_head() -> onnx.ModelProto:
    head = support.detecting_head("value", 0)
    for tensor in head.graph.initializer:
        if tensor.name == "scores":
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.full((1, 1, 2), 7, np.float32), "scores")
            )
    return head


def test_broken_numbers_beside_sound_ones_are_left_out_and_counted() -> None:
    faults: list[str] = []
    boxes = np.array([[0, 0, 8, 8], [20, 0, 28, 8], [40, 0, np.nan, 8]], np.float32)
    for scores, left in (([[0.9], [7.0], [0.1]], 1), ([[0.9], [0.1], [0.8]], 1)):
        answer = TASKS["detect"].answer(
            {BOXES: boxes, SCORES: np.array(scores, np.float32)},
            dyninfer.Placement(64, 64, 64, 64),
            dyninfer.Postprocess(),
            ("thing",),
            faults.append,
            easiness=None,
            exit_index=0,
            timings_ms={},
        )
        assert len(answer) == left
    assert faults == [
        "1 scores are not numbers from 0 to 1",
        "1 coordinates of boxes are not finite",
    ]


def test_an_audit_is_not_answered_by_the_exit_that_it_audits(tmp_path) -> None:
    path = write(tmp_path / "broken.dyn", constant_body({SCORES: np.nan}))
    with dyninfer.load(path, on_failure="degrade") as detector:
        detector.monitor.start(baseline=np.linspace(0, 1, 500), audit_share=1.0)
        detector(MIXED[0])
        assert detector.monitor.finish_audits(20)
        audits = detector.monitor.report().audits
        assert (audits.done, audits.failed) == (0, 1)


@pytest.mark.parametrize("logit", [np.nan, np.inf, -np.inf, 1e30])
def test_a_classifier_with_broken_logits_is_not_believed(tmp_path, logit) -> None:
    path = support.write_static_classifier(tmp_path / "classifier.dyn")
    with dyninfer.load(path) as detector:
        images = {"images": np.full((1, 3, 8, 8), 0.5, np.float32)}
        task, (raw,) = detector.manifest.task.kind, detector.infer(images)
        logits = raw.outputs["logits"].copy()
        logits[-1] = logit
        with support.refuses(dyninfer.BrokenOutputError, "1 of"):
            task.answer(
                {"logits": logits},
                detector.manifest.image_inputs["images"].place(8, 8),
                dyninfer.TopK(),
                detector.class_names,
                easiness=None,
                exit_index=0,
                timings_ms={},
            )


@pytest.mark.parametrize("easiness", [7.0, np.inf, np.nan])
def test_an_easiness_that_is_none_counts_as_hard(two_exits, easiness) -> None:
    images = support.coded_images([(0.9, 0, 0), (0.1, 0, 1)])
    images[0, 0] = np.nan_to_num(easiness, nan=-1.0, posinf=3e38)
    found = two_exits.infer({"images": images})
    assert [output.exit_index for output in found] == [1, 1]
    assert found[0].easiness is None
    assert two_exits.failure_counts.broken_signals == 1


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), float("inf"), "5", True])
def test_what_is_no_deadline_is_refused(two_exits, deadline) -> None:
    with support.refuses(dyninfer.InputError, "deadline_ms"):
        two_exits(MIXED[0], deadline_ms=deadline)
    with support.refuses(dyninfer.InputError, "deadline_ms"):
        dyninfer.load(two_exits.bundle.path, deadline_ms=deadline)


def test_what_is_no_answer_to_failures_is_refused(two_exits) -> None:
    with support.refuses(dyninfer.InputError, "on_failure is 'ignore'", "'degrade'"):
        dyninfer.load(two_exits.bundle.path, on_failure="ignore")  # type: ignore[arg-type]
