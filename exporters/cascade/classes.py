"""One class list for detectors that were trained on different ones, by the classes' names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dyninfer.errors import ConfigError
from dyninfer.exporters.cascade.options import ORDINALS, ClassList
from dyninfer.plain_text import counted, some
from dyninfer.results.class_lists import canonical

_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Reconciled:
    """The classes of a bundle.

    ``columns[d][c]`` is detector d's own number of class c, -1 where it has none. ``notes`` tell
    the user what was matched under another name, what was dropped and what is missing.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]


def reconcile(lists: Sequence[Sequence[str]], choice: ClassList = ClassList.LAST) -> Reconciled:
    """Match the class lists of all exits by name: see :func:`canonical`.

    ``last`` keeps the last detector's classes, ``common`` those that all have, both in the last
    one's order; ``union`` adds the others' to the last one's. One list alone stays as it is.

    Raises:
        ConfigError: a list names a class twice, or two lists have no class in common.
    """
    if len(lists) == 1:
        (only,) = lists
        return Reconciled(tuple(only), (tuple(range(len(only))),), ())
    keyed = [_keyed(ordinal, names) for ordinal, names in zip(ORDINALS, lists, strict=False)]
    last = keyed[-1]
    for ordinal, names, own in zip(ORDINALS, lists, keyed[:-1], strict=False):
        if not own.keys() & last.keys():
            raise ConfigError(
                f"the {ordinal} detector has the classes {some(names, _SHOWN)} and the last "
                f"{some(lists[-1], _SHOWN)}: none in common; give its class_names "
                f"(--{ordinal}-class-names), "
                "or take detectors of the same classes"
            )
    keys = list(last)
    if choice is ClassList.COMMON:
        keys = [key for key in keys if all(key in own for own in keyed)]
        if not keys:
            raise ConfigError(
                "no class is common to all detectors; choose the last's (--classes last)"
            )
    elif choice is ClassList.UNION:
        keys = list(dict.fromkeys([*keys, *(key for own in keyed for key in own)]))
    names = tuple(
        next(lists[d][keyed[d][key]] for d in reversed(range(len(lists))) if key in keyed[d])
        for key in keys
    )
    columns = tuple(tuple(own.get(key, -1) for key in keys) for own in keyed)
    notes = [
        note
        for ordinal, own, chosen in zip(ORDINALS, lists, columns, strict=False)
        for note in _notes(ordinal, own, names, chosen)
    ]
    return Reconciled(names, columns, tuple(notes))


def _keyed(ordinal: str, names: Sequence[str]) -> dict[str, int]:
    """Canonical name -> class number."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        key = canonical(name)
        if key in found:
            raise ConfigError(
                f"the {ordinal} detector's classes {found[key]} and {number} are both called "
                f"{name!r}; give every class a name of its own "
                f"(--{ordinal}-class-names)"
            )
        found[key] = number
    return found


def _notes(
    ordinal: str, own: Sequence[str], names: Sequence[str], columns: Sequence[int]
) -> list[str]:
    renamed = [
        f"{own[column]} = {name}"
        for name, column in zip(names, columns, strict=True)
        if column >= 0 and own[column] != name
    ]
    dropped = [name for number, name in enumerate(own) if number not in columns]
    lacking = [name for name, column in zip(names, columns, strict=True) if column < 0]
    several = f"of its {counted(len(own), 'class')}"
    notes = [
        (renamed, f"{len(renamed)} {several} matched under another name"),
        (dropped, f"{len(dropped)} {several} dropped"),
        (lacking, f"lacks {len(lacking)} of the {len(names)} classes"),
    ]
    return [f"{ordinal}: {note}: {some(found, _SHOWN)}" for found, note in notes if found]
