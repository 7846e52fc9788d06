"""Matching classes of different lists by their names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Pascal VOC's names of classes that COCO names otherwise
_SYNONYMS = {
    "aeroplane": "airplane",
    "motorbike": "motorcycle",
    "sofa": "couch",
    "tvmonitor": "tv",
}


def canonical(name: str) -> str:
    """A class name without case, spaces, hyphens and underscores, VOC's names as COCO's.

    Letters with accents are the same whether they are one character or two.
    """
    folded = unicodedata.normalize("NFD", re.sub(r"[\s_\-]+", "", name)).casefold()
    plain = unicodedata.normalize("NFC", folded)
    return _SYNONYMS.get(plain, plain)


def match_names(names: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """For every name, the index of the same class in ``known``, or None.

    An exactly equal name is preferred; then case, spaces, hyphens, underscores and the
    form of accents do not count, and VOC's names equal COCO's (sofa and couch, for example).
    """
    exact = {name: index for index, name in reversed(list(enumerate(known)))}
    loose = {canonical(name): index for index, name in reversed(list(enumerate(known)))}
    return [exact.get(name, loose.get(canonical(name))) for name in names]
