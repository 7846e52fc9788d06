"""Mixed batches: every stage sees exactly the rows that need it, results come in input order."""

from __future__ import annotations

import logging
import math
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit
from dyninfer.engines import open_backend
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.images.spec import ImageSpec
from dyninfer.runtime.session import Session
from dyninfer.spans import share_out
from tests import support

EASY = (0.9, 0.9)
MIDDLE = (0.1, 0.9)
HARD = (0.1, 0.1)
KEEP_FIXTURE = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def counts(detector: dyninfer.Detector) -> dict[str, tuple[int, int]]:
    return {name: (e.run_count, e.row_count) for name, e in detector.engines.items()}


def infer_three(detector: dyninfer.Detector, codes: list[tuple[float, float]]) -> list:
    numbered = [(*code, float(row)) for row, code in enumerate(codes)]
    inputs = {
        "images": support.coded_images(numbered),
        "images_2": support.coded_images(numbered, 4),
    }
    return detector.infer(inputs)


def assert_in_order(outputs: list[dyninfer.RawOutput], exits: list[int]) -> None:
    assert [output.exit_index for output in outputs] == exits
    corners = [float(output.outputs["boxes_xyxy"][0, 0]) for output in outputs]
    np.testing.assert_allclose(corners, [1000 * e + row for row, e in enumerate(exits)], atol=1e-3)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_second_engine_does_not_run_for_easy_images(two_exits, batch) -> None:
    outputs = two_exits.infer({"images": support.coded_images([(0.9, 0, 0)] * batch)})
    assert [output.exit_index for output in outputs] == [0] * batch
    expected = {"first": (1, batch), "router": (1, batch), "head": (1, batch), "second": (0, 0)}
    assert counts(two_exits) == expected


def test_the_first_head_does_not_run_where_all_images_are_hard(two_exits) -> None:
    two_exits.infer({"images": support.coded_images([(0.1, 0, 0)] * 3)})
    assert counts(two_exits) == {
        "first": (1, 3),
        "router": (1, 3),
        "head": (0, 0),
        "second": (1, 3),
    }


def test_head_and_second_run_once_per_batch_for_their_own_rows(two_exits) -> None:
    codes = [(0.9, 0, 0), (0.1, 0, 1), (0.9, 0, 2), (0.1, 0, 3), (0.1, 0, 4)]
    outputs = two_exits.infer({"images": support.coded_images(codes)})
    assert_in_order(outputs, [0, 1, 0, 1, 1])
    np.testing.assert_allclose([o.easiness for o in outputs], [0.9, 0.1, 0.9, 0.1, 0.1], rtol=1e-6)
    assert counts(two_exits)["head"] == (1, 2)
    assert counts(two_exits)["second"] == (1, 3)
    two_exits.infer({"images": support.coded_images(codes)})
    assert counts(two_exits)["second"] == (2, 6)


def test_always_policies_split_whatever_the_easiness(two_exits) -> None:
    images = support.coded_images([(0.0, 0, 0), (1.0, 0, 1)])
    two_exits.policy = dyninfer.AlwaysHard()
    assert_in_order(two_exits.infer({"images": images}), [1, 1])
    two_exits.policy = dyninfer.AlwaysEasy()
    assert_in_order(two_exits.infer({"images": images}), [0, 0])
    assert counts(two_exits)["second"] == (1, 2)


