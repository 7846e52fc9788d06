"""Scenes as files: pictures without loss, and what is in them in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dyninfer.bundle.folder import write_atomically
from dyninfer.demo.contact_sheet import write_picture
from dyninfer.demo.scenes import CLASS_NAMES, SceneSource
from dyninfer.evaluation.coco import Truth, coco_objects

ANNOTATIONS_FILE = "annotations.json"


def write_scene_files(
    folder: Path,
    source: SceneSource,
    indices: Sequence[int],
    progress: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write scenes as PNG beside their ``annotations.json``; scenes of an earlier run go.

    Returns:
        The pictures, in the order of ``indices``.

    Raises:
        InputError: a picture cannot be encoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("scene-*.png"):
        old.unlink()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in indices:
        scene = source.scene(index)
        path = folder / f"scene-{index:05d}.png"
        write_picture(path, scene.image)
        height, width = scene.image.shape[:2]
        images.append({"id": index, "file_name": path.name, "width": width, "height": height})
        annotations += coco_objects(index, Truth(scene.boxes_xyxy, scene.class_ids))
        progress()
    document = {
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES)],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(annotations, 1)],
    }
    write_atomically(folder / ANNOTATIONS_FILE, json.dumps(document) + "\n")
    return [folder / str(image["file_name"]) for image in images]
