"""What a detector finds on the built-in photos, as it was read: for its user to look at.

That a stage equals its file as it was read says nothing of whether it was read rightly. Whoever
sees the boxes knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2

from dyninfer.bundle.folder import PICTURES
from dyninfer.exporters.cascade.original import sample_photos
from dyninfer.exporters.cascade.plan import PlannedDetector
from dyninfer.images.drawing import annotate
from dyninfer.results.answers import Detections
from dyninfer.results.postprocess import Postprocess
from dyninfer.types import ImageArray

_HEIGHT = 400  # pixels of a photo in the picture
_SHOWN = 8  # classes in a line


def write_picture(
    name: str,
    planned: PlannedDetector,
    class_names: Sequence[str],
    folder: Path,
    *,
    sized: bool = False,
) -> str:
    """Write ``pictures/<name>.jpg``: the photos side by side, with what the original finds.

    ``class_names`` are the bundle's. Boxes are of the original's outputs, decoded in NumPy. With
    ``sized`` the line says at which size.

    Returns:
        A line for the user: which classes are found.
    """
    drawn, found = [], Counter[str]()
    for photo, candidates in zip(sample_photos(), planned.expected, strict=True):
        boxes_xyxy, confidences, class_ids = Postprocess()(*candidates)
        placement = planned.plan.image.place(photo.shape[1], photo.shape[0])
        names = tuple(class_names[number] for number in class_ids)
        answer = Detections(placement.to_image(boxes_xyxy), confidences, class_ids, names)
        found.update(names)
        drawn.append(_drawn(photo, answer))
    target = folder / PICTURES / f"{name}.jpg"
    target.parent.mkdir(exist_ok=True)
    _, data = cv2.imencode(".jpg", cv2.hconcat(drawn), [cv2.IMWRITE_JPEG_QUALITY, 85])
    target.write_bytes(data.tobytes())
    image = planned.plan.image
    at = f" at {image.height}x{image.width}" if sized else ""
    return f"{planned.file.path.name}{at}: finds {_told(found)}"


def _drawn(photo: ImageArray, answer: Detections) -> ImageArray:
    """A photo with boxes, at the height that all have."""
    canvas = annotate(photo, answer, badge=False)
    width = round(photo.shape[1] * _HEIGHT / photo.shape[0])
    scaled = cv2.resize(canvas, (width, _HEIGHT), interpolation=cv2.INTER_AREA)
    return cast(ImageArray, scaled)  # of another type than its input for all that OpenCV tells


def _told(found: Counter[str]) -> str:
    if not found:
        return (
            "nothing on the built-in photos (an astronaut, a cat, a cup of coffee, a rocket); "
            "look at what predict draws on pictures of your own"
        )
    names = [f"{count} {name}" for name, count in found.most_common(_SHOWN)]
    more = ", ..." if len(found) > _SHOWN else ""
    return (
        f"{', '.join(names)}{more} on the built-in photos (an astronaut, a cat, a cup of coffee, "
        "a rocket)"
    )