@KEEP_FIXTURE
@given(easiness=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_gathering_and_scattering_keep_the_order(two_exits, easiness) -> None:
    codes = [(value, 0, row) for row, value in enumerate(easiness)]
    outputs = two_exits.infer({"images": support.coded_images(codes)})
    # the mean of constant pixels may differ from them in the last bit: read the decision back
    exits = [int(output.easiness < 0.5) for output in outputs]
    np.testing.assert_allclose([o.easiness for o in outputs], easiness, atol=1e-6)
    assert_in_order(outputs, exits)


@KEEP_FIXTURE
@given(codes=st.lists(st.sampled_from([EASY, MIDDLE, HARD]), min_size=1, max_size=30))
def test_three_exits_end_in_input_order_and_see_their_rows_only(three_exits, codes) -> None:
    before = counts(three_exits)
    outputs = infer_three(three_exits, codes)
    exits = [[EASY, MIDDLE, HARD].index(code) for code in codes]
    assert_in_order(outputs, exits)
    rows = {name: c[1] - before[name][1] for name, c in counts(three_exits).items()}
    runs = {name: c[0] - before[name][0] for name, c in counts(three_exits).items()}
    leaving = [exits.count(index) for index in range(3)]
    assert rows == {
        "body_1": len(codes),
        "router_1": len(codes),
        "head_1": leaving[0],
        "body_2": leaving[1] + leaving[2],
        "router_2": leaving[1] + leaving[2],
        "head_2": leaving[1],
        "body_3": leaving[2],
    }
    assert all(count == (rows[name] > 0) for name, count in runs.items())


def test_the_last_router_that_saw_an_image_gives_its_easiness(three_exits) -> None:
    outputs = infer_three(three_exits, [(0.9, 0.3), (0.1, 0.8), (0.1, 0.2)])
    np.testing.assert_allclose([o.easiness for o in outputs], [0.9, 0.8, 0.2], rtol=1e-6)


def test_every_exit_may_have_its_own_threshold(three_exits) -> None:
    three_exits.policy = dyninfer.Threshold((0.05, 0.5))
    assert_in_order(infer_three(three_exits, [EASY, MIDDLE, HARD]), [0, 0, 0])
    three_exits.policy = dyninfer.Threshold((0.5, 0.05))
    assert_in_order(infer_three(three_exits, [EASY, MIDDLE, HARD]), [0, 1, 1])
    with support.refuses(dyninfer.PolicyError, "expected 2"):
        three_exits.policy = dyninfer.Threshold((0.5, 0.05, 0.1))


def test_a_tensor_gathered_at_two_exits_is_not_overwritten_while_it_is_read(tmp_path) -> None:
    """Large rows, so that the gather is spread over several threads."""
    path = support.write_three_exits(tmp_path / "large.dyn", size=64)
    generator = np.random.default_rng(0)
    with dyninfer.load(path, max_batch=128) as detector:
        for _ in range(6):
            kinds = generator.integers(0, 3, 128)
            codes = [(EASY, MIDDLE, HARD)[k] + (float(row),) for row, k in enumerate(kinds)]
            inputs = {
                "images": support.coded_images(codes, 64),
                "images_2": support.coded_images(codes, 4),
            }
            assert_in_order(detector.infer(inputs), kinds.tolist())


def test_each_gather_reads_and_writes_memory_of_its_own(tmp_path, monkeypatch) -> None:
    bundle = Bundle.open(support.write_three_exits(tmp_path / "three.dyn"))
    backend = open_backend()
    gather, seen = backend.gather, []

    def watch(name, tensor, rows, workspace):
        result = gather(name, tensor, rows, workspace)
        seen.append((tensor.pointer, result.pointer))
        return result

    monkeypatch.setattr(backend, "gather", watch)
    detector = dyninfer.Detector(bundle, Session(bundle, backend), 64)
    infer_three(detector, [EASY, MIDDLE, HARD, EASY, MIDDLE, HARD, EASY])
    assert len(seen) >= 4
    assert all(source != target for source, target in seen)


def test_images_for_a_later_exit_are_prepared_for_the_rows_that_reach_it(
    three_exits, monkeypatch
) -> None:
    prepared: list[tuple[int, int]] = []
    prepare = ImageSpec.prepare

    def watch(spec, image, *rest):
        prepared.append((spec.height, int(image[0, 0, 0])))
        return prepare(spec, image, *rest)

    monkeypatch.setattr(ImageSpec, "prepare", watch)
    # channels are RGB in the tensor, BGR in the picture; blue is the identity
    pictures = [
        np.full((20, 30, 3), (row, 255 * later, 255 * first), np.uint8)
        for row, (first, later) in enumerate([(1, 1), (0, 1), (0, 0), (1, 0), (0, 1)])
    ]
    found = three_exits(pictures)
    assert [d.exit_index for d in found][:1] == [0]
    later = [d.exit_index > 0 for d in found]
    assert [row for size, row in prepared if size == 8] == [0, 1, 2, 3, 4]
    assert [row for size, row in prepared if size == 4] == [r for r, on in enumerate(later) if on]
    assert 0 < sum(later) < 5


def test_the_feed_is_asked_only_for_rows_that_reach_the_stage(tmp_path) -> None:
    bundle = Bundle.open(support.write_three_exits(tmp_path / "three.dyn"))
    session = Session(bundle, open_backend())
    codes = np.array([(*EASY, 0), (*HARD, 1), (*MIDDLE, 2), (*EASY, 3), (*HARD, 4)])
    asked = []

    def feed(name, rows, _workspace):
        asked.append((name, rows.tolist()))
        return support.coded_images(codes[rows], 8 if name == "images" else 4)

    with session.workspace() as workspace:
        result = session.run(feed, 5, dyninfer.Threshold(0.5), workspace)
        groups = {group.way: list(group.rows) for group in result.groups}
    assert asked == [("images", [0, 1, 2, 3, 4]), ("images_2", [1, 2, 4])]
    assert groups == {0: [0, 3], 1: [2], 2: [1, 4]}
    timings: list[dict[str, float]] = [{} for _ in range(5)]
    share_out(result.spans, timings)
    moved = {"gather", "read-back"}
    assert set(timings[0]) == {"body_1", "router_1", "head_1", *moved}
    assert set(timings[4]) == {"body_1", "router_1", "body_2", "router_2", "body_3", *moved}


def test_nan_easiness_counts_as_hard_is_counted_and_warned_of_once(two_exits, caplog) -> None:
    images = support.coded_images([(0.9, 0, 0), (-1, 0, 1), (0.1, 0, 2), (-1, 0, 3)])
    with caplog.at_level(logging.WARNING, logger="dyninfer"):
        outputs = two_exits.infer({"images": images})
        assert_in_order(outputs, [0, 1, 1, 1])
        assert [output.easiness is None for output in outputs] == [False, True, False, True]
        assert two_exits.nan_easiness_count == 2
        two_exits.infer({"images": images})
        assert two_exits.nan_easiness_count == 4
        two_exits.policy = dyninfer.AlwaysEasy()
        assert_in_order(two_exits.infer({"images": images}), [0, 0, 0, 0])
        assert two_exits.nan_easiness_count == 4
    messages = [r.getMessage() for r in caplog.records if r.name == "dyninfer"]
    assert len(messages) == 1
    assert "NaN" in messages[0]


def test_nan_at_the_first_exit_may_be_settled_by_the_second(three_exits) -> None:
    outputs = infer_three(three_exits, [(-1, 0.9), (-1, -1), EASY])
    assert_in_order(outputs, [1, 2, 0])
    assert three_exits.nan_easiness_count == 2  # at either router


def test_images_are_counted_by_their_place_in_the_call_wherever_they_are_nan(three_exits) -> None:
    """The third image is the second one at the second exit, and the second was NaN at the first."""
    infer_three(three_exits, [EASY, (-1, 0.9), (0.1, -1)])
    assert three_exits.nan_easiness_count == 2


def test_a_cascade_without_router_takes_always_policies_only(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "plain.dyn", router=False)
    with dyninfer.load(path) as detector:
        assert detector.policy == dyninfer.AlwaysHard()
        with support.refuses(dyninfer.PolicyError, "Threshold", "no router"):
            detector.policy = dyninfer.Threshold(0.0)
        outputs = detector.infer({"images": support.coded_images([(0.9, 0, 0)])})
        assert (outputs[0].exit_index, outputs[0].easiness) == (1, None)


def test_a_static_route_has_one_exit_and_no_easiness(tmp_path) -> None:
    with dyninfer.load(support.write_static(tmp_path / "static.dyn")) as detector:
        outputs = detector.infer({"images": support.coded_images([(0, 0, 0), (0, 0, 1)])})
        assert_in_order(outputs, [0, 0])
        assert outputs[0].easiness is None
        with pytest.raises(dyninfer.PolicyError):
            detector.policy = dyninfer.Threshold((0.5,))
        detection = detector(np.zeros((9, 9, 3), np.uint8))
        assert detection.exit_index == 0
        assert detection.class_names == ("right",)


def test_a_cheap_detector_without_head_may_leave_first(tmp_path) -> None:
    """Two bodies that end in detections themselves, routed by what the first one saw."""
    models = {
        "cheap": support.detecting_body("images", 8, 0),
        "router": support.tiny_model(
            {"boxes_xyxy": ["batch", 1, 4]},
            {"easiness": ["batch"]},
            [
                support.helper.make_node(
                    "ReduceMin", ["boxes_xyxy"], ["easiness"], axes=[1, 2], keepdims=0
                )
            ],
        ),
        "costly": support.detecting_body("images_2", 16, 1000),
    }
    exits = (Exit(body="cheap", router="router"), Exit(body="costly", image_input="images_2"))
    sizes = {"images": 8, "images_2": 16}
    route = CascadeRoute(exits=exits)
    path = support.write_tiny_bundle(tmp_path / "pair.dyn", models, route, sizes)
    codes = [(0, 0, float(row % 2)) for row in range(6)]
    with dyninfer.load(path) as detector:
        inputs = {n: support.coded_images(codes, s) for n, s in sizes.items()}
        outputs = detector.infer(inputs)
        assert [o.exit_index for o in outputs] == [1, 0] * 3
        corners = [o.outputs["boxes_xyxy"][0, 0] for o in outputs]
        np.testing.assert_allclose(corners, [1000, 1] * 3)
        assert counts(detector) == {"cheap": (1, 6), "router": (1, 6), "costly": (1, 3)}


def test_a_router_that_gives_several_numbers_per_image_is_refused(tmp_path) -> None:
    models = {
        "first": support.means_of("images", 8, 8, "value"),
        "router": support.tiny_model(
            {"value": ["batch", 3]},
            {"easiness": ["batch", 3]},
            [support.helper.make_node("Identity", ["value"], ["easiness"])],
        ),
        "head": support.detecting_head("value", 0),
        "second": support.detecting_body("images", 8, 1000),
    }
    exits = (Exit(body="first", router="router", head="head"), Exit(body="second"))
    route = CascadeRoute(exits=exits)
    path = support.write_tiny_bundle(tmp_path / "odd.dyn", models, route, {"images": 8})
    with dyninfer.load(path) as detector, support.refuses(dyninfer.DyninferError, "easiness"):
        detector.infer({"images": support.coded_images([(0.5, 0, 0)])})


def test_easiness_that_is_exactly_the_threshold_leaves(two_exits) -> None:
    two_exits.policy = dyninfer.Threshold(0.5)
    images = support.coded_images([(0.5, 0, 0), (math.nextafter(0.5, 0), 0, 1), (0.49, 0, 2)])
    assert [o.exit_index for o in two_exits.infer({"images": images})] == [0, 0, 1]


def test_closing_waits_for_calls_under_way_and_frees_everything(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    session = Session(Bundle.open(path), open_backend())
    borrowed, released = threading.Event(), threading.Event()

    def call() -> None:
        with session.workspace():
            borrowed.set()
            released.wait(10)

    caller = threading.Thread(target=call)
    caller.start()
    borrowed.wait(10)
    closer = threading.Thread(target=session.close)
    closer.start()
    closer.join(0.2)
    assert closer.is_alive()
    assert session.engines
    released.set()
    for thread in (caller, closer):
        thread.join(10)
        assert not thread.is_alive()
    assert not session.engines
    with support.refuses(dyninfer.InputError, "closed"), session.workspace():
        pass


def test_buffers_of_a_call_that_failed_are_not_used_again(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    session = Session(Bundle.open(path), open_backend())
    with pytest.raises(ZeroDivisionError), session.workspace() as failed:
        raise ZeroDivisionError
    with session.workspace() as first:
        assert first is not failed
    with session.workspace() as second:
        assert second is first


def test_a_mixed_batch_runs_each_branch_once_for_its_own_rows(tmp_path) -> None:
    path = support.write_select_detectors(tmp_path / "select.dyn")
    codes = [(0.9, 0.1, 0), (0.1, 0.9, 1), (0.1, 0.9, 2), (0.9, 0.1, 3), (0.5, 0.5, 4)]
    inputs = {"images": support.coded_images(codes), "images_2": support.coded_images(codes, 4)}
    with dyninfer.load(path) as detector:
        assert detector.policy == dyninfer.Chosen()
        assert_in_order(detector.infer(inputs), [0, 1, 1, 0, 0])  # of equal scores the first
        assert counts(detector) == {
            "chooser": (1, 5),
            "body_0": (1, 3),
            "body_1": (1, 2),
            "head_1": (1, 2),
        }
        forced = dyninfer.Forced([1, 0, 1, 0, 1])
        assert_in_order(detector.infer(inputs, policy=forced), [1, 0, 1, 0, 1])
        assert counts(detector)["chooser"] == (1, 5)  # nobody reads what it would say


def test_a_chooser_that_says_nan_sends_images_the_last_way_and_is_counted(tmp_path, caplog) -> None:
    path = support.write_select_classifiers(tmp_path / "select.dyn")
    images = support.coded_images([(0.9, 0.1, 0), (-1, 0.1, 0), (-1, 0.9, 0)])
    with dyninfer.load(path) as detector, caplog.at_level(logging.WARNING, logger="dyninfer"):
        outputs = detector.infer({"images": images})
        assert [output.exit_index for output in outputs] == [0, 1, 1]
        assert detector.nan_easiness_count == 2
    assert "the chooser of select returned NaN" in caplog.text


def test_a_policy_of_one_call_is_not_seen_by_another_thread(two_exits) -> None:
    """One thread gives a policy with every call, the other goes by the detector's own."""
    images = support.coded_images([(0.9, 0, 0), (0.1, 0, 1)])
    wrong: list[list[int]] = []

    def call(policy, expected: list[int]) -> None:
        for _ in range(200):
            found = two_exits.infer({"images": images}, policy=policy)
            ways = [output.exit_index for output in found]
            if ways != expected:
                wrong.append(ways)

    threads = [
        threading.Thread(target=call, args=arguments)
        for arguments in (
            (dyninfer.AlwaysHard(), [1, 1]),
            (None, [0, 1]),
            (dyninfer.Forced([1, 0]), [1, 0]),
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert two_exits.policy == dyninfer.Threshold(0.5)


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (support.write_static_two_stages, {"body": set(), "head": {"boxes_xyxy", "class_scores"}}),
        (
            support.write_three_exits,
            {name: set() for name in ("body_1", "body_2")}
            | {name: {"easiness"} for name in ("router_1", "router_2")}
            | {name: {"boxes_xyxy", "class_scores"} for name in ("head_1", "head_2", "body_3")},
        ),
        (
            support.write_select_classifiers,
            {"chooser": {"choice_scores"}, "body_0": {"logits"}, "body_1": {"logits"}},
        ),
    ],
)
def test_only_what_decides_and_what_ends_a_way_is_made_for_the_host(
    tmp_path, monkeypatch, write, read
) -> None:
    opened = {}
    opens = OrtBackend.open

    def noting(self, name, stage, path, host_outputs):
        opened[name] = set(host_outputs)
        return opens(self, name, stage, path, host_outputs)

    monkeypatch.setattr(OrtBackend, "open", noting)
    with dyninfer.load(write(tmp_path / "made.dyn")):
        assert opened == read


@pytest.mark.parametrize(("max_batch", "reserved"), [(1, False), (2, True)])
def test_memory_for_parts_of_a_batch_is_reserved_where_there_are_parts(
    tmp_path, monkeypatch, max_batch, reserved
) -> None:
    asked = []
    monkeypatch.setattr(OrtBackend, "reserve", lambda _, places: asked.extend(places))
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=max_batch):
        found = [(place, spec.name, spec.shape) for place, spec in asked]
    value, images = ("value", ("batch", 3)), ("images", ("batch", 3, 8, 8))
    expected = [("from 0 to -1", *value), ("from 0 to 1", *images)]
    assert found == (expected if reserved else [])


def test_by_default_eight_images_run_at_once(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    bundle = Bundle.open(path)
    for count, runs in ((8, 1), (9, 2)):
        with dyninfer.load(path) as detector:
            detector.infer({"images": support.coded_images([(0.9, 0, 0)] * count)})
            assert detector.engines["first"].run_count == runs
    limited = []
    backend = open_backend()
    opening = backend.opening
    backend.opening = lambda manifest, *rest: limited.append(rest) or opening(manifest, *rest)
    Session(bundle, backend).close()
    assert limited == [(8, False)]
