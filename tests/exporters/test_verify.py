"""Verification of every kind of route, against sources written by hand in NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Converted, Making
from dyninfer.builds.spec import INPUT, parse_precision
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import StaticRoute
from dyninfer.exporters.parity import Flips, Parity
from dyninfer.exporters.precision.travel import rewrite_travel
from dyninfer.exporters.verify import verify
from dyninfer.runtime.stage_runner import Trace
from dyninfer.types import AnyArray as Array
from tests import support

PICTURES = support.random_pictures(3)
RANDOM = 3


@dataclass(frozen=True)
class Written:
    """A stage of a source as a function of its inputs."""

    function: Callable[..., Sequence[Array]]
    has_double: bool = True

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        return list(self.function(*inputs))

    def in_double(self) -> AbstractContextManager[None] | None:
        return nullcontext() if self.has_double else None  # NumPy computes in what it is given


def means(images: Array) -> list[Array]:
    return [images.mean((2, 3))]


def channels(*chosen: int) -> Callable[[Array], list[Array]]:
    return lambda value: [value[:, chosen[0] if len(chosen) == 1 else chosen]]


def boxes_at(offset: float) -> Callable[[Array], list[Array]]:
    def head(value: Array) -> list[Array]:
        corners = np.array([0, 0, 8, 8], value.dtype) + value.dtype.type(offset)
        scores = np.broadcast_to(np.array([0.25, 0.75], value.dtype), (len(value), 1, 2))
        return [value[:, 2, None, None] + corners, scores]

    return head


def logits(*weights: float) -> Callable[[Array], list[Array]]:
    return lambda images: [images.mean((2, 3)) * np.array(weights, images.dtype)]


def detecting(offset: float) -> Callable[[Array], list[Array]]:
    return lambda images: boxes_at(offset)(*means(images))


THREE: Mapping[str, Callable] = {
    "body_1": means,
    "router_1": channels(0),
    "head_1": boxes_at(0),
    "body_2": means,
    "router_2": channels(1),
    "head_2": boxes_at(1000),
    "body_3": lambda images, value: boxes_at(2000)((images.mean((2, 3)) + value) / 2),
}
SELECT_CLASSIFIERS: Mapping[str, Callable] = {
    "chooser": lambda images: channels(0, 1)(*means(images)),
    "body_0": logits(10, 10, 0),
    "body_1": logits(10, 10, 10),
}
SELECT_DETECTORS: Mapping[str, Callable] = {
    "chooser": SELECT_CLASSIFIERS["chooser"],
    "body_0": detecting(0),
    "body_1": means,
    "head_1": boxes_at(1000),
}
ROUTES = {
    "two exits": (
        support.write_two_exits,
        {"first": means, "router": channels(0), "head": boxes_at(0), "second": detecting(1000)},
        ("exit 0", "exit 1", "decision 0"),
        ("router",),
    ),
    "three exits": (
        support.write_three_exits,
        THREE,
        ("exit 0", "exit 1", "exit 2", "decision 0", "decision 1"),
        ("router_1", "router_2"),
    ),
    "static": (
        support.write_static_two_stages,
        {"body": means, "head": boxes_at(0)},
        ("exit 0",),
        (),
    ),
    "static classifier": (
        support.write_static_classifier,
        {"body": logits(10, 10, 10)},
        ("exit 0",),
        (),
    ),
    "select classifiers": (
        support.write_select_classifiers,
        SELECT_CLASSIFIERS,
        ("branch 0", "branch 1", "decision 0"),
        ("chooser",),
    ),
    "select detectors": (
        support.write_select_detectors,
        SELECT_DETECTORS,
        ("branch 0", "branch 1", "decision 0"),
        ("chooser",),
    ),
}


def verified(bundle: Path, functions: Mapping[str, Callable], **of_stages: bool) -> Parity:
    source = {name: Written(function, **of_stages) for name, function in functions.items()}
    with dyninfer.load(bundle) as detector:
        return verify(detector, source, PICTURES, RANDOM)


def replaced(bundle: Path, stage: str, model: onnx.ModelProto) -> Path:
    """The bundle with another file for a stage, otherwise in order."""
    path = bundle / "onnx" / f"{stage}.onnx"
    path.write_bytes(model.SerializeToString())
    support.reseal(bundle, lambda m: m["stages"][stage].update(sha256=file_sha256(path)))
    return bundle


def failed(parity: Parity) -> set[tuple[str, str]]:
    return {(check.where, check.tensor) for check in parity.checks if not check.passed}


@pytest.mark.parametrize("kind", ROUTES)
def test_every_stage_way_and_decision_is_compared(tmp_path, kind) -> None:
    write, functions, ends, deciders = ROUTES[kind]
    parity = verified(write(tmp_path / "one.dyn"), functions)
    assert parity.passed, parity.checks
    assert {check.where for check in parity.checks} == {*functions, *ends}
    assert tuple(parity.decisions) == deciders
    assert all(flips.decisions >= 6 and not flips.flips for flips in parity.decisions.values())
    assert parity.not_compared == ()
    assert (parity.photos, parity.random_tensors) == (3, 3)


def test_the_source_runs_one_image_at_a_time_and_the_bundle_tries_batches(
    tmp_path, monkeypatch
) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    sizes: dict[str, set[int]] = {"source": set(), "bundle": set()}

    def noting(function: Callable) -> Callable:
        def run(*inputs: Array) -> Sequence[Array]:
            sizes["source"].add(len(inputs[0]))
            return function(*inputs)

        return run

    trace = dyninfer.Detector.trace

    def traced(detector: dyninfer.Detector, inputs: Mapping[str, Array]) -> Trace:
        sizes["bundle"].add(len(inputs["images"]))
        return trace(detector, inputs)

    monkeypatch.setattr(dyninfer.Detector, "trace", traced)
    parity = verified(bundle, {name: noting(function) for name, function in THREE.items()})
    assert parity.passed
    assert sizes == {"source": {1}, "bundle": {1, 2}}


def test_noise_is_whatever_a_pixel_can_become(tmp_path) -> None:
    """Black, of each channel, is -mean / std, and white (255 - mean) / std."""
    bundle = support.write_static_classifier(tmp_path / "one.dyn")
    spec = {"mean": [10.0, 0.0, 255.0], "std": [5.0, 255.0, 51.0]}
    support.reseal(bundle, lambda m: m["image_inputs"]["images"].update(spec))
    seen = []

    def body(images: Array) -> list[Array]:
        seen.append(images)
        return logits(10, 10, 10)(images)

    with dyninfer.load(bundle) as detector:
        assert verify(detector, {"body": Written(body)}, [], 100).photos == 0
    noise = np.concatenate(seen)
    assert len(noise) >= 100
    levels = noise * np.reshape(spec["std"], (3, 1, 1)) + np.reshape(spec["mean"], (3, 1, 1))
    assert (levels > -1e-3).all()
    assert (levels < 255.001).all()
    np.testing.assert_allclose(levels.min((0, 2, 3)), 0, atol=0.5)
    np.testing.assert_allclose(levels.max((0, 2, 3)), 255, atol=0.5)
    np.testing.assert_allclose(levels.mean((0, 2, 3)), 127.5, rtol=0.05)


def take_pixels(bundle: dyninfer.Bundle, folder: Path) -> None:
    """Make a build whose stages, in float32 though it is asked for as fp16, take pixels."""
    written, types = rewrite_travel(bundle, {}, folder, pixels=True, maps=None)
    builder = ConversionBuilder({INPUT: "uint8"})
    wanted = builder.wanted(bundle.manifest, parse_precision("fp16", bundle.manifest), 2)
    builder.make(
        bundle, wanted, Making(Converted(written, tensors=types, options={INPUT: "uint8"}))
    )


@pytest.mark.parametrize("pixels", [False, True])
def test_the_source_reads_pictures_and_noise_as_the_bundle_normalises_them(
    tmp_path, pixels
) -> None:
    """Of a build that takes pixels, noise is of whole ones; of others it need not be."""
    path = support.write_static_classifier(tmp_path / "one.dyn")
    spec = {"mean": [10.0, 20.0, 30.0], "std": [50.0, 60.0, 70.0]}
    support.reseal(path, lambda m: m["image_inputs"]["images"].update(spec))
    with dyninfer.load(path) as plain:
        prepared = plain.prepare(PICTURES)["images"]
    if pixels:
        take_pixels(dyninfer.Bundle.open(path), tmp_path)
    seen = []

    def body(images: Array) -> list[Array]:
        seen.append(images)
        return logits(10, 10, 10)(images)

    with dyninfer.load(path, precision="fp16" if pixels else None) as detector:
        assert detector.prepare(PICTURES)["images"].dtype == (np.uint8 if pixels else np.float32)
        told: list[int] = []
        assert verify(detector, {"body": Written(body)}, PICTURES, RANDOM, told.append).passed
    assert sum(told) == len(seen) == 3 + RANDOM
    photos, noise = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    np.testing.assert_allclose(photos, prepared, atol=1e-5)
    levels = noise * np.reshape(spec["std"], (3, 1, 1)) + np.reshape(spec["mean"], (3, 1, 1))
    assert np.allclose(levels, np.rint(levels), atol=1e-3) is pixels
    assert (levels.min() < 25, levels.max() > 230) == (True, True)


def test_a_fault_in_the_middle_exit_is_found_there_and_at_its_end(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    parity = verified(replaced(bundle, "head_2", support.detecting_head("value_2", 1000.5)), THREE)
    assert failed(parity) == {("head_2", "boxes_xyxy"), ("exit 1", "boxes_xyxy")}
    assert parity.flips.flips == 0


def test_a_fault_in_the_second_router_is_found_and_its_flips_are_its_own(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    parity = verified(replaced(bundle, "router_2", support.channel_router("value_2", 2)), THREE)
    assert failed(parity) == {("router_2", "easiness"), ("decision 1", "easiness")}
    assert parity.decisions["router_1"].flips == 0
    assert parity.decisions["router_2"].flips > 0
    assert parity.flips.flips == parity.decisions["router_2"].flips
    assert parity.flips.decisions == sum(each.decisions for each in parity.decisions.values())


def test_a_body_that_later_exits_read_is_blamed_alone_and_all_its_ends_differ(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    model = support.means_of("images", 8, 8, "value_1")
    model.graph.node[0].op_type = "ReduceMax"
    parity = verified(replaced(bundle, "body_1", model), THREE)
    assert failed(parity) == {
        ("body_1", "value_1"),
        ("exit 0", "boxes_xyxy"),
        ("decision 0", "easiness"),
        ("exit 2", "boxes_xyxy"),
    }


def test_a_chooser_that_prefers_the_other_branch_flips_every_decision(tmp_path) -> None:
    bundle = support.write_select_classifiers(tmp_path / "select.dyn")
    model = support.channel_chooser("images", 8)
    (order,) = (t for t in model.graph.initializer if t.name == "channels")
    order.CopyFrom(onnx.numpy_helper.from_array(np.array([1, 0]), order.name))
    parity = verified(replaced(bundle, "chooser", model), SELECT_CLASSIFIERS)
    assert failed(parity) == {("chooser", "choice_scores"), ("decision 0", "choice_scores")}
    assert parity.decisions == {"chooser": Flips(6, 6)}


@pytest.mark.parametrize(
    ("write", "functions", "stage", "model", "found"),
    [
        (
            support.write_select_detectors,
            SELECT_DETECTORS,
            "head_1",
            support.detecting_head("value", 1001),
            {("head_1", "boxes_xyxy"), ("branch 1", "boxes_xyxy")},
        ),
        (
            support.write_select_classifiers,
            SELECT_CLASSIFIERS,
            "body_1",
            support.classifying_body("images", 8, (10, 10, 11)),
            {("body_1", "logits"), ("branch 1", "logits")},
        ),
        (
            support.write_static_two_stages,
            {"body": means, "head": boxes_at(0)},
            "head",
            support.detecting_head("value", 1),
            {("head", "boxes_xyxy"), ("exit 0", "boxes_xyxy")},
        ),
    ],
)
def test_a_fault_at_the_end_of_any_route_is_found(
    tmp_path, write, functions, stage, model, found
) -> None:
    parity = verified(replaced(write(tmp_path / "one.dyn"), stage, model), functions)
    assert failed(parity) == found


def test_the_record_tells_decisions_in_total_and_by_decider(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    parity = verified(replaced(bundle, "router_2", support.channel_router("value_2", 2)), THREE)
    record = parity.to_dict(dyninfer.Bundle.open(bundle).manifest)
    assert json.loads(json.dumps(record)) == record
    each = record["by_decider"]
    assert list(each) == ["router_1", "router_2"]
    for key in ("decisions", "flips"):
        assert record[key] == each["router_1"][key] + each["router_2"][key]
    assert record["flip_share"] == record["flips"] / record["decisions"]


@pytest.mark.parametrize(
    ("write", "functions", "lacking", "left"),
    [
        (support.write_three_exits, THREE, "router_1", ["router_2"]),
        (support.write_three_exits, THREE, "router_2", ["router_1"]),
        (support.write_select_detectors, SELECT_DETECTORS, "chooser", []),
    ],
)
def test_a_decider_without_a_source_is_named_and_all_else_is_compared(
    tmp_path, write, functions, lacking, left
) -> None:
    known = {name: function for name, function in functions.items() if name != lacking}
    parity = verified(write(tmp_path / "one.dyn"), known)
    assert parity.passed
    assert parity.not_compared == (lacking,)
    assert list(parity.decisions) == left
    ends = {check.where for check in parity.checks if check.where not in functions}
    ways = len(dyninfer.Bundle.open(tmp_path / "one.dyn").manifest.ways)
    assert len(ends) == ways + len(left)


def test_a_source_without_a_stage_that_makes_results_is_refused(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    known = {name: function for name, function in THREE.items() if name != "head_2"}
    with support.refuses(dyninfer.BundleError, "no stage 'head_2'", "router"):
        verified(bundle, known)


def coarse(value: Array) -> list[Array]:
    """The head of the middle exit with a sum that float32 rounds to some thousandths."""
    boxes, scores = boxes_at(1000)(value)
    far = value.dtype.type(100_000)
    return [boxes + far - far, scores]


def test_the_sources_own_rounding_is_measured_at_every_stage_way_and_decision(tmp_path) -> None:
    bundle = support.write_three_exits(tmp_path / "three.dyn")
    functions = {**THREE, "head_2": coarse}
    parity = verified(bundle, functions)
    assert parity.passed, parity.checks
    checks = {(check.where, check.tensor): check for check in parity.checks}
    assert all(check.rounding is not None for check in checks.values())
    for where in ("head_2", "exit 1"):
        check = checks[where, "boxes_xyxy"]
        assert check.max_abs > parity.tolerance.boxes_px
        assert check.rounding == pytest.approx(check.max_abs, rel=0.2)
    assert checks["exit 0", "boxes_xyxy"].rounding < 1e-4
    assert failed(verified(bundle, functions, has_double=False)) == {
        ("head_2", "boxes_xyxy"),
        ("exit 1", "boxes_xyxy"),
    }


ROWS = 100
CORNERS = (np.arange(ROWS * 4).reshape(1, ROWS, 4) * 3).astype(np.float32)
SURE = np.linspace(0.9, 0.1, ROWS, dtype=np.float32).reshape(1, ROWS, 1)


def listing(names: tuple[str, str], others: int) -> onnx.ModelProto:
    """What ends in a hundred candidates, of which some are others than the source's."""
    moved = CORNERS.copy()
    moved[0, :others] += 5000
    return support.tiny_model(
        {"images": ["batch", 3, 8, 8]},
        {names[0]: ["batch", ROWS, 4], names[1]: ["batch", ROWS, 1]},
        [
            onnx.helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            onnx.helper.make_node("Mul", ["mean", "zero"], ["flat"]),
            onnx.helper.make_node("Unsqueeze", ["flat", "axes"], ["nothing"]),
            onnx.helper.make_node("Add", ["nothing", "all_corners"], [names[0]]),
            onnx.helper.make_node("Add", ["nothing", "all_sure"], [names[1]]),
        ],
        {
            "zero": np.array(0, np.float32),
            "axes": np.array([1, 2]),
            "all_corners": moved,
            "all_sure": SURE,
        },
    )


