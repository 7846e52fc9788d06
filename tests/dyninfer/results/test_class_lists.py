from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer.errors import ConfigError
from dyninfer.results.class_lists import canonical, match_names, names_from
from tests import support

relaxed = settings(deadline=None)
NAMES = st.lists(st.text(max_size=8), max_size=6)


def test_empty_lists_match_nothing() -> None:
    assert match_names([], ["car"]) == []
    assert match_names(["car"], []) == [None]


def test_exact_loose_and_unknown_names() -> None:
    known = ["person", "traffic light", "tv", "couch"]
    names = ["couch", "Traffic_Light", "sofa", "tvmonitor", "zebra"]
    assert match_names(names, known) == [3, 1, 3, 2, None]


def test_an_exactly_equal_name_wins_over_a_loosely_equal_one() -> None:
    known = ["TV", "tv", "t v"]
    assert match_names(["tv", "t v", "Tv"], known) == [1, 2, 0]


def test_of_equal_names_the_first_counts() -> None:
    assert match_names(["car", "CAR"], ["car", "car"]) == [0, 0]


@pytest.mark.parametrize(
    ("voc", "coco"),
    [
        ("aeroplane", "airplane"),
        ("motorbike", "motorcycle"),
        ("sofa", "couch"),
        ("tvmonitor", "tv"),
        ("diningtable", "dining table"),
        ("pottedplant", "potted plant"),
    ],
)
def test_pascal_vocs_names_equal_cocos(voc, coco) -> None:
    assert canonical(voc) == canonical(coco)
    assert match_names([voc], [coco]) == match_names([coco], [voc]) == [0]


@relaxed
@given(NAMES)
def test_every_list_matches_itself(names) -> None:
    assert match_names(names, names) == [names.index(name) for name in names]


@relaxed
@given(st.text(max_size=12))
def test_a_canonical_name_is_its_own(name) -> None:
    plain = canonical(name)
    assert canonical(plain) == plain
    assert canonical(f" {name}-_") == plain


@relaxed
@given(NAMES, NAMES)
def test_a_match_has_the_same_canonical_name_and_a_miss_has_none(names, known) -> None:
    for name, index in zip(names, match_names(names, known), strict=True):
        if index is None:
            assert canonical(name) not in {canonical(other) for other in known}
        else:
            assert canonical(known[index]) == canonical(name)


@pytest.mark.parametrize("name", ["Caf\xe9", "\u01f0", "\xc5ngstr\xf6m", "\ud55c\uae00", "\u1e69"])
def test_letters_with_accents_match_in_either_form(name) -> None:
    one, other = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert one != other
    assert match_names([one], [other]) == match_names([other], [one]) == [0]
    assert match_names([one.upper()], [other]) == [0]
    assert match_names([one], ["cafe", "angstrom"]) == [None]


@pytest.mark.parametrize(
    "names",
    [
        ["cat", " dog "],
        {0: "cat", 1: "dog"},
        {1: "dog", 0: "cat"},
        {"0": "cat", "1": "dog"},  # as JSON has it
    ],
)
def test_names_are_read_from_lists_and_from_mappings_in_any_order(names) -> None:
    assert names_from(names, "a.yaml") == ("cat", "dog")


def test_no_names_are_no_classes() -> None:
    assert names_from([], "a.yaml") == names_from({}, "a.yaml") == ()


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ({1: "cat", 2: "dog"}, ["numbers 1, 2", "expected 0, 1, 2"]),
        ({0: "cat", 2: "dog"}, ["numbers 0, 2"]),
        (
            dict.fromkeys(range(5, 20), "cat"),
            ["numbers 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, expected"],
        ),
        ("cat", ["'cat'", "expected a list"]),
        (None, ["'None'"]),
        ("x" * 41, [f"is {'x' * 40!r}, expected a list"]),
        (["cat", ""], ["class 1", "''"]),
        (["  "], ["class 0"]),
        (["cat", 3], ["class 1", "is 3"]),
    ],
)
def test_what_names_no_classes_is_refused(names, parts) -> None:
    with support.refuses(ConfigError, "a.yaml", *parts):
        names_from(names, "a.yaml")
