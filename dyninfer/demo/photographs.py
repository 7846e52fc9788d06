"""Real photographs, for the model that finds everyday things: read where packages ship them.

Who made them, and under which terms they may be used, stands in NOTICE.
"""

from __future__ import annotations

from dyninfer.demo import ASSETS
from dyninfer.demo.shipped import shipped
from dyninfer.images.folders import find_images
from dyninfer.images.pictures import decode_image, read_image
from dyninfer.types import ImageArray

_SHIPPED = (
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    ("skimage", "data/camera.png"),
)


def package_photographs() -> list[ImageArray]:
    """The built-in photographs, and those of the packages of the extra ``demo``.

    Raises:
        MissingExtra: one of these packages is not installed.
    """
    found = [read_image(path) for path in find_images(ASSETS / "photos")]
    return found + [decode_image(shipped(*file), file[1]) for file in _SHIPPED]
