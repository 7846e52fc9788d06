"""Which number in a detector's outputs stands for which of its classes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dyninfer.errors import ConfigError
from dyninfer.exporters.cascade.conventions import Known
from dyninfer.exporters.cascade.guesses import Guesses
from dyninfer.exporters.cascade.measured import Measured
from dyninfer.exporters.cascade.options import ClassIds, DetectorSource, Match, Scores
from dyninfer.exporters.cascade.original import read_part
from dyninfer.exporters.class_names import COCO, COCO_IDS, class_names_for
from dyninfer.plain_text import counted
from dyninfer.results.class_lists import canonical
from dyninfer.types import Float32Array, Float64Array

PHOTOS = ("person", "cat", "cup")
"""What is to be seen most on the first of the built-in photos."""
RIGHT = 2
"""On so many of them a detector must be right to show how it is to be read."""
_SURE = 0.25  # confidence from which a box says what a detector takes a photo for
_NO_CLASS = re.compile(
    r"(__)?background(__)?|bg|n/?a|\?+|no[ _-]?object|unlabell?ed", re.IGNORECASE
)


@dataclass(frozen=True)
class Classes:
    """The classes of a detector and the file's number of each; a line for the user, or None."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    doubt: str | None = None


@dataclass(frozen=True)
class _Rule:
    """A way of numbering: one after the other or by COCO's ids, from ``offset`` on."""

    ids: ClassIds
    offset: int

    def numbers(self, names: Sequence[str]) -> tuple[int, ...]:
        if self.ids is ClassIds.COCO91:
            return tuple(number - 1 + self.offset for number in COCO_IDS)
        places = (place for place, name in enumerate(names) if is_class(name))
        return tuple(place + self.offset for place in places)


def is_class(name: str) -> bool:
    """Whether a name in a list stands for a class, not for the background or a gap."""
    return _NO_CLASS.fullmatch(name.strip()) is None


def settle_classes(
    source: DetectorSource,
    names: tuple[str, ...] | None,
    match: Match,
    kind: Scores,
    known: Known,
    measured: Measured,
    guesses: Guesses,
) -> Classes:
    """The detector's classes and their numbers: as asked for, as is known, else as was seen.

    ``names`` are those of the user or of the file, None where neither has any.

    Raises:
        ConfigError: names and numbers do not fit each other.
    """
    if match.labels is None:
        return _by_columns(source, names, match, _background(match, kind, measured), guesses)
    prefix = guesses.prefix
    if names is None:
        names = guesses.add_names(COCO)
    _check_ids(prefix, source, names)
    seen = _seen(match, measured)
    rule, doubt = _rule_for_labels(prefix, source, names, known, seen)
    own = tuple(name for name in names if is_class(name))
    numbers = rule.numbers(names)
    strange = sorted({*np.concatenate(seen)[:, 0].astype(int)} - {*numbers, *_gaps(rule, names)})
    if strange:
        raise ConfigError(
            f"{source.path} gives boxes of the class {strange[-1]} on the built-in photos, but its "
            f"{counted(len(own), 'class')} are numbered {numbers[0]} to {numbers[-1]}; give the "
            f"names of all with --{prefix}class-names, or how they are numbered with "
            f"--{prefix}class-offset or --{prefix}class-ids"
        )
    _note(rule, source, guesses)
    return Classes(own, numbers, doubt)


def _gaps(rule: _Rule, names: Sequence[str]) -> set[int]:
    """Numbers of no class: the background, and what a list of names leaves out."""
    if rule.ids is ClassIds.COCO91:
        return {*range(rule.offset, 90 + rule.offset)} - {*rule.numbers(names)}
    places = (place for place, name in enumerate(names) if not is_class(name))
    return {place + rule.offset for place in places}


def _check_ids(prefix: str, source: DetectorSource, names: Sequence[str]) -> None:
    if source.class_ids is ClassIds.COCO91 and not _of_coco(names):
        raise ConfigError(
            f"--{prefix}class-ids is coco91, but {source.path} has {counted(len(names), 'class')} "
            "that are not COCO's 80; give their names in the order of their numbers, with N/A "
            "for gaps"
        )


