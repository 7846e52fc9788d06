from __future__ import annotations

from pathlib import Path

import pytest

import dyninfer
from dyninfer.benchmarks.latency.scenario_record import Scenario
from dyninfer.benchmarks.latency.scenarios import Choices, check_measurable, make_scenarios
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Task
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
    ],
)
def test_a_scenario_has_a_name(scenario: Scenario, name: str) -> None:
    assert scenario.name == name


def test_one_exit_has_one_way_to_go(static: Manifest) -> None:
    assert make_scenarios(static, Choices(as_routed=True)) == (Scenario(1, 1.0), Scenario(8, 1.0))
    assert make_scenarios(static, Choices((1,), (1.0,))) == (Scenario(1, 1.0),)
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


def test_a_classifier_is_refused(routed: Manifest) -> None:
    check_measurable(routed)
    with refuses(dyninfer.InputError, "classifies", "detectors"):
        check_measurable(routed.model_copy(update={"task": Task.CLASSIFY}))
