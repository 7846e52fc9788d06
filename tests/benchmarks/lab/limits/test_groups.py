from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from dyninfer.benchmarks.lab.limits.groups import GROUPS, check_groups, measure_apart
from dyninfer.errors import InputError


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_measures_with_what_it_is_given(name: str) -> None:
    group = GROUPS[name]
    parameters = inspect.signature(group.measure).parameters
    assert ("bundle" in parameters) == group.needs_bundle
    assert "rounds" in parameters
    assert group.rounds >= 2


def test_groups_come_in_their_own_order_whatever_was_asked_first() -> None:
    assert check_groups("engines, preprocessing") == ("preprocessing", "engines")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no group of limits is named"), ("engine", "did you mean engines"), ("x", "expected")],
)
def test_groups_that_do_not_exist_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_groups(text)


def test_a_group_is_measured_in_a_process_of_its_own() -> None:
    (result,) = measure_apart("preprocessing", Path("not needed"), 2)
    assert result.key == "preprocessing"
    assert result.measured.rounds == 2
    assert all(len(times) == 2 for times in result.times_ms.values())


def test_what_a_group_refuses_reaches_the_caller() -> None:
    with pytest.raises(InputError, match="paired"):
        measure_apart("preprocessing", Path("not needed"), 1)
