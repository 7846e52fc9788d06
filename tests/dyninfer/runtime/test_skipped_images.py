from __future__ import annotations

import logging

import numpy as np
import pytest

from dyninfer import AlwaysHard, Forced, InputError
from tests import support


def picture(red: int) -> np.ndarray:
    """Easiness is red / 255, and so is what the tiny head finds."""
    return np.full((8, 8, 3), (0, 0, red), np.uint8)


GOOD = [picture(red) for red in (20, 240, 60, 230, 100)]
BAD = ["missing.jpg", b"not a picture", None]


def mixed() -> list:
    return [BAD[0], GOOD[0], BAD[1], GOOD[1], GOOD[2], BAD[2], GOOD[3], GOOD[4]]


@pytest.mark.parametrize("max_batch", [1, 2, 3, 64])
def test_bad_images_lose_no_others_and_keep_their_places(two_exits, caplog, max_batch) -> None:
    two_exits._max_batch = max_batch
    expected = [found.to_dict() | {"timings_ms": {}} for found in two_exits(GOOD)]
    with caplog.at_level(logging.WARNING, "dyninfer"):
        found = two_exits(mixed(), on_error="skip")
    assert [place for place, one in enumerate(found) if one is None] == [0, 2, 5]
    assert [one.to_dict() | {"timings_ms": {}} for one in found if one is not None] == expected
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "images[0] of 8",
        "images[2] of 8",
        "images[5] of 8",
    ]
    assert "missing.jpg does not exist; check the path; skipped" in caplog.text


@pytest.mark.parametrize("max_batch", [1, 3, 64])
def test_forced_ways_stay_with_their_images(two_exits, max_batch) -> None:
    two_exits._max_batch = max_batch
    ways = [1, 0, 0, 1, 1, 1, 0, 1]
    found = two_exits(mixed(), on_error="skip", policy=Forced(ways))
    taken = [None if one is None else one.exit_index for one in found]
    assert taken == [None, 0, None, 1, 1, None, 0, 1]


def test_one_image_a_stream_and_nothing_but_bad_ones(two_exits) -> None:
    assert two_exits("missing.jpg", on_error="skip") is None
    assert two_exits(GOOD[0], on_error="skip").exit_index == 1
    assert two_exits(BAD, on_error="skip") == [None] * 3
    assert two_exits([], on_error="skip") == []
    streamed = list(two_exits.stream(mixed(), on_error="skip", policy=AlwaysHard()))
    assert [one is None for one in streamed] == [
        True,
        False,
        True,
        False,
        False,
        True,
        False,
        False,
    ]


def test_otherwise_the_first_bad_one_ends_the_call(two_exits) -> None:
    with support.refuses(InputError, "images[0] of 8", "missing.jpg"):
        two_exits(mixed())
    with support.refuses(InputError, "on_error is 'ignore'", "'raise' or 'skip'"):
        two_exits(GOOD, on_error="ignore")


def test_errors_that_are_not_of_an_image_are_raised_all_the_same(two_exits) -> None:
    two_exits.close()
    for images in (GOOD, GOOD[0]):
        with support.refuses(InputError, "closed"):
            two_exits(images, on_error="skip")
