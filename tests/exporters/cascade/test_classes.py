from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer import ConfigError
from dyninfer.exporters.cascade.classes import reconcile
from dyninfer.exporters.cascade.options import ClassList
from tests import support


def test_equal_lists_need_no_word() -> None:
    found = reconcile([("cat", "dog"), ("cat", "dog")])
    assert (found.names, found.columns, found.notes) == (("cat", "dog"), ((0, 1), (0, 1)), ())


def test_the_last_list_is_kept_and_others_are_put_into_its_order() -> None:
    found = reconcile(
        [("Motor-Bike", "aeroplane", "TV_monitor", "egg"), ("airplane", "tv", "motorcycle")]
    )
    assert found.names == ("airplane", "tv", "motorcycle")
    assert found.columns == ((1, 2, 0), (0, 1, 2))
    assert found.notes == (
        "first: 3 of its 4 classes matched under another name: "
        "aeroplane = airplane, TV_monitor = tv, Motor-Bike = motorcycle",
        "first: 1 of its 4 classes dropped: egg",
    )


def test_what_a_detector_lacks_is_said() -> None:
    found = reconcile([("dog",), ("cat", "dog")])
    assert found.columns == ((-1, 0), (0, 1))
    assert found.notes == ("first: lacks 1 of the 2 classes: cat",)


def test_common_and_union() -> None:
    lists = [("dog", "egg"), ("cat", "dog"), ("dog", "fox")]
    common = reconcile(lists, ClassList.COMMON)
    assert common.names == ("dog",)
    assert common.columns == ((0,), (1,), (0,))
    union = reconcile(lists, ClassList.UNION)
    assert union.names == ("dog", "fox", "egg", "cat")
    assert union.columns == ((0, -1, 1, -1), (1, -1, -1, 0), (0, 1, -1, -1))


def test_no_class_in_common_shows_some_of_both() -> None:
    with support.refuses(ConfigError, "cat", "spoon", "none in common", "--first-class-names"):
        reconcile([("cat", "dog"), ("spoon", "fork")])
    with support.refuses(ConfigError, "second", "classes spoon and the last cat, dog: none in"):
        reconcile([("cat",), ("spoon",), ("cat", "dog")])


def test_three_lists_that_share_no_class_have_nothing_in_common() -> None:
    with support.refuses(ConfigError, "--classes last"):
        reconcile([("cat",), ("dog",), ("cat", "dog")], ClassList.COMMON)


@pytest.mark.parametrize("names", [("cat", "cat"), ("hot dog", "Hot-Dog"), ("sofa", "couch")])
def test_a_name_that_is_there_twice_is_refused(names: tuple[str, str]) -> None:
    with support.refuses(ConfigError, "second", "0 and 1", names[1]):
        reconcile([("cat", "couch"), names])


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True)


@given(st.lists(words, min_size=2, max_size=4), st.sampled_from(ClassList))
def test_every_column_has_the_name_of_its_class(lists: list[list[str]], choice: ClassList) -> None:
    try:
        found = reconcile(lists, choice)
    except ConfigError:
        shared = [set(own) & set(lists[-1]) for own in lists]
        assert not all(shared) or not set.intersection(*shared)
        return
    assert len(set(found.names)) == len(found.names)
    for own, columns in zip(lists, found.columns, strict=True):
        assert len(columns) == len(found.names)
        for name, column in zip(found.names, columns, strict=True):
            assert own[column] == name if column >= 0 else name not in own


def test_names_that_differ_in_unicode_form_alone_are_one_class() -> None:
    found = reconcile([["caf\xe9", "dog"], ["dog", "cafe\u0301"]])
    assert found.names == ("dog", "cafe\u0301")
    assert found.columns == ((1, 0), (0, 1))


def test_eight_names_of_many_are_shown() -> None:
    many = [f"a{n}" for n in range(9)]
    with support.refuses(ConfigError, "a6, a7 and 1 more and the last b0:"):
        reconcile([many, ["b0"]])
    assert reconcile([[*many, "b"], ["b"]]).notes == (
        "first: 9 of its 10 classes dropped: a0, a1, a2, a3, a4, a5, a6, a7 and 1 more",
    )
