from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, InputError, Postprocess, Threshold
from tests import support

EVERYTHING = Postprocess(confidence=0.0005, iou=0.65, several_labels=True)


def middle_easiness(detector: dyninfer.Detector, images: np.ndarray) -> float:
    """A threshold that sends about half of the images on, well away from any easiness."""
    detector.policy = AlwaysEasy()
    easiness = np.sort([o.easiness for o in detector.infer({"images": images})])
    gap = int(np.argmax(np.diff(easiness)))
    assert easiness[gap + 1] - easiness[gap] > 1e-6
    return float((easiness[gap] + easiness[gap + 1]) / 2)


def assert_same_raw(a: list[dyninfer.RawOutput], b: list[dyninfer.RawOutput]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.exit_index == y.exit_index
        np.testing.assert_allclose(x.easiness, y.easiness, rtol=0, atol=1e-5)
        for name, array in x.outputs.items():
            np.testing.assert_allclose(array, y.outputs[name], rtol=0, atol=1e-3)


def assert_same_detections(a: list[dyninfer.Detections], b: list[dyninfer.Detections]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.exit_index == y.exit_index
        assert x.class_names == y.class_names
        np.testing.assert_array_equal(x.class_ids, y.class_ids)
        np.testing.assert_allclose(x.boxes_xyxy, y.boxes_xyxy, rtol=0, atol=1e-3)
        np.testing.assert_allclose(x.confidences, y.confidences, rtol=0, atol=1e-5)
        np.testing.assert_allclose(x.easiness, y.easiness, rtol=0, atol=1e-5)


def test_random_tensors_one_by_one_in_batches_and_shuffled(detector) -> None:
    images = (
        support.random_images(9, 64, 96)
        * np.linspace(0.1, 1, 9, dtype=np.float32)[:, None, None, None]
    )
    detector.policy = Threshold(middle_easiness(detector, images))
    whole = detector.infer({"images": images})
    assert {output.exit_index for output in whole} == {0, 1}
    single = [detector.infer({"images": image[None]})[0] for image in images]
    assert_same_raw(whole, single)
    order = np.random.default_rng(1).permutation(len(images))
    shuffled = detector.infer({"images": images[order]})
    assert_same_raw([whole[row] for row in order], shuffled)


def test_pictures_of_several_sizes_one_by_one_in_batches_and_shuffled(detector) -> None:
    pictures = support.random_pictures(9)
    detector.policy = AlwaysEasy()
    easiness = np.sort([d.easiness for d in detector(pictures)])
    detector.policy = Threshold(float((easiness[4] + easiness[5]) / 2))
    whole = detector(pictures, options=EVERYTHING)
    assert {d.exit_index for d in whole} == {0, 1}
    assert all(len(d) for d in whole)
    assert_same_detections(whole, [detector(picture, options=EVERYTHING) for picture in pictures])
    assert_same_detections(whole, list(detector.stream(pictures, options=EVERYTHING)))
    order = np.random.default_rng(1).permutation(len(pictures))
    shuffled = detector([pictures[row] for row in order], options=EVERYTHING)
    assert_same_detections([whole[row] for row in order], shuffled)


@pytest.mark.slow
def test_photos_one_by_one_in_batches_and_shuffled(exported) -> None:
    paths = support.photo_paths(8)
    with dyninfer.load(exported("dy-yolov7"), max_batch=3) as detector:
        detector.policy = AlwaysEasy()
        easiness = np.sort([d.easiness for d in detector(paths)])
        detector.policy = Threshold(float((easiness[3] + easiness[4]) / 2))
        whole = detector(paths, options=EVERYTHING)
        assert {d.exit_index for d in whole} == {0, 1}
        single = [detector(path, options=EVERYTHING) for path in paths]
        assert_same_detections(whole, single)
        assert_same_detections(whole[::-1], detector(paths[::-1], options=EVERYTHING))


def test_detections_are_the_postprocessed_raw_outputs_in_image_pixels(detector) -> None:
    picture = support.random_pictures(1, seed=5)[0]
    spec = detector.manifest.image_inputs["images"]
    detector.policy = AlwaysHard()
    raw = detector.infer({"images": spec.prepare(picture)[None]})[0]
    boxes, confidences, ids = EVERYTHING(raw.outputs["boxes_xyxy"], raw.outputs["class_scores"])
    found = detector(picture, options=EVERYTHING)
    placed = spec.place(picture.shape[1], picture.shape[0])
    assert len(found) == len(boxes) > 0
    np.testing.assert_allclose(found.boxes_xyxy, placed.to_image(boxes), atol=1e-4)
    np.testing.assert_allclose(found.confidences, confidences, atol=1e-7)
    np.testing.assert_array_equal(found.class_ids, ids)
    assert found.class_names == tuple(detector.class_names[i] for i in ids)
    assert (np.diff(found.confidences) <= 0).all()
    assert (found.boxes_xyxy >= 0).all()
    assert (found.boxes_xyxy[:, 2] <= picture.shape[1]).all()
    steps = {"prepare", "first", "router", "second", "read-back", "postprocess"}
    assert set(found.timings_ms) == steps
    assert all(value > 0 for value in found.timings_ms.values())


def test_paths_arrays_and_mixed_lists_are_the_same(detector, tmp_path) -> None:
    pictures = support.random_pictures(3)
    paths = []
    for index, picture in enumerate(pictures):
        paths.append(tmp_path / f"{index}.png")
        cv2.imwrite(str(paths[-1]), picture)
    whole = detector(pictures, options=EVERYTHING)
    mixed: list = [paths[0], pictures[1], str(paths[2])]
    assert_same_detections(whole, detector(mixed, options=EVERYTHING))
    assert_same_detections(whole, detector(tuple(paths), options=EVERYTHING))


def test_no_images_give_no_detections(detector) -> None:
    assert detector([]) == []
    assert list(detector.stream(iter(()))) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (5, 7, 4), (5, 7, 1), (2, 30_000, 3)])
