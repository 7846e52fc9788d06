"""Which scores of a head are worth looking at: one pass over all, and the rest over few."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dyninfer.types import BoolArray, Float32Array, Int64Array

_WORD = 8  # truth values in a uint64
_PART = 1 << 15  # words that are compared at a time
_LONG = 1 << 16  # a mask that is worth a detour
_ALL_TRUE = np.uint64(0x0101010101010101)


LARGEST_SCORE = 1.001
"""Scores between 1 and this are rounded, and count as 1; those above are broken, and as NaN."""


class Candidates(NamedTuple):
    """Pairs of an anchor and a class: both (M,), and their confidences (M,) float32.

    ``broken`` is how many scores besides were no number up to 1.
    """

    anchors: Int64Array
    class_ids: Int64Array
    confidences: Float32Array
    broken: int


_NO_INDEX = np.empty(0, np.int64)
_NOTHING = Candidates(_NO_INDEX, _NO_INDEX, np.empty(0, np.float32), 0)


def every_label(class_scores: Float32Array, confidence: float) -> Candidates:
    """All scores (A, C) above ``confidence``, by anchor, then by class."""
    found = _not_at_most(class_scores, confidence)
    return _where(found, found.confidences > confidence)  # false for NaN


def best_label(class_scores: Float32Array, confidence: float) -> Candidates:
    """The best class of each anchor of scores (A, C) where it is above ``confidence``.

    Of equal classes the first is the best; an anchor with a NaN is left out.
    """
    found = _not_at_most(class_scores, confidence)
    if len(found.anchors) < 2:
        return _where(found, found.confidences == found.confidences) if found.broken else found
    first = _differs_from_last(found.anchors)
    if first.all():
        best = found.confidences == found.confidences
    else:
        highest = np.maximum.reduceat(found.confidences, first.nonzero()[0])  # NaN counts as such
        best = found.confidences == highest.take(first.cumsum() - 1)
    found = _where(found, best)
    return _where(found, _differs_from_last(found.anchors))


def _differs_from_last(anchors: Int64Array) -> BoolArray:
    """(M,): whether an anchor differs from the one before it."""
    differs = np.ones(len(anchors), np.bool_)
    np.not_equal(anchors[1:], anchors[:-1], out=differs[1:])
    return differs


def _where(found: Candidates, chosen: BoolArray) -> Candidates:
    if np.count_nonzero(chosen) == len(chosen):  # quicker than all() for few
        return found
    positions = chosen.nonzero()[0]
    return Candidates(
        found.anchors.take(positions),
        found.class_ids.take(positions),
        found.confidences.take(positions),
        found.broken,
    )


def _not_at_most(class_scores: Float32Array, confidence: float) -> Candidates:
    """All scores that are above ``confidence`` or NaN, by anchor, then by class."""
    scores = class_scores.ravel()
    if scores.size < _LONG:
        places = (~(scores <= confidence)).nonzero()[0]
    else:
        places = _places_not_at_most(scores, confidence)
    if not len(places):
        return _NOTHING
    confidences = scores.take(places).astype(np.float32, copy=False)
    columns = class_scores.shape[1]
    if len(places) == 1 and confidences.item() <= 1:  # NumPy takes as long for one as for hundreds
        anchor, class_id = divmod(places.item(), columns)
        return Candidates(np.array([anchor]), np.array([class_id]), confidences, 0)
    anchors, class_ids = np.divmod(places, columns)
    if confidences.max() <= 1:  # false for NaN
        return Candidates(anchors, class_ids, confidences, 0)
    rounded = np.minimum(confidences, 1)
    confidences = np.where(confidences <= LARGEST_SCORE, rounded, np.float32(np.nan))
    broken = int(np.count_nonzero(np.isnan(confidences)))
    found = Candidates(anchors, class_ids, confidences, broken)
    return _where(found, ~(confidences <= confidence))


def _places_not_at_most(scores: Float32Array, confidence: float) -> Int64Array:
    """Where scores (M,) are above ``confidence`` or NaN, word by word."""
    words, rest = divmod(scores.size, _WORD)
    hits = _true_places(_words_with_hits(scores, words, confidence))
    places = _places_within(
        hits, ~(scores[: words * _WORD].reshape(-1, _WORD).take(hits, 0) <= confidence)
    )
    if rest:
        tail = (~(scores[words * _WORD :] <= confidence)).nonzero()[0]
        places = np.concatenate([places, tail + words * _WORD])
    return places


def _words_with_hits(scores: Float32Array, words: int, confidence: float) -> BoolArray:
    """(words,): whether one of eight scores is above ``confidence`` or NaN.

    The comparisons of a part are looked at while they are in a core's cache.
    """
    found = np.empty(words, np.bool_)
    at_most = np.empty(min(_PART, words) * _WORD, np.bool_)
    for start in range(0, words, _PART):
        stop = min(start + _PART, words)
        compared = at_most[: (stop - start) * _WORD]
        np.less_equal(scores[start * _WORD : stop * _WORD], confidence, out=compared)
        np.not_equal(compared.view(np.uint64), _ALL_TRUE, out=found[start:stop])
    return found


def _true_places(mask: BoolArray) -> Int64Array:
    """Where a mask is true, which is next to nowhere: eight of its values are looked at at once."""
    if mask.size < _LONG or mask.size % _WORD:
        return mask.nonzero()[0]
    hits = _true_places(mask.view(np.uint64) != 0)
    return _places_within(hits, mask.reshape(-1, _WORD).take(hits, 0))


def _places_within(words: Int64Array, values: BoolArray) -> Int64Array:
    """Where the values (W, 8) of some words are true, counted over all words."""
    found = values.reshape(-1).nonzero()[0]
    return words.take(found >> 3) * _WORD + (found & 7)
