from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlxtend")

from dyninfer.demo.scene_files import ANNOTATIONS_FILE, write_scene_files
from dyninfer.demo.scenes import CLASS_NAMES, SceneSource
from dyninfer.evaluation.dataset import load_samples
from dyninfer.images.pictures import read_image


def test_scenes_come_back_as_they_were(tmp_path: Path) -> None:
    source = SceneSource("held_out", size=64)
    write_scene_files(tmp_path, source, range(3))
    files = write_scene_files(tmp_path, source, [7, 2])  # an earlier run's scenes go
    assert sorted(tmp_path.glob("*.png")) == sorted(files)
    samples = load_samples(files, tmp_path / ANNOTATIONS_FILE, CLASS_NAMES)
    assert samples.warnings == ()
    for item, index in zip(samples.items, (7, 2), strict=True):
        scene = source.scene(index)
        np.testing.assert_array_equal(read_image(item.path), scene.image)
        assert item.truth is not None
        np.testing.assert_allclose(item.truth.boxes_xyxy, scene.boxes_xyxy)
        np.testing.assert_array_equal(item.truth.class_ids, scene.class_ids)
