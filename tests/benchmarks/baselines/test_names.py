from __future__ import annotations

import pytest

from dyninfer.benchmarks.baselines.names import NAMES, check_names
from dyninfer.benchmarks.baselines.results import labels_of
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
