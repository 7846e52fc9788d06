"""Real photographs, for the model that finds everyday things: read where packages ship them.

Who made them, and under which terms they may be used, stands in NOTICE.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from dyninfer.demo import ASSETS
from dyninfer.errors import MissingExtra
from dyninfer.images.folders import find_images
from dyninfer.images.pictures import decode_image, read_image
from dyninfer.installing import pip_install
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
    return found + [_shipped(package, name) for package, name in _SHIPPED]


def _shipped(package: str, name: str) -> ImageArray:
    """A file of a package, which is not imported: matplotlib would complain of a read-only home."""
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        if (path := Path(folder) / name).is_file():
            return decode_image(path.read_bytes(), name)
    raise MissingExtra(f"{package}'s {name} is not there; install it: {pip_install('demo')}")
