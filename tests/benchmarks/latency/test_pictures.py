from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

import dyninfer
from dyninfer.benchmarks.latency.pictures import (
    SAMPLES,
    describe_pictures,
    exit_times,
    load_pictures,
    synthetic_pictures,
)
from dyninfer.benchmarks.latency.scenario_record import Scenario, ScenarioResult, WarmUp
from dyninfer.benchmarks.latency.slices import Slice, TimedCall
from dyninfer.benchmarks.latency.summary import summarise
from dyninfer.bundle.manifest import Manifest
from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.dataset import Sample, Samples
from tests import support


def test_made_up_pictures_are_the_same_in_every_run_and_differ_from_each_other() -> None:
    first, again = (synthetic_pictures(72, 128) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first.arrays, again.arrays, strict=True))
    assert (first.arrays[0] != first.arrays[1]).any()
    assert first.what == "synthetic pictures, 72x128 (height x width)"
    assert first.sizes == {"72x128": len(first.arrays)}
    assert (first.samples, list(first.paths)) == (None, [])


def test_made_up_pictures_are_smooth_like_photographs() -> None:
    image = synthetic_pictures(240, 320).arrays[0].astype(float)
    neighbours = np.corrcoef(image[:, :-1].ravel(), image[:, 1:].ravel())[0, 1]
    assert neighbours > 0.95
    assert image.std() > 20


