"""A route as data: what runs, what is kept, and what a single way needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.routing.policy import hardest_way
from dyninfer.runtime.plan import (
    END,
    alone,
    decision_points,
    gathered,
    inputs_of_all,
    plan,
    stages_of,
    steps_for,
)
from tests import support


@pytest.fixture
def written(tmp_path: Path):
    def read(write, **options) -> Manifest:
        return Bundle.open(write(tmp_path / f"{write.__name__}.dyn", **options)).manifest

    return read


def test_a_static_route_is_one_segment_without_a_decision(written) -> None:
    (segment,) = plan(written(support.write_static_two_stages))
    assert [step.stage for step in segment.run] == ["body"]
    assert segment.decide is None
    assert segment.end is not None
    assert segment.end.head is not None
    assert (segment.end.way, segment.end.head.stage) == (0, "head")
    assert segment.end.outputs == ("boxes_xyxy", "class_scores")
    assert decision_points((segment,)) == ()


def test_a_cascade_ends_or_goes_on_at_every_exit_but_the_last(written) -> None:
    first, second, last = plan(written(support.write_three_exits))
    assert first.decide is not None
    assert second.decide is not None
    assert last.decide is None
    assert first.decide.outcomes == (END, 1)
    assert second.decide.outcomes == (END, 2)
    assert first.decide.keeps[0] == frozenset({"value_1"})
    assert first.decide.keeps[1] == frozenset({"value_1", "value_2", "images", "images_2"})
    # the third body reads the first one's feature and the images, not what the second exit made
    assert second.decide.keeps[1] == frozenset({"value_1", "images"})
    points = decision_points((first, second, last))
    assert [point.ways for point in points] == [
        (frozenset({0}), frozenset({1, 2})),
        (frozenset({1}), frozenset({2})),
    ]
    assert [point.signal for point in points] == ["easiness", "easiness"]


def test_where_a_router_is_missing_there_is_a_decision_without_a_signal(written) -> None:
    first, _ = plan(written(support.write_two_exits, router=False))
    assert first.decide is not None
    assert first.decide.step is None
    assert first.decide.point.signal is None


def test_a_select_route_decides_before_any_branch_runs(written) -> None:
    chooser, *branches = plan(written(support.write_select_detectors))
    assert chooser.run == ()
    assert chooser.end is None
    assert chooser.decide is not None
    assert chooser.decide.outcomes == (1, 2)
    assert chooser.decide.keeps == (frozenset({"images"}), frozenset({"images_2"}))
    assert [stages_of([branch]) for branch in branches] == [("body_0",), ("body_1", "head_1")]
    assert [branch.end.image_input for branch in branches] == ["images", "images_2"]


def test_a_decision_knows_what_every_way_costs(written) -> None:
    cascade = written(support.write_two_exits)
    costs = {"first": 5, "router": 1, "head": 40, "second": 20}
    stages = {n: s.model_copy(update={"macs": costs[n]}) for n, s in cascade.stages.items()}
    for manifest, expected, order in (
        (cascade.model_copy(update={"stages": stages}), (46, 26), (0, 1)),
        (written(support.write_dear_first), (51, 6), (1, 0)),
    ):
        points = decision_points(plan(manifest))
        assert [point.macs for point in points] == [expected]
        assert tuple(points[0].by_cost) == manifest.ways_by_cost == order
        assert hardest_way(points) == order[-1]
    assert hardest_way(()) == 0


def test_a_way_alone_leaves_out_what_it_does_not_need(written) -> None:
    three = written(support.write_three_exits)
    assert stages_of(alone(three, 0)) == ("body_1", "head_1")
    assert stages_of(alone(three, 1)) == ("body_2", "head_2")
    assert stages_of(alone(three, 2)) == ("body_1", "body_3")
    select = written(support.write_select_detectors)
    assert [stages_of(alone(select, way)) for way in (0, 1)] == [("body_0",), ("body_1", "head_1")]
    static = written(support.write_static)
    assert alone(static, 0) == plan(static)


def test_the_steps_before_a_tensor_are_those_that_it_depends_on(written) -> None:
    three = written(support.write_three_exits)
    assert steps_for(three, ["images"]) == ()
    assert [step.stage for step in steps_for(three, ["value_2"])] == ["body_2"]
    assert [step.stage for step in steps_for(three, ["value_1", "value_2"])] == ["body_1", "body_2"]
    # the last stage of the route makes the boxes, from what the first one made
    wanted = ["boxes_xyxy", "value_2", "easiness"]
    found = [step.stage for step in steps_for(three, wanted)]
    assert found == ["body_1", "body_2", "router_2", "body_3"]


@pytest.mark.parametrize(
    ("write", "options", "expected"),
    [
        (support.write_static, {}, ["images"]),
        (support.write_two_exits, {"router": False}, ["images"]),
        (support.write_three_exits, {}, ["images"]),  # a later exit reads others
        (support.write_select_detectors, {}, ["images"]),  # one of its branches reads others
    ],
)
def test_every_image_is_prepared_for_what_runs_before_any_decision(
    written, write, options, expected
) -> None:
    assert inputs_of_all(plan(written(write, **options))) == expected


def test_what_is_gathered_where_a_batch_is_split_is_what_runs_behind(written) -> None:
    assert gathered(plan(written(support.write_static_two_stages))) == []
    assert gathered(plan(written(support.write_select_detectors))) == [
        ("from 0 to 1", "images"),
        ("from 0 to 2", "images_2"),
    ]
    assert gathered(plan(written(support.write_three_exits))) == [
        (f"from 0 to {END}", "value_1"),
        *(("from 0 to 1", name) for name in ("images", "images_2", "value_1", "value_2")),
        (f"from 1 to {END}", "value_2"),
        *(("from 1 to 2", name) for name in ("images", "value_1")),
    ]