def test_grey_alpha_tiny_and_very_wide_arrays_are_accepted(detector, shape) -> None:
    found = detector(np.full(shape, 90, np.uint8), options=EVERYTHING)
    width, height = shape[1], shape[0]
    assert (found.boxes_xyxy <= [width, height, width, height]).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_alpha_and_16_bit_files_are_accepted(detector, tmp_path, channels, dtype) -> None:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.full((30, 40, channels), np.iinfo(dtype).max // 2, dtype))
    assert detector(path).exit_index in (0, 1)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        (np.zeros((4, 4, 3), np.uint16), ("uint16", "257")),
        (np.zeros((4, 4, 3), np.float32), ("float32", "infer")),
        (np.zeros((1, 4, 4, 3), np.uint8), ("list",)),
        (None, ("NoneType",)),
        (3, ("int",)),
        ([None], ("NoneType",)),
        ([np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 3), np.uint8)], ("no pixels", "1")),
        ("nothing.jpg", ("nothing.jpg", "does not exist")),
        (Path(__file__), ("test_detector.py", "not a picture")),
        (Path(__file__).parent, ("folder",)),
    ],
)
def test_what_is_not_an_image_is_refused_and_the_detector_goes_on(two_exits, image, parts) -> None:
    with support.refuses(InputError, *parts):
        two_exits(image)
    assert two_exits(np.zeros((4, 4, 3), np.uint8)).exit_index == 1


GOOD = np.zeros((2, 3, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        ({}, ("[]", "images")),
        ({"image": GOOD}, ("'image'", "'images'", "(batch, 3, 8, 8)")),
        ({"images": GOOD, "extra": GOOD}, ("extra",)),
        ({"images": GOOD[0]}, ("(3, 8, 8)", "(batch, 3, 8, 8)")),
        ({"images": GOOD[:, :, :4]}, ("(2, 3, 4, 8)",)),
        ({"images": GOOD[:, :2]}, ("(2, 2, 8, 8)",)),
        ({"images": GOOD.astype(np.float64)}, ("float64", "float32")),
        ({"images": GOOD.astype(np.uint8)}, ("uint8",)),
        ({"images": GOOD.astype(object)}, ("object",)),
        ({"images": GOOD[:0]}, ("empty",)),
        ({"images": GOOD.tolist()}, ("list", "numpy.asarray")),
        ({"images": torch.from_numpy(GOOD)}, ("Tensor", "tensor.cpu().numpy()")),
        (GOOD, ("inputs are ndarray", "infer({'images': batch})")),
        ({"images": np.float32(1)}, ("images",)),
        ({"images": np.array(1, np.float32)}, ("images is ndarray, expected an array",)),
        ({"images": np.full_like(GOOD, np.nan)}, ("NaN",)),
        ({"images": np.full_like(GOOD, np.inf)}, ("infinity",)),
    ],
)
def test_prepared_tensors_that_do_not_fit_are_refused(two_exits, inputs, parts) -> None:
    with support.refuses(InputError, *parts):
        two_exits.infer(inputs)
    assert all(engine.run_count == 0 for engine in two_exits.engines.values())
    assert len(two_exits.infer({"images": GOOD})) == 2


def test_a_single_nan_among_many_values_is_found(two_exits) -> None:
    images = GOOD.copy()
    images[1, 2, 7, 7] = np.nan
    with support.refuses(InputError, "NaN"):
        two_exits.infer({"images": images})