def coded_files(folder: Path, count: int) -> list[Path]:
    """Pictures of one colour each: red is the easiness of ``write_two_exits``, blue tells them."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in range(count):
        path = folder / f"{number:03d}.png"
        picture = np.zeros((20, 20, 3), np.uint8)
        picture[..., 2] = round(255 * number / max(1, count - 1))
        picture[..., 0] = number
        assert cv2.imwrite(str(path), picture)
        paths.append(path)
    return paths


def samples_of(paths: list[Path], truth: Truth | None = None) -> Samples:
    return Samples(tuple(Sample(path, truth) for path in paths))


def test_few_of_many_pictures_are_kept_evenly_spread_and_the_rest_not_read(tmp_path: Path) -> None:
    paths = coded_files(tmp_path / "p", 9)
    for index in (1, 3, 5, 7):
        paths[index].write_bytes(b"not a picture")
    kept = load_pictures(samples_of(paths), 5)
    assert [path.name for path in kept.paths] == [f"{n:03d}.png" for n in (0, 2, 4, 6, 8)]
    assert kept.warnings == ()
    assert [int(array[0, 0, 0]) for array in kept.arrays] == [0, 2, 4, 6, 8]


def test_pictures_that_cannot_be_read_are_left_out_with_a_warning(tmp_path: Path) -> None:
    paths = coded_files(tmp_path / "p", 3)
    paths[1].write_bytes(b"not a picture")
    kept = load_pictures(samples_of(paths))
    assert len(kept.arrays) == len(kept.paths) == 2
    assert "unreadable: 1 picture:" in kept.warnings[0]
    paths[0].unlink()
    paths[2].unlink()
    with support.refuses(dyninfer.InputError, "no picture of 3", "--images"):
        load_pictures(samples_of(paths))


def result_of(manifest: Manifest, scenario: Scenario, ms: float) -> ScenarioResult:
    exits = (1 if scenario.hard_fraction else 0,) * scenario.batch
    call = TimedCall(0, 0, 0, round(ms * 1e6), exits, ({},) * scenario.batch)
    return summarise(scenario, WarmUp(1, 0.1, True), [Slice((call,) * 3, 3 * ms)], manifest)


def test_times_of_exits_are_those_of_single_images_in_a_closed_loop(
    two_exits: dyninfer.Detector,
) -> None:
    manifest = two_exits.manifest
    easy, hard = Scenario(1, 0.0), Scenario(1, 1.0)
    others = [
        result_of(manifest, s, 99)
        for s in (
            Scenario(8, 1.0),
            Scenario(1, 1.0, 2),
            Scenario(1, 1.0, rate_per_s=5.0),
            Scenario(1, 1.0, decode=True),
            Scenario(1, 0.5),
            Scenario(1, None),
        )
    ]
    assert exit_times([result_of(manifest, easy, 3), *others], 2) is None
    found = exit_times([*others, result_of(manifest, easy, 3), result_of(manifest, hard, 7)], 2)
    assert found is not None
    assert found.ms == ((3, 3, 3), (7, 7, 7))


@pytest.fixture
def ends(two_exits: dyninfer.Detector) -> list[ScenarioResult]:
    manifest = two_exits.manifest
    return [result_of(manifest, Scenario(1, 0.0), 3), result_of(manifest, Scenario(1, 1.0), 7)]


def test_made_up_pictures_have_no_curve_and_say_why(
    two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    found, missing = describe_pictures(two_exits, synthetic_pictures(20, 30), ends)
    assert (found.count, found.easiness, found.curve, found.samples) == (8, (), (), ())
    assert set(missing) == {"easiness", "curve"}
    assert "--images" in missing["curve"]


def test_one_exit_and_one_picture_have_no_curve(
    tmp_path: Path, two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    paths = coded_files(tmp_path / "p", 2)
    with dyninfer.load(support.write_static(tmp_path / "one.dyn")) as static:
        found, missing = describe_pictures(static, load_pictures(samples_of(paths)), ends)
    assert found.curve == ()
    assert "no router" in missing["curve"]
    found, missing = describe_pictures(two_exits, load_pictures(samples_of(paths[:1])), ends)
    assert found.curve == ()
    assert "one picture" in missing["curve"]


def test_the_curve_runs_from_all_easy_to_all_hard_at_measured_times(
    tmp_path: Path, two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    pictures = load_pictures(samples_of(coded_files(tmp_path / "p", 11)))
    found, missing = describe_pictures(two_exits, pictures, ends)
    shares = [point.hard_fraction for point in found.curve]
    assert shares == sorted(set(shares))
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert len(shares) == 12
    for point in found.curve:
        assert point.mean_ms == pytest.approx(3 + 4 * point.hard_fraction)
        assert point.agreement is not None
        assert (point.ap, point.ap50) == (None, None)
    assert found.curve[-1].agreement == 1
    (easiness,) = found.easiness
    assert easiness == pytest.approx(np.linspace(0, 1, 11), abs=0.01)
    assert "--annotations" in missing["ap"]


def test_labelled_pictures_add_precision_to_the_curve(
    tmp_path: Path, two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    truth = Truth(np.array([[0, 0, 20, 20]], np.float32), np.array([1]))
    pictures = load_pictures(samples_of(coded_files(tmp_path / "p", 5), truth))
    found, missing = describe_pictures(two_exits, pictures, ends)
    assert "ap" not in missing
    assert all(point.ap is not None and point.ap50 is not None for point in found.curve)


def test_three_exits_are_timed_anew(tmp_path: Path, three_exits: dyninfer.Detector) -> None:
    pictures = load_pictures(samples_of(coded_files(tmp_path / "p", 4)))
    steps: list[str] = []
    found, _ = describe_pictures(three_exits, pictures, [], steps.append)
    assert "timing every exit" in steps
    assert len(found.easiness) == 2
    assert found.curve[0].mean_ms > 0


def test_samples_are_named_rightly_where_a_picture_has_gone_meanwhile(
    tmp_path: Path, two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    paths = coded_files(tmp_path / "p", 5)
    pictures = load_pictures(samples_of(paths))
    paths[1].unlink()
    found, _ = describe_pictures(two_exits, pictures, ends)
    assert [sample.name for sample in found.samples] == [f"{n:03d}.png" for n in (0, 2, 3, 4)]
    reds = []
    for sample in found.samples:
        data = np.frombuffer(base64.b64decode(sample.jpeg_base64), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None
        reds.append(float(picture[..., 2].mean()) / 255)
    assert reds == pytest.approx([0, 0.5, 0.75, 1], abs=0.03)


def test_samples_are_small_spread_over_the_easiness_and_hold_no_path(
    tmp_path: Path, two_exits: dyninfer.Detector, ends: list[ScenarioResult]
) -> None:
    paths = coded_files(tmp_path / "secret", 40)
    assert cv2.imwrite(str(paths[0]), np.zeros((400, 400, 3), np.uint8))
    found, _ = describe_pictures(two_exits, load_pictures(samples_of(paths)), ends)
    assert len(found.samples) == SAMPLES
    assert found.samples[0].easiness < found.samples[-1].easiness
    assert found.samples[0].easiness == pytest.approx((0.0,))
    assert found.samples[-1].easiness == pytest.approx((1.0,))
    for sample in found.samples:
        assert "/" not in sample.name
        data = np.frombuffer(base64.b64decode(sample.jpeg_base64), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape[1] <= 160
