"""Bytes and JSON documents, changed at random."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

from dyninfer.bundle.documents import SEAL

BLANK_SEAL = "0" * 64
TEXTS = (
    *("", " ", "a" * 5000, "\0", "\ud800", "\u202e", "\x1b[31m", "[/]", "[bold]x", "%s{}", "\n"),
    *("..", "../x", "/etc/passwd", "bundle.json", "NaN", "1e999", "-1", "batch", "float16"),
    *("float32", "images", "easiness", "static", "cascade", "select", "detect", "classify", "é"),
)
NUMBERS = (
    *(0, 1, -1, 2, 3, 255, 65536, 2**31, 2**63, 2**64, 10**12, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-320, 1e308, 3.4e38, 1e39, math.inf, -math.inf, math.nan),
)
OTHERS = (None, True, False, [], {}, [[]], {"": None}, ["a", 1], [0] * 1000)


def hostile_value(rng: Random) -> Any:
    return copy.deepcopy(rng.choice(rng.choice((TEXTS, NUMBERS, OTHERS))))


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """A few bytes are flipped, cut out, doubled, or overwritten with limits of integers."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(5):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length] or b"\0"
            case 3:
                limit = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) + rng.choice((b"", b"\xff"))
                changed[place : place + length] = (limit * length)[:length]
            case _:
                changed[place:place] = rng.randbytes(length)
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.05 else changed)


def mutate_json(rng: Random, document: Any) -> Any:
    """A copy of a document in which one to four of its values are others, or are gone."""
    changed = [copy.deepcopy(document)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(changed))
        if not places:
            break
        container, key = rng.choice(places)
        if isinstance(container, (list, dict)) and key in _keys(container):
            rng.choice(_CHANGES)(rng, container, key, places)
    return changed[0] if changed else None


def _keys(container: list[Any] | dict[str, Any]) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def _places(value: Any) -> Any:
    """Everything that stands in a document, as containers and keys."""
    if isinstance(value, (list, dict)):
        for key in _keys(value):
            yield value, key
            yield from _places(value[key])


def _replace(rng: Random, container: Any, key: Any, _places: Any) -> None:
    container[key] = hostile_value(rng)


def _remove(_rng: Random, container: Any, key: Any, _places: Any) -> None:
    del container[key]


def _take_another(rng: Random, container: Any, key: Any, places: Any) -> None:
    other, there = rng.choice(places)
    if there in _keys(other):
        container[key] = copy.deepcopy(other[there])


def _nudge(rng: Random, container: Any, key: Any, _places: Any) -> None:
    value = container[key]
    if isinstance(value, (int, float)):
        container[key] = rng.choice((value + 1, value - 1, -value, value * 2, value // 2))
    elif isinstance(value, str):
        place = rng.randrange(len(value) + 1)
        container[key] = value[:place] + rng.choice(TEXTS) + value[place + rng.randrange(2) :]
    elif isinstance(value, list):
        container[key] = value * rng.choice((2, 20)) if rng.random() < 0.5 else value[::-1]
    elif isinstance(value, dict):
        value[rng.choice(TEXTS)] = hostile_value(rng)


def _nest(rng: Random, container: Any, key: Any, _places: Any) -> None:
    for _ in range(rng.choice((1, 2, 30))):
        container[key] = [container[key]] if rng.random() < 0.5 else {"x": container[key]}


_CHANGES: tuple[Callable[[Random, Any, Any, Any], None], ...] = (
    *(_replace, _replace, _remove, _take_another, _take_another, _nudge, _nudge, _nest),
)


def sealed(rng: Random, document: Any) -> bytes:
    """A document as JSON with a seal that fits, of which at times the text is changed too.

    Without that seal, nothing behind it would ever be reached.
    """
    content = document if isinstance(document, dict) else {"x": document}
    text = json.dumps({**content, SEAL: BLANK_SEAL}).encode()
    if rng.random() < 0.1:
        text = _changed_text(rng, text)
    if rng.random() < 0.02:
        return text
    head, _, tail = text.rpartition(BLANK_SEAL.encode())
    return head + hashlib.sha256(text).hexdigest().encode() + tail


def _changed_text(rng: Random, text: bytes) -> bytes:
    """What no document holds: depth, digits, and bytes that are not JSON."""
    place = text.find(b": ", rng.randrange(len(text))) + 2
    inserted = rng.choice((b"[" * 100_000, b"9" * 5000, b"9" * 50 + b".5e", b"\xff", b'{"a":1},'))
    return text[:place] + inserted + text[place:] if rng.random() < 0.8 else mutate_bytes(rng, text)
