from __future__ import annotations

import numpy as np
import pytest

import dyninfer
from dyninfer.benchmarks.baselines.single_graph import build_single_graph
from dyninfer.engines.ort.library import ort
from dyninfer.engines.ort.runtime import session_options
from dyninfer.errors import InputError
from tests import support


def session_of(bundle, folder):
    path = folder / "single.onnx"
    path.write_bytes(build_single_graph(bundle).SerializeToString())
    return ort.InferenceSession(str(path), session_options(), providers=["CPUExecutionProvider"])


def answer(session, images, threshold):
    return answers(session, {"images": images, "threshold_0": np.array(threshold, np.float32)})


def answers(session, inputs):
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_equal_answers(detector, session, images, threshold):
    detector.policy = dyninfer.Threshold(threshold)
    expected = detector.infer({"images": images})[0]
    found = answer(session, images, threshold)
    assert found["easiness"] == pytest.approx(expected.easiness, abs=1e-6)
    for name, array in expected.outputs.items():
        np.testing.assert_allclose(found[name][0], array, rtol=1e-4, atol=1e-4)
    return expected


@pytest.mark.parametrize(("threshold", "exit_index"), [(0, 0), (2, 1)])
def test_the_graph_answers_as_the_bundle_on_both_routes(
    small_bundle, tmp_path, threshold, exit_index
):
    images = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    with dyninfer.load(small_bundle) as detector:
        session = session_of(detector.bundle, tmp_path)
        found = assert_equal_answers(detector, session, images, threshold)
    assert found.exit_index == exit_index


def test_the_two_routes_of_the_graph_differ(small_bundle, tmp_path):
    images = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    session = session_of(dyninfer.Bundle.open(small_bundle), tmp_path)
    easy, hard = (answer(session, images, threshold) for threshold in (0, 2))
    assert not np.allclose(easy["class_scores"], hard["class_scores"], atol=1e-3)


@pytest.mark.slow
def test_a_published_topology_answers_as_its_bundle(exported, tmp_path):
    images = np.random.default_rng(1).random((1, 3, support.SIZE, support.SIZE), np.float32)
    with dyninfer.load(exported("dy-yolov7")) as detector:
        session = session_of(detector.bundle, tmp_path)
        for threshold in (0, 2):
            assert_equal_answers(detector, session, images, threshold)


@pytest.mark.parametrize(
    ("easiness", "exit_offset"), [(0.49, 1000), (0.5, 0), (0.51, 0), (-1.0, 1000)]
)
def test_the_comparison_is_strict_and_nan_is_hard(two_exits, tmp_path, easiness, exit_offset):
    session = session_of(two_exits.bundle, tmp_path)  # a negative code makes its easiness NaN
    found = answer(session, support.coded_images([(easiness, 0, 7)]), 0.5)
    assert found["boxes_xyxy"][0, 0, 0] == pytest.approx(7 + exit_offset)
    assert np.isnan(found["easiness"][0]) == (easiness < 0)


def test_the_shapes_say_that_it_takes_one_image(two_exits, tmp_path):
    session = session_of(two_exits.bundle, tmp_path)
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes == {"images": [1, 3, 8, 8], "threshold_0": []}
    assert [value.shape for value in session.get_outputs()] == [[1, 1, 4], [1, 1, 2], [1]]


@pytest.mark.parametrize(
    ("codes", "thresholds", "offset"),
    [
        ((0.5, 0.1, 7), (0.5, 0.5), 0),
        ((0.4, 0.5, 7), (0.5, 0.5), 1000),
        ((0.4, 0.4, 7), (0.5, 0.5), 2000),
        ((0.9, 0.9, 7), (2, 0), 1000),
        ((-1.0, 0.9, 7), (0, 0), 1000),
    ],
)
def test_three_exits_are_nested(three_exits, tmp_path, codes, thresholds, offset):
    session = session_of(three_exits.bundle, tmp_path)
    images = {"images": support.coded_images([codes]), "images_2": support.coded_images([codes], 4)}
    levels = {f"threshold_{k}": np.array(level, np.float32) for k, level in enumerate(thresholds)}
    found = answers(session, images | levels)
    assert found["boxes_xyxy"][0, 0, 0] == pytest.approx(7 + offset, abs=1e-4)
    easiness = codes[0] if codes[0] >= 0 else np.nan
    assert found["easiness"] == pytest.approx([easiness], nan_ok=True)


@pytest.mark.parametrize(
    ("codes", "bias", "offset"),
    [
        ((0.5, 0.4, 7), (0, 0), 0),
        ((0.4, 0.4, 7), (0, 0), 0),
        ((0.4, 0.5, 7), (0, 0), 1000),
        ((0.4, 0.5, 7), (1e9, 0), 0),
        ((0.9, 0.5, 7), (0, 1e9), 1000),
        ((-1.0, 0.5, 7), (0, 0), 1000),
    ],
)
def test_a_chooser_takes_the_largest_score_and_the_last_branch_for_nan(
    tmp_path, codes, bias, offset
):
    path = support.write_select_detectors(tmp_path / "select.dyn")
    session = session_of(dyninfer.Bundle.open(path), tmp_path)
    images = {"images": support.coded_images([codes]), "images_2": support.coded_images([codes], 4)}
    found = answers(session, images | {"bias": np.array(bias, np.float32)})
    assert found["boxes_xyxy"][0, 0, 0] == pytest.approx(7 + offset)


def test_a_static_bundle_of_two_stages_is_one_graph(tmp_path):
    path = support.write_static_two_stages(tmp_path / "static.dyn")
    session = session_of(dyninfer.Bundle.open(path), tmp_path)
    found = answers(session, {"images": support.coded_images([(0, 0, 7)])})
    assert list(found) == ["boxes_xyxy", "class_scores"]
    assert found["boxes_xyxy"][0, 0, 0] == pytest.approx(7)


def test_a_cascade_without_router_is_refused(tmp_path):
    path = support.write_two_exits(tmp_path / "none.dyn", router=False)
    with pytest.raises(InputError, match="lacks a router"):
        build_single_graph(dyninfer.Bundle.open(path))
