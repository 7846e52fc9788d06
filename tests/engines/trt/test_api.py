from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.engines.trt import api
from dyninfer.engines.trt.library import Flavour, load_library
from tests import support
from tests.engines.trt.api_check import (
    Member,
    calls_of,
    members,
    problem_in_module,
    signatures,
)

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
USED = members(api)
SOURCES = sorted((support.ROOT / "engines" / "trt").glob("*.py"))


def optional(member: Member) -> bool:
    return member.key in api.OPTIONAL or member.owner in api.OPTIONAL


def test_the_descriptions_are_not_empty() -> None:
    assert len(USED) > 60
    assert Member("IOptimizationProfile", "set_shape", 4) in USED
    assert Member("BuilderFlag", "FP16", None) in USED


@pytest.mark.parametrize("member", USED, ids=lambda member: member.key)
def test_the_real_tensorrt_rtx_has_what_is_used(member: Member) -> None:
    problem = problem_in_module(member, tensorrt_rtx)

    assert problem is None or (optional(member) and " has no " in problem)


def test_what_is_called_optional_is_described() -> None:
    known = {member.key for member in USED} | {member.owner for member in USED}

    assert set(api.OPTIONAL) <= known


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_the_library_module_asks_what_is_there(path: Path) -> None:
    asks = calls_of(path, {"hasattr"})

    assert path.name == "library.py" or not asks


def test_a_member_that_does_not_exist_is_found() -> None:
    invented = Member("IBuilderConfig", "set_everything", 1)
    unknown = Member("IFlux", "capacity", None)
    wrong = Member("IOptimizationProfile", "set_shape", 3)

    for member in (invented, unknown, wrong):
        assert problem_in_module(member, tensorrt_rtx)


def test_signatures_are_read_with_overloads_defaults_and_nested_types() -> None:
    text = (
        "f(*args, **kwargs)\n1. f(self: A, b: C[D, E]) -> None\n\n2. f(self: A, b: C = 1, *, d: E)"
    )

    assert [(t.least, t.most) for t in signatures(text, "f")] == [(1, 1), (1, 2)]


def test_what_the_library_says_of_itself() -> None:
    library = load_library(Flavour.RTX)

    assert library.title == f"TensorRT-RTX {tensorrt_rtx.__version__}"
    assert library.has("IProgressMonitor")
    assert library.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    assert library.has("BuilderFlag.REQUIRE_USER_ALLOCATION")
    assert {"7.5", "8.0", "8.6", "8.9", "12.0"} <= set(library.compute_capabilities)
