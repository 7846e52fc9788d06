"""What the detections of an image are worth, and what a router should minimise.

A detector in a bundle is a black box: its training loss is not known. What counts is known,
average precision, and so the loss of an image at an exit is what its detections take from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dyninfer.evaluation.coco import Truth
from dyninfer.evaluation.routed_precision import PictureMatches
from dyninfer.results.answers import Detections
from dyninfer.types import BoolArray, Float64Array

SURE = 0.6
SEEN = 0.1


class DetectionPool:
    """All detections of all images at two exits, matched with the truth at IoU 0.5.

    Args:
        pictures: one entry for every image.
        exits: indices of the two exits to compare.
        classes: detections of other classes count neither way, as in COCO's average precision
            where no object is of them; None for all classes.
    """

    def __init__(
        self,
        pictures: Sequence[PictureMatches],
        exits: tuple[int, int],
        classes: BoolArray | None = None,
    ) -> None:
        self._count = len(pictures)
        entries = [
            (image, side, picture.exits[index])
            for image, picture in enumerate(pictures)
            for side, index in enumerate(exits)
        ]
        sizes = [len(matches.class_ids) for *_, matches in entries]
        images = np.repeat([image for image, *_ in entries], sizes)
        sides = np.repeat([side for _, side, _ in entries], sizes)
        confidences = np.concatenate([matches.confidences for *_, matches in entries])
        true = np.concatenate([matches.true[:, 0] for *_, matches in entries])
        counts = ~np.concatenate([matches.ignored[:, 0] for *_, matches in entries])
        if classes is not None:
            counts &= classes[np.concatenate([matches.class_ids for *_, matches in entries])]
        order = np.argsort(-confidences, kind="stable")
        order = order[counts[order]]
        self._images, self._sides, self._true = images[order], sides[order], true[order]
        self._confidences = confidences[order]
        self._objects = np.array([len(picture.object_classes) for picture in pictures])

    def losses(self, images: BoolArray) -> Float64Array:
        """(N, 2) loss of the images marked (N,) through either exit; 0 for the others.

        The objects of an image, less the influence of its detections on average precision. Of
        all marked images' detections by falling confidence, ``precision`` at rank r is the share
        of true ones up to r, and AP times the number of objects is the sum of ``precision`` over
        true detections. One more true detection adds its ``precision`` and lifts that of every
        true one below it by (1 - precision) / r; one more false detection lowers these by
        precision / r: the first-order change of AP (Everingham et al., "The PASCAL Visual Object
        Classes Challenge", IJCV 2010, section 4.2, defines it). So the loss counts objects as AP
        does, is bounded for every box, and needs no calibrated confidences. Equal confidences
        share the rank of the last of them. The losses of all
        images through both exits add up to (1 - AP) times the objects, counted once for each exit.
        """
        chosen = np.flatnonzero(images[self._images])
        true = self._true[chosen].astype(np.float64)
        falling = -self._confidences[chosen]
        rank = np.searchsorted(falling, falling, side="right")
        first = np.searchsorted(falling, falling, side="left")
        precision = true.cumsum()[rank - 1] / rank
        lost = _sum_from(true * precision / rank)[first]
        lifted = _sum_from(true * (1 - precision) / rank)[first]
        worth = np.where(true > 0, precision + lifted, -lost)
        found = np.zeros((self._count, 2))
        np.add.at(found, (self._images[chosen], self._sides[chosen]), worth)
        return np.asarray(np.where(images, self._objects, 0)[:, None] - found, np.float64)


def _sum_from(values: Float64Array) -> Float64Array:
    """Sums of every entry and all after it."""
    return np.asarray(values[::-1].cumsum()[::-1], np.float64)


def agreed_truth(last: Detections) -> Truth:
    """The last exit's detections as the truth, where nothing is known of an image.

    What it is sure of (confidence above 0.6) are the objects. What it has seen at all (above 0.1)
    may be one or not: detections there count neither way, as in a crowd of COCO's.
    """
    seen = last.confidences > SEEN
    return Truth(
        boxes_xyxy=last.boxes_xyxy[seen].astype(np.float64),
        class_ids=last.class_ids[seen],
        crowd=last.confidences[seen] <= SURE,
    )


def routed_loss(
    easiness: Float64Array, first: Float64Array, last: Float64Array, median: float
) -> Float64Array:
    """Expected loss (N,) of images that leave at the first exit with probability ``easiness``.

    ``easiness * (first - median / 2) + (1 - easiness) * (last + median / 2)``, where ``median``
    is that of ``first - last``: it is charged half to either side, so that half of the images are
    better off at each (Lin et al., "DynamicDet", CVPR 2023, section 3.3).
    """
    return easiness * (first - median / 2) + (1 - easiness) * (last + median / 2)
