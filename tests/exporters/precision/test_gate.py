"""Which figures are beyond a gate, and which stage is to blame, from figures written here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.errors import VerificationError
from dyninfer.exporters.parity import Flips
from dyninfer.exporters.precision.gate import Figure, beyond, fall_back, figures, largest
from dyninfer.exporters.precision.measure import ExitError, PrecisionReport, TensorError
from tests import support

INT8, FP16, FP32 = Precision.INT8, Precision.FP16, Precision.FP32


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    return Bundle.open(support.write_two_exits(tmp_path_factory.mktemp("m") / "two.dyn")).manifest


def report(
    lost: Sequence[float | None] = (0, 0),
    differ: Sequence[float] = (0, 0),
    flips: int = 0,
    deviations: dict[str, float] | None = None,
) -> PrecisionReport:
    """Points lost and share of results that differ by exit, and flips of 100 decisions."""
    nothing = dict.fromkeys(("score_error_mean", "score_error_max"), 0.0)
    nothing |= dict.fromkeys(("box_error_mean_px", "box_error_max_px"), 0.0)
    ends = []
    for index, (points, share) in enumerate(zip(lost, differ, strict=True)):
        after = None if points is None else 0.5 - points / 100
        before = None if points is None else 0.5
        ends.append(
            ExitError(index, 1, **nothing, disagreement=share, ap_fp32=before, ap_converted=after)
        )
    tensors = tuple(TensorError(s, "value", 0, 0, 0, d) for s, d in (deviations or {}).items())
    return PrecisionReport({}, {}, {}, 1, tensors, tuple(ends), {"router": Flips(100, flips)})


@pytest.mark.parametrize(
    ("value", "limit", "over"),
    [
        (0.3, 0.3, 1),
        (0.6, 0.3, 2),
        (0, 0, 0),
        (0.1, 0, math.inf),
        (-1, 0.5, -2),
        (math.inf, 1, math.inf),
    ],
)
def test_how_far_a_figure_is_beyond(value, limit, over) -> None:
    assert Figure("ap", "exit 0", value, "").over({"ap": limit}) == pytest.approx(over)
    assert Figure("ap", "exit 0", value, "").over({"flips": limit}) <= 1


def test_figures_are_named_by_where_they_are(manifest) -> None:
    found = figures(report((None, 1.5), (0.25, 0), 3), manifest)
    assert [(f.name, f.where, round(f.value, 9)) for f in found] == [
        ("differ", "exit 0", 25),
        ("ap", "exit 1", 1.5),
        ("differ", "exit 1", 0),
        ("flips", "router", 3),
    ]
    assert "AP at exit 1 is 1.5 points lower" in found[1].words
    assert largest(report((1, 2), (0.1, 0.3)), manifest, {"ap": 9, "differ": 9}) == {
        "ap": pytest.approx(2),
        "differ": pytest.approx(30),
    }


def test_the_worst_comes_first_and_what_is_not_finite_is_beyond_any_gate(manifest) -> None:
    limits = {"ap": 1.0, "flips": 1.0}
    assert beyond(report((1, 0), (1, 1), 1), manifest, limits) == []  # nobody limits what differs
    assert beyond(report(flips=7), manifest, {"flips": 7.0}) == []  # 100 * 0.07 is more
    excess = beyond(report((3, 2), flips=50), manifest, limits)
    assert [figure.name for figure in excess] == ["flips", "ap", "ap"]
    assert excess[1].where == "exit 0"
    (broken,) = beyond(report(deviations={"head": math.inf, "first": 9.0}), manifest, {})
    assert broken.words == "value of head is not finite"


def test_the_stage_that_alone_loses_most_falls_back(manifest) -> None:
    alone = {
        "first": report((0.4, 0.4)),
        "head": report((3, 0)),
        "second": report((0, 9)),
    }
    precision = {"first": INT8, "router": FP32, "head": INT8, "second": INT8}
    asked: list[str] = []

    def measure(only):
        asked.extend(only)
        return alone[only[0]]

    fall = fall_back(report((4, 0)), manifest, precision, {"ap": 1.0}, measure)
    assert asked == ["first", "head"]  # exit 0 does not depend on the second
    assert (fall.stage, fall.before, fall.after) == ("head", INT8, FP16)
    assert fall.why == "alone in int8, beyond the gate ap=1: AP at exit 0 is 3 points lower"
    fall = fall_back(report((4, 9)), manifest, precision | {"head": FP16}, {"ap": 1.0}, measure)
    assert (fall.stage, fall.after) == ("second", FP16)


def test_stages_that_only_together_lose_too_much(manifest) -> None:
    alone = {"first": report((0.9, 0)), "head": report((0.8, 0))}
    precision = {"first": FP16, "head": FP16}
    fall = fall_back(
        report((1.7, 0)), manifest, precision, {"ap": 1.0}, lambda only: alone[only[0]]
    )
    assert (fall.stage, fall.after) == ("first", FP32)
    assert "only together" in fall.why
    assert "AP at exit 0 is 1.7 points lower" in fall.why


def test_flips_come_from_what_the_router_reads_and_itself(manifest) -> None:
    asked: list[str] = []

    def measure(only):
        asked.extend(only)
        return report(flips=9 if only == ["router"] else 1)

    precision = dict.fromkeys(("first", "router", "head", "second"), INT8)
    fall = fall_back(report(flips=9), manifest, precision, {"flips": 2.0}, measure)
    assert (sorted(asked), fall.stage) == (["first", "router"], "router")


def test_nothing_is_left_to_raise(manifest) -> None:
    with support.refuses(VerificationError, "nothing was built", "no stage is left"):
        fall_back(report((9, 9)), manifest, {"first": FP32}, {"ap": 1.0}, lambda _: report())
    half = manifest.stages["first"].model_copy(update={"precision": FP16})
    own = SimpleNamespace(
        task=manifest.task,
        way_names=manifest.way_names,
        stages_to=manifest.stages_to,
        stages={**manifest.stages, "first": half},
    )
    with support.refuses(VerificationError, "no stage is left"):  # it was exported in fp16
        fall_back(report((9, 9)), own, {"first": FP16}, {"ap": 1.0}, lambda _: report())
