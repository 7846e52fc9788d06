from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.builds.precisions import describe_plan, parse_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.errors import InputError
from tests import support

STAGES = ("first", "router", "head", "second")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    path = tmp_path_factory.mktemp("plan") / "two.dyn"
    return Bundle.open(support.write_two_exits(path)).manifest


def test_one_precision_is_for_all_stages_but_the_router(manifest) -> None:
    plan = parse_precision("fp16", manifest)
    assert plan.pop("router") is Precision.FP32
    assert set(plan.values()) == {Precision.FP16}
    assert manifest.deciders == ("router",)


def test_a_router_is_converted_where_it_is_named(manifest) -> None:
    assert parse_precision("int8,router=fp16", manifest)["router"] is Precision.FP16


def test_stages_that_nothing_is_said_of_stay_in_float32(manifest) -> None:
    plan = parse_precision(" first = INT8 , second=fp16", manifest)
    assert list(plan.values()) == [
        Precision.INT8,
        Precision.FP32,
        Precision.FP32,
        Precision.FP16,
    ]


@given(plan=st.fixed_dictionaries({stage: st.sampled_from(Precision) for stage in STAGES}))
def test_a_plan_that_is_written_out_reads_back(manifest, plan) -> None:
    assert parse_precision(describe_plan(plan, manifest), manifest) == plan


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["a missing value", "fp32, fp16, int8"]),
        ("fp8", ["'fp8'", "fp32, fp16, int8"]),
        ("first=", ["a missing value"]),
        ("frist=fp16", ["'frist'", "did you mean 'first'?"]),
        ("=fp16", ["no stage ''"]),
        ("tail=int8", ["'tail'", "first, router, head, second"]),
        ("head=fp16,head=int8", ["'head'", "twice"]),
        ("fp16,int8", ["two precisions"]),
    ],
)
def test_mistakes_are_named(manifest, text, parts) -> None:
    with support.refuses(InputError, *parts):
        parse_precision(text, manifest)
