"""Pictures that the hand-made bundles of tests/support.py read as easiness and identity."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE = 8


def write_coded(folder: Path, reds: Sequence[int], green: int = 0) -> list[Path]:
    """One-coloured 8x8 PNGs: easiness red / 255, at a later router green / 255."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, red in enumerate(reds):
        path = folder / f"{number:03d}.png"
        picture = np.zeros((SIDE, SIDE, 3), np.uint8)
        picture[:] = (0, green, red)
        assert cv2.imwrite(str(path), picture)
        paths.append(path)
    return paths


def coco(
    names: Sequence[str],
    boxes: Sequence[Sequence[Sequence[float]]],
    categories: Sequence[str] = ("left", "right"),
    category: int = 2,
    **more: object,
) -> dict:
    """A COCO document: for every picture its boxes as x, y, width, height."""
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, 1)],
        "annotations": [
            {"id": 1, "image_id": n, "category_id": category, "bbox": list(box), **more}
            for n, of_picture in enumerate(boxes)
            for box in of_picture
        ],
    }


def write_labels(path: Path, pictures: Sequence[Path]) -> Path:
    """Truth that exit 0 of the hand-made bundles finds exactly and later exits miss."""
    box = [[0, 0, SIDE, SIDE]]
    path.write_text(json.dumps(coco([p.name for p in pictures], [box] * len(pictures))))
    return path