def test_two_image_inputs_are_both_needed_and_must_agree(three_exits) -> None:
    with support.refuses(InputError, "images_2"):
        three_exits.infer({"images": GOOD})
    with support.refuses(InputError, "images_2"):
        three_exits.infer({"images": GOOD, "images_2": np.zeros((3, 3, 4, 4), np.float32)})


def test_tensors_may_be_views_and_are_not_changed(detector) -> None:
    images = support.random_images(3, 64, 96)
    wide = np.zeros((3, 3, 64, 192), np.float32)
    wide[..., ::2] = images
    before = wide.copy()
    assert_same_raw(detector.infer({"images": images}), detector.infer({"images": wide[..., ::2]}))
    np.testing.assert_array_equal(wide, before)


def test_results_outlive_the_next_call(detector) -> None:
    images = support.random_images(4, 64, 96)
    first = detector.infer({"images": images[:2]})
    kept = [{n: a.copy() for n, a in output.outputs.items()} for output in first]
    detector.infer({"images": images[2:]})
    for output, copy in zip(first, kept, strict=True):
        for name, array in output.outputs.items():
            np.testing.assert_array_equal(array, copy[name])


def test_a_policy_takes_effect_at_the_next_call_and_a_bad_one_not_at_all(two_exits) -> None:
    images = support.coded_images([(0.4, 0, 0), (0.6, 0, 1)])

    def exits() -> list[int]:
        return [output.exit_index for output in two_exits.infer({"images": images})]

    assert two_exits.policy == Threshold(0.5)
    assert exits() == [1, 0]
    for policy, expected in (
        (AlwaysEasy(), [0, 0]),
        (AlwaysHard(), [1, 1]),
        (Threshold(0.3), [0, 0]),
        (Threshold((0.7,)), [1, 1]),
    ):
        two_exits.policy = policy
        assert exits() == expected
    for wrong in (0.5, None, "hard", Threshold):
        with pytest.raises(InputError):
            two_exits.policy = wrong
    with support.refuses(InputError, "dyninfer.parse_speed('30%')"):
        two_exits.policy = "30%"
    with pytest.raises(dyninfer.PolicyError):
        two_exits.policy = Threshold((0.1, 0.2))
    assert two_exits.policy == Threshold((0.7,))


def test_threads_with_detectors_of_their_own_and_one_that_is_shared(small_bundle) -> None:
    images = support.random_images(6, 64, 96)
    with dyninfer.load(small_bundle, max_batch=4) as shared:
        middle = Threshold(middle_easiness(shared, images))
        policies = [AlwaysEasy(), AlwaysHard(), middle]
        serial = {}
        for index, policy in enumerate(policies):
            shared.policy = policy
            serial[index] = shared.infer({"images": images})
        shared.policy = middle

        def work(job: int) -> None:
            if job % 2:
                for _ in range(4):
                    assert_same_raw(shared.infer({"images": images}), serial[2])
                return
            with dyninfer.load(small_bundle, max_batch=2) as own:
                for index in (0, 1, 2, job % 3):
                    own.policy = policies[index]
                    assert_same_raw(own.infer({"images": images}), serial[index])

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(8)))


def test_a_policy_may_change_while_another_thread_predicts(tmp_path) -> None:
    """Every call follows one policy from its start to its end, whichever it was."""
    codes = [(0.25, 0, 0), (0.75, 0, 1), (0.4, 0, 2)]
    images = support.coded_images(codes)
    allowed = {Threshold(0.5): (1, 0, 1), AlwaysEasy(): (0, 0, 0), AlwaysHard(): (1, 1, 1)}
    stop, seen, wrong = threading.Event(), set(), []

    def predict() -> None:
        while not stop.is_set():
            exits = tuple(output.exit_index for output in detector.infer({"images": images}))
            seen.add(exits)
            if exits not in allowed.values():
                wrong.append(exits)

    bundle = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(bundle, max_batch=1) as detector:  # a call is three batches
        threads = [threading.Thread(target=predict) for _ in range(3)]
        for thread in threads:
            thread.start()
        for policy in itertools.islice(itertools.cycle(allowed), 3000):
            detector.policy = policy
            if len(seen) == 3 and len(wrong):
                break
        for policy, exits in allowed.items():
            detector.policy = policy
            for _ in range(1000):
                if exits in seen:
                    break
                threading.Event().wait(0.005)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert seen == set(allowed.values())


def test_a_closed_detector_refuses_and_frees_its_engines(workspaces, tmp_path) -> None:
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn")) as detector:
        detector.infer({"images": GOOD})
        assert detector.engines
        assert all(workspace.allocated_bytes for workspace in workspaces)
    assert not detector.engines
    assert [workspace.allocated_bytes for workspace in workspaces] == [0]
    detector.close()
    with support.refuses(InputError, "closed"):
        detector.infer({"images": GOOD})
    with support.refuses(InputError, "closed"):
        detector(np.zeros((4, 4, 3), np.uint8))


