"""What torchvision and mmdetection do differently with the same weights."""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.exporters.faster_rcnn.names import Library

STRIDES = (4, 8, 16, 32, 64)
CODE_SCALE = (0.1, 0.1, 0.2, 0.2)
"""Of a region's codes: torchvision divides by 10, 10, 5 and 5."""


@dataclass(frozen=True)
class Conventions:
    """Of one library, as its published detectors are set.

    Attributes:
        background_first: the column of no class is the first; otherwise it is the last.
        aligned: regions are shifted by half a place before samples are taken.
        samples: in each direction of a region's cell; 0 for as many as it has places.
        rounded_anchors: their sides are whole pixels.
        floored_strides: a level's stride is the image's size over the level's, in whole pixels.
        least_scale: whether codes of sizes are limited below too, not only above.
        least_proposal, least_box: sides in pixels from which a box is kept.
    """

    background_first: bool
    aligned: bool
    samples: int
    rounded_anchors: bool
    floored_strides: bool
    least_scale: bool
    least_proposal: float
    least_box: float


_OF = {
    Library.TORCHVISION: Conventions(True, False, 2, True, True, False, 1e-3, 1e-2),
    Library.MMDETECTION: Conventions(False, True, 0, False, False, True, 0.0, 0.0),
}


def conventions_of(library: Library) -> Conventions:
    """Those of a library."""
    return _OF[library]