@pytest.mark.parametrize(
    ("proposals", "others", "passes"), [(True, 2, True), (True, 3, False), (False, 1, False)]
)
def test_two_of_a_hundred_may_be_others_where_regions_are_proposed(
    tmp_path, proposals, others, passes
) -> None:
    """In what is proposed, and at the end of the way."""
    names = ("proposals", "objectness") if proposals else ("corners", "sure")
    ends = ("boxes_xyxy", "class_scores")
    head = support.tiny_model(
        {names[0]: ["batch", ROWS, 4], names[1]: ["batch", ROWS, 1]},
        {ends[0]: ["batch", ROWS, 4], ends[1]: ["batch", ROWS, 1]},
        [onnx.helper.make_node("Identity", [a], [b]) for a, b in zip(names, ends, strict=True)],
    )
    bundle = support.write_tiny_bundle(
        tmp_path / "regions.dyn",
        {"body": listing(names, others), "head": head},
        StaticRoute(body="body", head="head"),
        {"images": 8},
        class_names=("it",),
    )
    functions = {"body": lambda _images: [CORNERS, SURE], "head": lambda *both: both}
    found = failed(verified(bundle, functions))
    places = {("body", names[0]), ("exit 0", "boxes_xyxy")}
    assert found == (set() if passes else places)


def test_verifying_leaves_the_policy_alone(tmp_path) -> None:
    write, functions, *_ = ROUTES["two exits"]
    with dyninfer.load(write(tmp_path / "two.dyn")) as detector:
        detector.policy = policy = dyninfer.Threshold(0.25)
        verify(detector, {name: Written(f) for name, f in functions.items()}, PICTURES[:1], 0)
        assert detector.policy is policy
