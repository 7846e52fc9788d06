"""A tiny detector, and a few labelled pictures of squares."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from dyninfer.evaluation.dataset import Sample, load_samples
from dyninfer.exporters.zendet.backbone import draw_backbone
from dyninfer.exporters.zendet.detector import Detector, HeadShape
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.structure import Block, Structure

SIDE = 64
NAMES = ("dark", "light")
STRUCTURE = Structure(
    (
        Block(3, 8, 3, 2),
        Block(8, 16, 3, 2, 2, 16),
        Block(16, 32, 3, 2, 2, 16),
        Block(32, 32, 3, 2, 2, 16),
        Block(32, 32, 3, 2, 1, 16),
    )
)
HEAD = HeadShape(channels=16, head=32, depth=1, columns=2, bins=5, kept=4, hidden=8)


def tiny_detector(seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    model = Detector(STRUCTURE, HEAD)
    draw_backbone(model.backbone, torch.Generator().manual_seed(seed))
    return model.eval().requires_grad_(False)


@pytest.fixture
def base() -> ZenDetStudent:
    return ZenDetStudent.of(tiny_detector())


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures, each with a dark or a light square on grey."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(20):
        picture = np.full((SIDE, SIDE, 3), 128, np.uint8)
        left, top = rng.integers(0, SIDE - 24, 2).tolist()
        kind = number % 2
        picture[top : top + 24, left : left + 24] = 255 * kind
        cv2.imwrite(str(folder / f"{number:02d}.png"), picture)
        images.append({"id": number, "file_name": f"{number:02d}.png"})
        box = [left, top, 24, 24]
        annotations.append({"id": number, "image_id": number, "category_id": kind, "bbox": box})
    categories = [{"id": index, "name": name} for index, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def samples(labelled: Path) -> tuple[Sample, ...]:
    pictures = sorted(labelled.glob("*.png"))
    return load_samples(pictures, labelled / "annotations.json", NAMES).items
