"""What ``timings_ms`` says: every step once, and together no more than the call took."""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer import AlwaysEasy, AlwaysHard, Threshold
from dyninfer.spans import COPY, DECODE, GATHER, READ_BACK, Span, on_device, share_out, total_ms
from tests import support
from tests.engines.trt.rig import make_rig

POLICIES = (AlwaysEasy(), AlwaysHard(), Threshold(0.5))


def pictures_of(easiness: list[float], size: int = 8) -> list[np.ndarray]:
    """Red is the first channel of the tensor, which the tiny router takes for the easiness."""
    shape = (size, size, 3)
    return [np.full(shape, (0, 0, round(255 * value)), np.uint8) for value in easiness]


def shares(spans: list[Span], rows: int) -> list[dict[str, float]]:
    timings: list[dict[str, float]] = [{} for _ in range(rows)]
    share_out(spans, timings)
    return timings


def test_nothing_is_shared_out_where_nothing_ran() -> None:
    assert shares([], 2) == [{}, {}]
    assert on_device([], []) == []
    assert total_ms({}, decode=True) == 0


def test_a_span_is_shared_equally_and_steps_of_one_name_add_up() -> None:
    spans = [("first", 6.0, [0, 1, 2]), (GATHER, 1.0, [1]), (GATHER, 4.0, [1, 2])]
    assert shares(spans, 3) == [
        {"first": 2.0},
        {"first": 2.0, GATHER: 3.0},
        {"first": 2.0, GATHER: 2.0},
    ]


SPANS = st.lists(
    st.tuples(
        st.sampled_from(["first", "head", GATHER, READ_BACK]),
        st.floats(0, 1e3),
        st.lists(st.integers(0, 4), min_size=1, unique=True),
    )
)


@given(spans=SPANS)
def test_shares_of_all_rows_add_up_to_the_spans(spans: list[Span]) -> None:
    found = sum(total_ms(timings, decode=True) for timings in shares(spans, 5))
    assert found == pytest.approx(sum(ms for _, ms, _ in spans))


def test_without_a_device_clock_the_hosts_spans_stay() -> None:
    spans = [("first", 6.0, [0]), (READ_BACK, 1.0, [0])]
    assert on_device(spans, ()) == spans


def test_the_devices_clock_replaces_the_hosts_and_what_it_worked_is_not_waiting() -> None:
    host = [
        ("first", 0.1, [0, 1]),
        (READ_BACK, 3.0, [0, 1]),
        (GATHER, 0.2, [1]),
        ("second", 0.1, [1]),
        (READ_BACK, 9.0, [1]),
    ]
    device = [(COPY, 1.0), ("first", 2.0), (GATHER, 0.5), (COPY, 0.5), ("second", 5.0)]
    assert on_device(host, device) == [
        (COPY, 1.0, [0, 1]),
        ("first", 2.0, [0, 1]),
        (GATHER, 0.5, [1]),
        (COPY, 0.5, [1]),
        ("second", 5.0, [1]),
        (READ_BACK, 0.75, [0, 1]),  # a quarter of 12 ms was waiting for nothing but values
        (READ_BACK, 2.25, [1]),
    ]


def test_a_host_that_never_waited_longer_than_the_device_worked_read_back_in_no_time() -> None:
    host = [("first", 5.0, [0]), (READ_BACK, 1.0, [0])]
    assert on_device(host, [("first", 4.0)]) == [("first", 4.0, [0]), (READ_BACK, 0.0, [0])]


def test_decoding_counts_only_where_it_is_asked_for() -> None:
    timings = {DECODE: 5.0, "first": 2.0}
    assert total_ms(timings, decode=True) == 7
    assert total_ms(timings, decode=False) == 2


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_every_step_of_a_mixed_batch_has_a_name(two_exits, policy) -> None:
    two_exits.policy = policy
    found = two_exits(pictures_of([0.9, 0.1, 0.9]))
    for detections in found:
        stages = {"first", "router"} | ({"second"} if detections.exit_index else {"head"})
        split = {GATHER} if isinstance(policy, Threshold) else set()
        expected = {"prepare", READ_BACK, "postprocess"} | stages | split
        assert set(detections.timings_ms) == expected
        assert all(ms >= 0 for ms in detections.timings_ms.values())
    assert {d.exit_index for d in found} == {AlwaysEasy(): {0}, AlwaysHard(): {1}}.get(
        policy, {0, 1}
    )


def test_decoding_is_timed_where_a_path_was_given(two_exits, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.zeros((60, 80, 3), np.uint8))
    assert next(iter(two_exits(path).timings_ms)) == DECODE
    mixed = two_exits([path, np.zeros((9, 9, 3), np.uint8), str(path)])
    assert [DECODE in found.timings_ms for found in mixed] == [True, False, True]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("count", [1, 7])
def test_spans_of_a_call_are_most_of_its_time_and_never_more(detector, policy, count) -> None:
    detector.policy = policy
    pictures = support.random_pictures(count)
    shares_of_time = []
    for _ in range(20):
        start = time.perf_counter_ns()
        found = detector(pictures)
        elapsed_ms = (time.perf_counter_ns() - start) / 1e6
        spans_ms = sum(total_ms(result.timings_ms, decode=True) for result in found)
        assert spans_ms <= elapsed_ms
        shares_of_time.append(spans_ms / elapsed_ms)
    assert max(shares_of_time) > 0.75


def test_a_gpus_spans_are_its_own_and_do_not_overlap(tmp_path: Path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with make_rig().detector(path) as detector:
        easy, hard = detector(pictures_of([0.9, 0.1]))
    # the stand-in's clock: 1 ms for a stage, 0.01 ms for a copy, each shared by its rows
    engine_ms = {"first": 0.5, "router": 0.5, COPY: 0.005, GATHER: 0.01}
    for found, expected in (
        (easy, engine_ms | {"head": 1.0}),
        (hard, engine_ms | {"second": 1.0}),
    ):
        assert {name: found.timings_ms[name] for name in expected} == pytest.approx(expected)
        assert set(found.timings_ms) == {"prepare", READ_BACK, "postprocess", *expected}


def test_images_for_a_later_exit_are_copied_for_those_that_reach_it(tmp_path: Path) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    with make_rig().detector(path) as detector:
        easy, hard = detector(pictures_of([0.9, 0.1]))
    assert easy.timings_ms[COPY] == pytest.approx(0.005)
    assert hard.timings_ms[COPY] == pytest.approx(0.005 + 0.01)


def test_marks_of_a_stage_that_this_batch_did_not_run_are_left_out() -> None:
    spans = [("first", 1.0, (0, 1)), (READ_BACK, 4.0, (0, 1))]
    seen = on_device(spans, [(COPY, 5.0), ("second", 7.0), (COPY, 1.0), ("first", 2.0)])
    assert [name for name, _, _ in seen] == [COPY, "first", READ_BACK]
    assert seen[0][1] == 1.0


def test_a_stage_that_was_run_by_itself_leaves_no_time_behind(tmp_path: Path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with make_rig().detector(path) as detector:
        (easy,) = detector(pictures_of([0.9]))
        detector.run_stage("second", {"images": np.zeros((1, 3, 8, 8), np.float32)})
        (again,) = detector(pictures_of([0.9]))
    assert set(again.timings_ms) == set(easy.timings_ms)
    assert "second" not in again.timings_ms