def _of_coco(names: Sequence[str]) -> bool:
    return [canonical(name) for name in names] == [canonical(name) for name in COCO]


def _seen(match: Match, measured: Measured) -> list[Float64Array]:
    """Label and confidence (D, 2) of every box of every picture, however unsure it is."""
    found = []
    for sample in measured.samples:
        pairs = [read_part(part, sample) for part in (match.labels, match.scores) if part]
        rows = np.concatenate(pairs, 1)
        if match.count is not None:
            rows = rows[: int(np.ravel(sample[match.count.tensors[0]])[0])]
        found.append(rows[rows[:, 1] > 0])  # what fills a list up has none
    return found


def _rule_for_labels(
    prefix: str,
    source: DetectorSource,
    names: Sequence[str],
    known: Known,
    seen: Sequence[Float64Array],
) -> tuple[_Rule, str | None]:
    """How labels are numbered, and a line where what was seen does not settle it."""
    usual = _usual(source, names, known)
    rules = [usual] if usual else []
    rules += [r for r in _possible(names) if r not in rules and _allowed(r, source)]
    labels = {*np.concatenate(seen)[:, 0].astype(int)}
    fitting = [r for r in rules if labels <= {*r.numbers(names)}]  # what is a gap never occurs
    fitting = fitting or [r for r in rules if labels <= {*r.numbers(names), *_gaps(r, names)}]
    if not fitting:
        return (rules or [_Rule(ClassIds.SEQUENTIAL, source.class_offset or 0)])[0], None
    votes = [_right(rule, names, seen) for rule in fitting]
    best = votes.index(max(votes))
    if votes[best] >= RIGHT:
        return fitting[best], None
    rule = fitting[0]
    if usual in fitting or 0 in labels or len(fitting) == 1:
        return rule, None
    gave = f"the classes {min(labels)} to {max(labels)}" if labels else "no classes"
    gave = f"only the class {min(labels)}" if len(labels) == 1 else gave
    return rule, (
        f"warning: {source.path} gave {gave} on the built-in photos, so it is open whether they "
        f"count from {rule.offset}, as they are read; where names are wrong in its results, give "
        f"--{prefix}class-offset 1 or --{prefix}class-ids coco91"
    )


def _usual(source: DetectorSource, names: Sequence[str], known: Known) -> _Rule | None:
    """What user or origin say; an offset of the user alone means numbers without gaps."""
    if source.class_ids is ClassIds.COCO91:
        return _Rule(ClassIds.COCO91, 1 if source.class_offset is None else source.class_offset)
    if source.class_offset is not None:
        return _Rule(ClassIds.SEQUENTIAL, source.class_offset)
    if known.class_offset is None:
        return None
    if known.coco_ids and source.class_ids is None and _of_coco(names):
        return _Rule(ClassIds.COCO91, known.class_offset)
    return _Rule(ClassIds.SEQUENTIAL, known.class_offset if is_class(names[0]) else 0)


def _possible(names: Sequence[str]) -> list[_Rule]:
    found = [_Rule(ClassIds.SEQUENTIAL, 0), _Rule(ClassIds.SEQUENTIAL, 1)]
    if _of_coco(names):
        found += [_Rule(ClassIds.COCO91, 1), _Rule(ClassIds.COCO91, 0)]
    return found


def _allowed(rule: _Rule, source: DetectorSource) -> bool:
    """Whether a rule is what the user said, where anything was said."""
    return source.class_ids in (None, rule.ids) and source.class_offset in (None, rule.offset)


def _right(rule: _Rule, names: Sequence[str], seen: Sequence[Float64Array]) -> int:
    """On how many of the built-in photos the surest box is of what is to be seen there."""
    keys = [canonical(name) for name in names if is_class(name)]
    numbers = rule.numbers(names)
    count = 0
    for wanted, rows in zip(PHOTOS, seen, strict=False):
        if wanted in keys and rows[:, 1].max(initial=0) >= _SURE:
            count += int(rows[rows[:, 1].argmax(), 0] == numbers[keys.index(wanted)])
    return count