def test_a_batch_limit_below_one_is_refused(tmp_path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with support.refuses(InputError, "max_batch"):
        dyninfer.load(path, max_batch=0)


def test_detections_check_themselves_and_become_json() -> None:
    box, score, ids = np.ones((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int64)
    found = dyninfer.Detections(box, score, ids, ("cat",), 0.5, 1, timings_ms={"first": 1.23456})
    assert len(found) == 1
    assert found.to_dict() == {
        "easiness": 0.5,
        "exit_index": 1,
        "degraded": False,
        "detections": [
            {
                "box_xyxy": [1.0, 1.0, 1.0, 1.0],
                "confidence": 1.0,
                "class_id": 1,
                "class_name": "cat",
            }
        ],
        "timings_ms": {"first": 1.2346},
    }
    for wrong in ((box[0], score, ids), (box, score, ids.astype(np.int32)), (box, score[:0], ids)):
        with support.refuses(InputError, "expected"):
            dyninfer.Detections(*wrong, ("cat",))


def test_a_detector_tells_what_it_is(two_exits) -> None:
    assert str(two_exits) == repr(two_exits)
    assert repr(two_exits) == (
        "<Detector two: detect 2 classes, cascade of 2 ways, onnxruntime on cpu, "
        "Threshold(value=0.5)>"
    )
    two_exits.close()
    assert repr(two_exits) == "<Detector two: detect 2 classes, cascade of 2 ways, closed>"


def test_batches_that_are_warmed_up_are_those_that_calls_may_have(tmp_path) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(bundle, max_batch=3) as detector:
        ran: list[list[int]] = []
        detector.session.warm_up = ran.append
        for batches in (None, (1,), [3, 2, 3], (np.int64(2),), {1, 3}):
            detector.warm_up(batches)
        assert ran == [[1, 3], [1], [2, 3], [2], [1, 3]]
        for wrong in ([0], [4], [2, 4], [True], [1.0], [-1], ["1"]):
            with support.refuses(InputError, "from 1 to max_batch, which is 3, such as (1, 3)"):
                detector.warm_up(wrong)
        assert len(ran) == 5


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_warm_up_runs_every_batch_and_where_that_helps_all_its_parts(
    two_exits, monkeypatch, rounds: int
) -> None:
    """The ways that images are forced to, a batch's parts of either size among them."""
    session, ran = two_exits.session, []
    monkeypatch.setattr(type(session.backend), "warm_rounds", rounds)
    monkeypatch.setattr(session, "trace", lambda _feed, batch, _workspace: ran.append(batch))
    monkeypatch.setattr(
        session, "run", lambda _feed, batch, policy, _workspace: ran.append((batch, policy.ways))
    )
    session.warm_up([1, 3])
    parts = [(3, (0, 1, 1)), (3, (0, 0, 1))]
    assert ran == {1: [1, 3], 2: [1, 1, 3, 3, *(part for part in parts for _ in range(2))]}[rounds]


def test_of_more_than_two_ways_each_is_warmed_up_in_both_places(three_exits, monkeypatch) -> None:
    session, ran = three_exits.session, []
    monkeypatch.setattr(type(session.backend), "warm_rounds", 2)
    monkeypatch.setattr(session, "trace", lambda *_: None)
    monkeypatch.setattr(
        session,
        "run",
        lambda _feed, _batch, policy, workspace: ran.append((policy.ways, workspace)),
    )
    session.warm_up([2])
    assert [ways for ways, _ in ran[::2]] == [(0, 1), (1, 2), (2, 0)]
    assert all(workspace.warming for _, workspace in ran)


@pytest.mark.parametrize(
    ("cores", "parameters", "twice"),
    [(2, 16_000_000, True), (2, 16_000_001, False), (1, 10, False)],
)
def test_engines_of_small_models_are_opened_twice_where_there_is_more_than_a_core(
    two_exits, monkeypatch, cores: int, parameters: int, twice: bool
) -> None:
    session, opened = two_exits.session, []
    of_stages = dict.fromkeys(session.engines, SimpleNamespace(parameters=2))
    of_stages["first"] = SimpleNamespace(parameters=parameters - 2 * (len(of_stages) - 1))
    monkeypatch.setattr(session, "manifest", SimpleNamespace(stages=of_stages))
    monkeypatch.setattr("dyninfer.runtime.session.usable_cores", lambda: cores)
    monkeypatch.setattr(session, "_open_lone", lambda: opened.append(1) or True)
    assert session.open_lone() is session.open_lone() is twice
    assert len(opened) == twice  # once, however often it is asked for
