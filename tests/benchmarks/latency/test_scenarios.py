from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import dyninfer
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.scenarios import Choices, make_scenarios
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from tests import support
from tests.support import refuses


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(support.write_two_exits(tmp_path_factory.mktemp("b") / "two.dyn")).manifest


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(support.write_static(tmp_path_factory.mktemp("b") / "one.dyn")).manifest


@pytest.fixture(scope="module")
def without_router(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path: Path = tmp_path_factory.mktemp("b") / "none.dyn"
    return Bundle.open(support.write_two_exits(path, router=False)).manifest


def test_a_cascade_is_run_easy_mixed_and_hard_at_two_batch_sizes(routed: Manifest) -> None:
    assert make_scenarios(routed, Choices()) == tuple(
        Scenario(batch, hard) for batch in (1, 8) for hard in (0.0, 0.5, 1.0)
    )


def test_everything_is_the_product_of_what_was_asked_for(routed: Manifest) -> None:
    choices = Choices((1, 4), (0.25,), (1, 2), (5.0,), decode=True, as_routed=True)
    found = make_scenarios(routed, choices)
    closed = {s for s in found if s.rate_per_s is None and not s.decode}
    assert closed == {
        Scenario(batch, hard, callers)
        for batch in (1, 4)
        for hard in (0.25, None)
        for callers in (1, 2)
    }
    assert {s for s in found if s.decode} == {Scenario(1, h, decode=True) for h in (0.25, None)}
    assert {s for s in found if s.rate_per_s} == {
        Scenario(1, hard, callers, 5.0) for hard in (0.25, None) for callers in (1, 2)
    }
    assert len({s.name for s in found}) == len(found)


def test_decoding_is_run_by_itself_whatever_the_batches_and_callers(routed: Manifest) -> None:
    found = make_scenarios(routed, Choices((8,), (0.0, 1.0), (2,), decode=True))
    assert found == (
        Scenario(8, 0.0, 2),
        Scenario(8, 1.0, 2),
        Scenario(1, 0.0, decode=True),
        Scenario(1, 1.0, decode=True),
    )


@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        (Scenario(), "batch 1, as routed"),
        (Scenario(1, 0.07), "batch 1, 7 % hard"),
        (Scenario(8, 1.0, 2), "batch 8, 100 % hard, 2 callers"),
        (Scenario(1, 0.001, rate_per_s=20.0), "batch 1, 0.1 % hard, 20 calls/s"),
        (Scenario(1, 0.0, decode=True), "batch 1, 0 % hard, with decoding"),
        (Scenario(2, way="branch 1", concurrency=3), "batch 2, branch 1, 3 callers"),
    ],
)
def test_a_scenario_has_a_name(scenario: Scenario, name: str) -> None:
    assert scenario.name == name


def test_one_exit_has_one_way_to_go(static: Manifest) -> None:
    only = Scenario(way="exit 0")
    both = (only, replace(only, batch=8))
    assert make_scenarios(static, Choices(as_routed=True)) == both
    assert make_scenarios(static, Choices((1,), (1.0,))) == (only,)
    with refuses(dyninfer.PolicyError, "one exit", "leave --hard out"):
        make_scenarios(static, Choices(hard=(0.5,)))


def test_a_refusal_names_the_bundle_as_it_was_typed(static: Manifest) -> None:
    with refuses(dyninfer.PolicyError, "models/my.dyn has one exit"):
        make_scenarios(static, Choices(hard=(0.5,)), "models/my.dyn")


def test_without_a_router_only_the_ends_can_be_forced(without_router: Manifest) -> None:
    assert make_scenarios(without_router, Choices((1,), as_routed=True)) == (
        Scenario(1, 0.0),
        Scenario(1, 1.0),
    )
    with refuses(dyninfer.PolicyError, "no router", "0.25", "0,100%"):
        make_scenarios(without_router, Choices(hard=(0.0, 0.25)))


def test_a_scenario_is_run_once(routed: Manifest) -> None:
    assert len(make_scenarios(routed, Choices((1, 1), (0.5, 0.5)))) == 1


@pytest.fixture(scope="module", params=["three", "classifiers", "detectors"])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    write = {
        "three": support.write_three_exits,
        "classifiers": support.write_select_classifiers,
        "detectors": support.write_select_detectors,
    }[request.param]
    return Bundle.open(write(tmp_path_factory.mktemp("b") / "some.dyn")).manifest


def test_every_way_is_measured_and_what_a_chooser_makes_of_them(several: Manifest) -> None:
    found = [scenario.name for scenario in make_scenarios(several, Choices((1,)))]
    if len(several.ways) == 3:
        assert found == [
            "batch 1, 0 % hard",
            "batch 1, exit 1",
            "batch 1, 50 % hard",
            "batch 1, 100 % hard",
        ]
    else:
        assert found == ["batch 1, branch 0", "batch 1, branch 1", "batch 1, as routed"]


def test_shares_that_were_asked_for_take_the_place_of_the_ways(several: Manifest) -> None:
    found = [s.name for s in make_scenarios(several, Choices((4,), (0.25, 1.0)))]
    last = "100 % hard" if len(several.ways) == 3 else "branch 1"
    own = [] if len(several.ways) == 3 else ["batch 4, as routed"]
    assert found == ["batch 4, 25 % hard", f"batch 4, {last}", *own]