def shows_known(names: Sequence[str]) -> bool:
    """Whether a detector has the classes of what the built-in photos show."""
    return {*PHOTOS} <= {canonical(name) for name in names}


def count_right(names: Sequence[str], scores: Sequence[Float32Array]) -> int:
    """On how many photos the highest of the scores (A, C) is that of what they show."""
    keys = [canonical(name) for name in names]
    surest = [keys[own.max(0, initial=0).argmax()] for own in scores]
    return sum(wanted == found for wanted, found in zip(PHOTOS, surest, strict=False))


def _note(rule: _Rule, source: DetectorSource, guesses: Guesses) -> None:
    """Say what the user has not said."""
    if rule.ids is ClassIds.COCO91:
        if source.class_ids is None:
            guesses.add("class-ids", rule.ids)
        if rule.offset == 1:
            return
    if source.class_offset is None:
        guesses.add("class-offset", rule.offset)


def _by_columns(
    source: DetectorSource,
    names: tuple[str, ...] | None,
    match: Match,
    background: int | None,
    guesses: Guesses,
) -> Classes:
    """The column of every class; one of them may be that of the background."""
    columns, prefix = match.columns, guesses.prefix
    rule = _rule_for_columns(source, names, columns, background)
    after = int(background is not None and background == columns - 1)
    if names is None:
        count = columns - rule.offset - after
        by_ids = rule.ids is ClassIds.COCO91
        names = guesses.add_names(COCO if by_ids else class_names_for(max(1, count), None))
    _check_ids(prefix, source, names)
    if rule.ids is ClassIds.SEQUENTIAL:
        spare = columns - len(names) - rule.offset
        if spare < 0 or (spare > after and source.class_offset is None):
            raise ConfigError(
                f"{source.class_names or source.path} names {counted(len(names), 'class')}, but "
                f"the outputs of {source.path} have {columns}; give other names with "
                f"--{prefix}class-names, or where some of these are no classes, the number of the "
                f"first class with --{prefix}class-offset"
            )
    numbers = rule.numbers(names)
    if not 0 <= numbers[0] <= numbers[-1] < columns:
        raise ConfigError(
            f"the classes of {source.path} would be columns {numbers[0]} to {numbers[-1]}, but it "
            f"has {columns} from 0 on; change --{prefix}class-offset or --{prefix}class-ids"
        )
    if numbers != tuple(range(columns)):
        _note(rule, source, guesses)
    return Classes(tuple(name for name in names if is_class(name)), numbers)


def _rule_for_columns(
    source: DetectorSource, names: tuple[str, ...] | None, columns: int, background: int | None
) -> _Rule:
    """As asked for; else 90 columns, or 91 and perhaps the background's, are COCO's ids."""
    of_coco = names is None or _of_coco(names)
    ids = source.class_ids
    if ids is None:
        many = columns in (90, 91) or (columns == 92 and background == 91)
        ids = ClassIds.COCO91 if many and of_coco else ClassIds.SEQUENTIAL
    if source.class_offset is not None:
        return _Rule(ids, source.class_offset)
    if ids is ClassIds.COCO91:
        return _Rule(ids, 0 if columns == 90 else 1)
    named = names is not None and (len(names) == columns or not is_class(names[0]))
    return _Rule(ids, 1 if background == 0 and not named else 0)


def _background(match: Match, kind: Scores, measured: Measured) -> int | None:
    """The first or the last column where it is no class: all sum to 1, and it wins most boxes."""
    if match.columns < 2 or match.objectness is not None or kind is Scores.LOGITS:
        return None
    rows = np.concatenate([read_part(match.scores, sample) for sample in measured.samples])
    softmax = kind is Scores.SOFTMAX
    if not len(rows) or not (softmax or (np.abs(rows.sum(1) - 1) < 0.01).all()):
        return None
    winners = rows.argmax(1)
    wins = {column: (winners == column).mean() for column in (0, match.columns - 1)}
    best = max(wins, key=lambda column: wins[column])
    return best if wins[best] > 0.5 else (match.columns - 1 if softmax else None)
