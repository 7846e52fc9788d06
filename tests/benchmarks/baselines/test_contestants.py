from __future__ import annotations

import numpy as np
import pytest

from dyninfer.benchmarks.baselines.contestants import labels_of, largest_difference
from dyninfer.benchmarks.baselines.setup import NAMES, check_names
from dyninfer.errors import InputError
from tests.support import refuses


def test_nothing_is_nothing() -> None:
    assert check_names([]) == ()


def test_all_stands_for_every_name_and_repeats_are_dropped() -> None:
    assert check_names(["naive", "all", "naive"]) == tuple(
        sorted(NAMES, key=lambda name: name != "naive")
    )


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("single-graph", "single-graph-if"),
        ("last-exit", "always-last-exit"),
        ("torch", "torch-compile"),
        ("pytorch", "pytorch-eager"),
        ("", ""),
        ("Naive", "naive"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(typed, nearest) -> None:
    with refuses(InputError, repr(typed), "nearest is", nearest, "or the path of an .onnx file"):
        check_names([typed])


def test_a_file_must_be_there(tmp_path) -> None:
    path = tmp_path / "other.onnx"
    with refuses(InputError, str(path), "is not a file"):
        check_names([str(path)])
    path.touch()
    assert check_names([str(path), "naive"]) == (str(path), "naive")


def test_files_are_called_by_their_name_unless_two_share_it() -> None:
    names = ["naive", "a/x.onnx", "a/y.onnx", "b/y.onnx"]
    assert list(labels_of(names).values()) == ["naive", "x.onnx", "a/y.onnx", "b/y.onnx"]


def arrays(**values):
    return {name: np.asarray(value, np.float32) for name, value in values.items()}


def test_the_same_arrays_do_not_differ() -> None:
    found = arrays(boxes_xyxy=[[1, 2, 3, 4]], class_scores=[[0.5]])
    assert largest_difference(found, found) == 0


def test_the_difference_is_relative_to_the_largest_value_of_the_output() -> None:
    reference = arrays(boxes_xyxy=[100, 200], class_scores=[0.5, 0.25])
    found = arrays(boxes_xyxy=[101, 200], class_scores=[0.5, 0.375])
    assert largest_difference(reference, found) == pytest.approx(0.25)


def test_what_only_one_has_does_not_count() -> None:
    assert largest_difference(arrays(a=[1], easiness=[9]), arrays(a=[1], extra=[5])) == 0


@pytest.mark.parametrize("found", [{}, arrays(b=[1]), arrays(a=[[1]]), arrays(a=[1, 2])])
def test_what_cannot_be_compared_is_none(found) -> None:
    assert largest_difference(arrays(a=[1]), found) is None


def test_nan_agrees_with_nan_alone() -> None:
    reference = arrays(a=[1, np.nan])
    assert largest_difference(reference, arrays(a=[1, np.nan])) == 0
    assert largest_difference(reference, arrays(a=[1, 2])) == float("inf")


def test_empty_and_zero_outputs() -> None:
    assert largest_difference(arrays(a=[]), arrays(a=[])) == 0
    assert largest_difference(arrays(a=[0]), arrays(a=[0.5])) == 0.5
