from __future__ import annotations

import numpy as np
import pytest
import torch

from dyninfer.exporters.slim.assignment import NEAREST, Places, assign

PLACES = Places.of((64, 96))


def by_the_paper(boxes: np.ndarray) -> list[int]:
    """Algorithm 1, place by place and object by object."""
    centres, strides = PLACES.centres.numpy(), PLACES.strides.numpy()
    best = [(-1.0, -1)] * len(centres)
    for number, (left, top, right, bottom) in enumerate(boxes):
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        candidates: list[int] = []
        for stride in sorted(set(strides)):
            level = np.flatnonzero(strides == stride)
            far = np.linalg.norm(centres[level] - middle, axis=1)
            candidates += level[np.argsort(far, kind="stable")[:NEAREST]].tolist()
        overlaps = []
        for place in candidates:
            (x, y), half = centres[place], 4 * strides[place]
            wide = max(0.0, min(right, x + half) - max(left, x - half))
            high = max(0.0, min(bottom, y + half) - max(top, y - half))
            union = (right - left) * (bottom - top) + 4 * half**2 - wide * high
            overlaps.append(wide * high / union)
        least = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for place, overlap in zip(candidates, overlaps, strict=True):
            x, y = centres[place]
            inside = left < x < right and top < y < bottom
            if overlap >= least and inside and overlap > best[place][0]:
                best[place] = (overlap, number)
    return [number for _, number in best]


def test_it_is_the_paper_s_algorithm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        low = rng.uniform(0, [70, 40], (4, 2))
        boxes = np.concatenate([low, low + rng.uniform(18, 24, (4, 2))], 1).astype(np.float32)
        found = assign(PLACES, torch.from_numpy(boxes)).tolist()
        assert found == by_the_paper(boxes)
        assert max(found) >= 0


def test_no_objects() -> None:
    assert set(assign(PLACES, torch.zeros(0, 4)).tolist()) == {-1}


@pytest.mark.parametrize("left", [17.0, 20.0, 22.5])
def test_an_object_between_all_places_has_the_nearest(left: float) -> None:
    found = assign(PLACES, torch.tensor([[left, 17.0, left + 1, 23.0]]))
    (place,) = (found >= 0).nonzero()[:, 0].tolist()
    distances = (PLACES.centres - torch.tensor([left + 0.5, 20.0])).norm(dim=1)
    assert distances[place] == distances.min()
