"""The stages before they are exported, against the published code's outputs and by definition."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.exporters.dynamicdet.model import load_model
from dyninfer.exporters.dynamicdet.stages import Decode, build_stages
from tests import support


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_stages_one_after_the_other_equal_the_published_code(variant) -> None:
    vector = support.vector_of(variant)
    stages = build_stages(load_model(support.checkpoint_of(variant)), (support.SIZE, support.SIZE))
    tensors = {"images": torch.from_numpy(vector["images"])}
    with torch.inference_mode():
        for name, route in (("first", ""), ("router", ""), ("head", "easy"), ("second", "hard")):
            stage = stages[name]
            made = stage(*(tensors[key] for key in stage.inputs))
            made = made if isinstance(made, tuple) else (made,)
            tensors |= dict(zip(stage.outputs, made, strict=True))
            if route:
                boxes, scores = support.expected_outputs(vector[route])
                found = [tensors[key].numpy() for key in ("boxes_xyxy", "class_scores")]
                np.testing.assert_allclose(found[0], boxes, rtol=0, atol=support.BOX_TOLERANCE)
                np.testing.assert_allclose(
                    found[1], scores, rtol=0, atol=support.EASINESS_TOLERANCE
                )
    easiness, expected = tensors["easiness"].numpy(), vector["score"][:, 0]
    np.testing.assert_allclose(easiness, expected, rtol=0, atol=support.EASINESS_TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    classes=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_every_prediction_is_decoded_where_it_lies(rows, columns, classes, seed) -> None:
    """Two levels with two anchors each, one number after the other."""
    rng, strides, height, width = np.random.default_rng(seed), (8, 16), 16 * rows, 16 * columns
    anchors = rng.uniform(4, 60, (2, 2, 2)).astype(np.float32)
    detect = SimpleNamespace(
        classes=classes, anchor_grid=torch.from_numpy(anchors).reshape(2, 1, 2, 1, 1, 2)
    )
    decode = Decode(detect, strides, (height, width))
    raw = [
        rng.normal(0, 2, (1, 2 * (5 + classes), height // stride, width // stride))
        for stride in strides
    ]
    boxes, scores = decode([torch.from_numpy(level).float() for level in raw])
    row = 0
    for level, stride, level_anchors in zip(raw, strides, anchors, strict=True):
        shares = 1 / (1 + np.exp(-level[0].reshape(2, 5 + classes, *level.shape[2:])))
        for anchor, y, x in np.ndindex(2, *level.shape[2:]):
            s = shares[anchor, :, y, x]
            centre = (2 * s[:2] - 0.5 + (x, y)) * stride
            size = (2 * s[2:4]) ** 2 * level_anchors[anchor]
            expected = [*(centre - size / 2), *(centre + size / 2)]
            np.testing.assert_allclose(boxes[0, row], expected, rtol=1e-4, atol=1e-3)
            of_classes = s[4:5] if classes == 1 else s[4] * s[5:]
            np.testing.assert_allclose(scores[0, row], of_classes, atol=1e-5)
            row += 1
    assert boxes.shape[1] == scores.shape[1] == row


@pytest.mark.parametrize("classes", [1, 4])
def test_the_surest_candidates_are_those_of_all_in_the_order_of_their_scores(classes) -> None:
    rng = np.random.default_rng(classes)
    detect = SimpleNamespace(classes=classes, anchor_grid=torch.rand(2, 1, 2, 1, 1, 2) * 60 + 4)
    shapes = [(3, 2 * (5 + classes), side, side) for side in (4, 2)]
    raw = [torch.from_numpy(rng.normal(0, 2, shape)).float() for shape in shapes]
    boxes, scores = Decode(detect, (8, 16), (32, 32))(raw)
    assert boxes.shape == (3, 40, 4)
    for asked in (40, 41):  # no more than there are: all, as they lie
        same = Decode(detect, (8, 16), (32, 32), asked)(raw)
        assert torch.equal(same[0], boxes)
        assert torch.equal(same[1], scores)
    kept = Decode(detect, (8, 16), (32, 32), 7)(raw)
    best = scores.amax(2).argsort(1, descending=True)[:, :7, None]
    np.testing.assert_allclose(kept[0], boxes.take_along_dim(best, 1), atol=1e-5)
    np.testing.assert_allclose(kept[1], scores.take_along_dim(best, 1), atol=1e-6)
