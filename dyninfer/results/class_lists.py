"""Lists of class names: read from plain data, and matched with one another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from dyninfer.errors import ConfigError

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


def names_from(names: Any, where: str) -> tuple[str, ...]:
    """Class names from a list, or from a mapping of class number to name, as JSON has it, too.

    Raises:
        ConfigError: it is neither, numbers or names are missing; ``where`` tells the user its
            origin.
    """
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        if numbered.keys() != {*map(str, range(len(names)))}:
            shown = ", ".join([*numbered][:10])
            raise ConfigError(f"'names' in {where} has the numbers {shown}, expected 0, 1, 2, ...")
        names = [numbered[str(number)] for number in range(len(names))]
    if not isinstance(names, list):
        raise ConfigError(f"'names' in {where} is {str(names)[:40]!r}, expected a list of names")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ConfigError(f"class {number} of 'names' in {where} is {name!r}, expected a name")
    return tuple(name.strip() for name in names)
