"""What a search may change of a student at once; which, and how often, is ours."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dyninfer.exporters.slim.estimate import Estimate
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.score import score_of

_KINDS = {"drop": 4, "thin": 8, "move": 1, "add": 1, "widen": 1}
"""How often each is drawn."""
_SHARES = (0.75, 0.5)  # of channels that stay
_STEP = 8  # channels come in multiples of it
_MOST_CHANGES, _DRAWN = 100, 8


def mutated(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str]:
    """A student with one change, and the change in words."""
    while True:  # some change is always possible: an added block
        (kind,) = rng.choices(list(_KINDS), list(_KINDS.values()))
        if (found := _CHANGES[kind](student, rng)) is not None:
            return found


def shrunk(
    student: ZenDetStudent, estimate: Estimate, most: float, rng: random.Random
) -> tuple[ZenDetStudent, tuple[str, ...]]:
    """A student changed until it is estimated to take ``most``, but at least once.

    Of several that are drawn, the one whose backbone has the highest score of ZenDet
    (:mod:`dyninfer.search.score`), which tells untrained networks of one cost apart.
    """
    drawn = [_shrunk(student, estimate, most, rng) for _ in range(_DRAWN)]
    fit = [each for each in drawn if estimate(each[0]) <= most]
    if not fit:
        return min(drawn, key=lambda each: estimate(each[0]))
    return max(fit, key=lambda each: score_of(each[0].structure))


def _shrunk(
    student: ZenDetStudent, estimate: Estimate, most: float, rng: random.Random
) -> tuple[ZenDetStudent, tuple[str, ...]]:
    words: list[str] = []
    while not words or (estimate(student) > most and len(words) < _MOST_CHANGES):
        student, change = mutated(student, rng)
        words.append(change)
    return student, tuple(words)


def probes(student: ZenDetStudent) -> Iterator[ZenDetStudent]:
    """One as shallow as it can be, and one of half the widths: what layers and arithmetic cost."""
    shallow = narrow = student
    for name, depth in student.stages.items():
        for index in range(depth - 1, 0, -1):
            shallow = shallow.drop(name, index)
    yield shallow
    for name, width in student.widths.items():
        if width > _STEP:
            narrow = narrow.thin(name, narrow.most_important(name, max(_STEP, width // 2)))
    yield narrow


def _drop(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str] | None:
    deep = [name for name, depth in student.stages.items() if depth > 1]
    if not deep:
        return None
    name = rng.choice(deep)
    block = rng.randrange(1, student.stages[name])
    return student.drop(name, block), f"drop {name}.{block}"


def _add(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str]:
    name = rng.choice(list(student.stages))
    block = student.stages[name] - 1
    return student.add(name, block), f"add {name}.{block + 1}"


def _move(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str] | None:
    if (dropped := _drop(student, rng)) is None:
        return None
    moved, added = _add(dropped[0], rng)
    return moved, f"{dropped[1]}, {added}"


def _thin(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str] | None:
    wide = {name: width for name, width in student.widths.items() if width > _STEP}
    if not wide:
        return None
    name = rng.choice(list(wide))
    count = max(_STEP, round(wide[name] * rng.choice(_SHARES) / _STEP) * _STEP)
    if count >= wide[name]:
        return None
    thinner = student.thin(name, student.most_important(name, count))
    return thinner, f"thin {name} to {count}"


def _widen(student: ZenDetStudent, rng: random.Random) -> tuple[ZenDetStudent, str]:
    name = rng.choice(list(student.widths))
    more = min(_STEP, student.widths[name])
    wider = student.widen(name, student.most_important(name, more))
    return wider, f"widen {name} to {wider.widths[name]}"


_CHANGES = {"drop": _drop, "add": _add, "move": _move, "thin": _thin, "widen": _widen}
