from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import CascadeRoute, Exit, Task
from dyninfer.errors import InputError
from dyninfer.evaluation import runs
from dyninfer.evaluation.coco import Truth, average_precision
from dyninfer.evaluation.dataset import Samples, load_samples
from dyninfer.evaluation.outcomes import read_pictures, run_samples
from dyninfer.evaluation.runs import (
    Timed,
    WayTimes,
    evaluate_policy,
    last_way_alone_ms,
    measure_points,
    measure_way_times,
    pooled_times,
    settled_way_times,
    spread_policies,
)
from dyninfer.evaluation.scoring import SCORING
from dyninfer.results.answers import Detections
from dyninfer.routing.goals import HardFraction
from dyninfer.routing.policy import AlwaysEasy, AlwaysHard, LeaveAt, Threshold
from dyninfer.runtime.plan import alone, stages_of
from tests import support
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.dyninfer.evaluation.test_routed_precision import CLASSES, random_pictures
from tests.dyninfer.monitoring import watching
from tests.support import refuses, write_static

CLASS_NAMES = ("left", "right")


def by_pycocotools(truths: list[Truth], found: list[Detections]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def wide(boxes: Any) -> list[list[float]]:
        boxes = np.asarray(boxes, np.float64)
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()

    objects = [
        {"image_id": n, "category_id": int(c), "bbox": box, "area": box[2] * box[3], "iscrowd": k}
        for n, truth in enumerate(truths)
        for box, c, k in zip(
            wide(truth.boxes_xyxy), truth.class_ids, np.asarray(truth.crowd, int).tolist(),
            strict=True,
        )
    ]  # fmt: skip
    results = [
        {"image_id": n, "category_id": int(c), "bbox": box, "score": float(s)}
        for n, entry in enumerate(found)
        for box, c, s in zip(
            wide(entry.boxes_xyxy), entry.class_ids, entry.confidences, strict=True
        )
    ]
    reference = COCO()
    reference.dataset = {
        "images": [{"id": n} for n in range(len(truths))],
        "categories": [{"id": n, "name": str(n)} for n in range(CLASSES)],
        "annotations": [{"id": n, **entry} for n, entry in enumerate(objects, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:6].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_the_six_numbers_are_those_of_pycocotools(seed: int) -> None:
    truths, found = random_pictures(seed, 20, exits=1)
    first = [of_picture[0] for of_picture in found]
    ours = average_precision(truths, first, CLASSES)
    six = (ours.ap, ours.ap50, ours.ap75, ours.small, ours.medium, ours.large)
    expected = [
        None if value < 0 else pytest.approx(value) for value in by_pycocotools(truths, first)
    ]
    assert list(six) == expected


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    pictures = write_coded(tmp_path / "pictures", (0, 51, 204, 255))
    return load_samples(pictures, write_labels(tmp_path / "labels.json", pictures), CLASS_NAMES)


def test_a_policy_is_measured_as_it_runs(two_exits: dyninfer.Detector, samples: Samples) -> None:
    expected = {AlwaysEasy(): (1, 0), AlwaysHard(): (0, 1), Threshold(0.5): (None, 0.5)}
    for policy, (ap, hard) in expected.items():
        two_exits.policy = policy
        result = evaluate_policy(two_exits, samples, time_limit=2)
        assert result.policy == str(policy)
        assert result.exit_shares == (1 - hard, hard)
        assert result.hard_fraction == hard
        assert result.mean_ms > 0
        if ap is not None:
            assert result.scores["AP"] == pytest.approx(ap)


def test_the_hard_share_is_that_of_the_last_of_three_exits(
    three_exits: dyninfer.Detector, samples: Samples
) -> None:
    for way in range(3):
        three_exits.policy = LeaveAt(way)
        result = evaluate_policy(three_exits, samples, time_limit=1)
        assert result.exit_shares == tuple(float(index == way) for index in range(3))
        assert result.hard_fraction == (way == 2)


@pytest.mark.parametrize(
    ("limit", "timed"), [(1, [0]), (2, [0, 2]), (3, [0, 2]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_times_are_of_pictures_spread_evenly_up_to_a_limit(
    two_exits: dyninfer.Detector, samples: Samples, monkeypatch: pytest.MonkeyPatch, limit, timed
) -> None:
    reds = []

    def once(_detector: object, picture: Any) -> tuple[float, None]:
        reds.append(int(picture[0, 0, 2]))
        return float(10 ** len(reds)), None

    monkeypatch.setattr(runs, "time_once", once)
    result = evaluate_policy(two_exits, samples, time_limit=limit)
    assert reds == [(0, 51, 204, 255)[place] for place in timed]
    assert result.mean_ms == np.mean([10.0 ** (n + 1) for n in range(len(timed))])


@pytest.mark.parametrize(("times", "known"), [((9.9, 10.1), False), ((10.0, 10.0), True)])
def test_the_mean_of_a_way_is_known_where_its_interval_is_narrow(times, known) -> None:
    assert WayTimes((times,), ({},)).known is known
    sure = (10.0, 10.0)
    assert WayTimes((sure, times), ({}, {})).known is known


def test_an_interval_is_narrow_up_to_its_share_of_the_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wide = 10 * runs.NARROW
    for reach, known in ((0.999 * wide, True), (1.001 * wide, False)):
        monkeypatch.setattr(runs, "mean_interval", lambda _, reach=reach: (10 - reach, 10 + reach))
        assert WayTimes(((10.0, 10.0),), ({},)).known is known


def test_a_static_detector_has_a_precision(tmp_path: Path, samples: Samples) -> None:
    with dyninfer.load(write_static(tmp_path / "static.dyn")) as detector:
        result = evaluate_policy(detector, samples, time_limit=10)
    assert result.scores["AP"] == pytest.approx(1)
    assert result.exit_shares == (1,)


def test_unreadable_pictures_are_left_out_with_a_warning(
    two_exits: dyninfer.Detector, samples: Samples
) -> None:
    samples.items[0].path.write_bytes(b"")
    result = evaluate_policy(two_exits, samples, time_limit=10)
    assert len(result.samples.items) == 3
    assert "000.png" in result.samples.warnings[-1]


def test_nothing_to_find_is_refused(two_exits: dyninfer.Detector, samples: Samples) -> None:
    crowd = Truth(np.ones((1, 4)), np.zeros(1, np.int64), np.ones(1, np.bool_))
    only_crowds = Samples(tuple(type(item)(item.path, crowd) for item in samples.items))
    with refuses(InputError, "no object", "4 pictures"):
        SCORING[Task.DETECT].check(only_crowds, CLASS_NAMES)
    for item in samples.items:
        item.path.write_bytes(b"")
    with refuses(InputError, "0 pictures"):
        evaluate_policy(two_exits, samples, time_limit=10)


def test_the_settings_run_from_all_easy_to_all_hard() -> None:
    policies = spread_policies()
    assert (policies[0], policies[-1]) == (AlwaysEasy(), AlwaysHard())
    assert policies[1:-1] == [HardFraction(share) for share in (0.25, 0.5, 0.75)]


def test_every_policy_is_run_and_its_precision_is_that_of_its_exits(
    two_exits: dyninfer.Detector, tmp_path: Path
) -> None:
    pictures = write_coded(tmp_path / "pictures", (0, 51, 204, 255))
    labels = write_labels(tmp_path / "labels.json", pictures)
    samples = load_samples(pictures, labels, ("left", "right"))
    scores = run_samples(two_exits, samples).scores
    assert scores is not None
    policies = [AlwaysEasy(), Threshold(0.5), AlwaysHard()]
    images = list(read_pictures(samples.items))
    points = measure_points(two_exits, images, policies, scores)
    assert [point.policy for point in points] == policies
    assert [point.hard_share for point in points] == [0, 0.5, 1]
    assert points[0].scores.primary == pytest.approx(1)
    assert points[2].scores.primary == 0
    assert points[1].scores == scores.at([1, 1, 0, 0])
    for point in points:
        assert len(point.timed.ms) == len(point.timed.answers) == 4
        assert point.mean_ms > 0
    times = WayTimes.of([points[0].timed, points[-1].timed])
    assert times.ms == (points[0].timed.ms, points[2].timed.ms)
    engines = {"first", "router", "second"}
    assert set(times.step_ms[1]) == {"prepare", *engines, "read-back", "postprocess"}


def test_times_of_equal_work_are_pooled() -> None:
    spent = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    exits = np.array([[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(pooled_times(spent, exits), [[2, 2], [2, 12], [10, 12]])


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


def answered(ms: Sequence[float]) -> Timed:
    return Timed(tuple(ms), tuple(watching.answer(0.9, 0, []) for _ in ms))


@pytest.mark.parametrize(
    ("passes", "used"),
    [
        ([(10.0, 10.1, 9.9, 10.0)], 1),
        ([(10.0, 16.8, 9.8, 12.0), *[(10.0, 10.1, 9.9, 10.0)] * 9], 6),
        ([(10.0, 30.0, 10.0, 30.0), (10.0, 50.0, 10.0, 50.0)] * 5, 10),
    ],
)
def test_ways_are_timed_until_their_means_are_known(
    three_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch, passes, used
) -> None:
    monkeypatch.setattr(runs, "time_policies", _each_pass(iter(passes)))
    read = []
    times = settled_way_times(three_exits, lambda: read.append(1) or [])
    assert len(read) == used
    assert times.ms == (tuple(ms for taken in passes[:used] for ms in taken),) * 3
    assert times.known is (used < 10)


def _each_pass(left: Iterator[tuple[float, ...]]) -> Callable[..., list[Timed]]:
    def run(_detector: object, _pictures: object, policies: Sequence[object], _: object):
        taken = next(left)
        return [answered(taken) for _ in policies]

    return run


@pytest.mark.parametrize(("spent_s", "passes"), [((31.0,), 1), ((30.0, 30.5), 2), ((1, 30.5), 2)])
def test_slow_ways_are_not_timed_again(
    three_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch, spent_s, passes
) -> None:
    monkeypatch.setattr(runs, "time_policies", _each_pass(iter([(10.0, 30.0)] * passes)))
    clock = iter([100.0, *(100.0 + spent for spent in spent_s)])
    monkeypatch.setattr(runs.time, "perf_counter", lambda: next(clock))
    times = settled_way_times(three_exits, lambda: [])
    assert not times.known
    assert len(times.ms[0]) == 2 * passes


def test_a_call_is_timed_in_milliseconds(
    two_exits: dyninfer.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([3_000_000, 10_500_000])
    monkeypatch.setattr(two_exits, "answers", lambda _images, policy: (policy,))
    monkeypatch.setattr(runs.time, "perf_counter_ns", lambda: next(clock))
    assert runs.time_once(two_exits, np.zeros((8, 8, 3), np.uint8), AlwaysHard()) == (
        7.5,
        AlwaysHard(),
    )


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


def test_the_last_of_three_exits_skips_what_only_those_before_it_need(tmp_path: Path) -> None:
    manifest = Bundle.open(support.write_three_exits(tmp_path / "three.dyn")).manifest
    steps = {"prepare": 1.0, "body_1": 2.0, "router_1": 4.0, "body_2": 8.0, "router_2": 16.0}
    steps |= {"body_3": 32.0, "postprocess": 64.0}
    half = {name: spent / 2 for name, spent in steps.items()}
    times = WayTimes(((5.0,), (50.0,), (127.0,)), (half, half, steps))
    assert last_way_alone_ms(times, manifest) == pytest.approx(1 + 2 + 32 + 64)


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
    times = WayTimes(((15.0,), (35.5,)), ({"prepare": 1.0}, steps))
    assert last_way_alone_ms(times, Bundle.open(path).manifest) == pytest.approx(22.5)
