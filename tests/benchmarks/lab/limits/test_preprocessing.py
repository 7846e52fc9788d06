from __future__ import annotations

import numpy as np
import pytest

from dyninfer.benchmarks.lab.limits import preprocessing
from dyninfer.errors import InputError
from tests import support


def test_one_row_tells_how_ours_compares_with_a_blob() -> None:
    (row,) = preprocessing.measure(3)
    assert (row.key, row.unit, row.limit) == ("preprocessing", "ratio", 0.7)
    assert row.measured.rounds == 3
    assert row.measured.median > 0
    assert {name: len(times) for name, times in row.times_ms.items()} == {
        "dyninfer": 3,
        "blobFromImage": 3,
    }
    assert row.holds == (row.measured.median <= row.limit)


def test_the_baseline_is_the_usual_letterbox() -> None:
    blob = preprocessing.letterbox_blob(np.full((720, 1280, 3), (0, 51, 255), np.uint8))
    assert blob.shape == (1, 3, 640, 640)
    np.testing.assert_allclose(blob[0, :, 139, 0], 114 / 255, atol=1e-6)
    np.testing.assert_allclose(blob[0, :, 140, 639], [1, 0.2, 0], atol=1e-6)
    np.testing.assert_allclose(blob[0, :, 500, 0], 114 / 255, atol=1e-6)


def test_nothing_is_timed_if_the_tensors_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(usual(image)[:, ::-1])

    usual = preprocessing.letterbox_blob
    monkeypatch.setattr(preprocessing, "letterbox_blob", swapped)
    with support.refuses(InputError, "differ by"):
        preprocessing.measure(2)


def test_one_round_cannot_be_compared() -> None:
    with support.refuses(InputError, "at least 2"):
        preprocessing.measure(1)
