from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dyninfer
from dyninfer.benchmarks.latency.scenario_record import Scenario, SpanKind, WarmUp
from dyninfer.benchmarks.latency.slices import Slice, TimedCall
from dyninfer.benchmarks.latency.summary import in_order, span_times, spans_of_slice, summarise
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from tests import support

MS = 1_000_000
WARM = WarmUp(3, 0.1, True)


def call_of(ms: float, *images: tuple[int, dict[str, float]], waited_ms: float = 0.0) -> TimedCall:
    start = round(waited_ms * MS)
    exits, steps = zip(*images, strict=True)
    return TimedCall(0, start, start, start + round(ms * MS), exits, steps)


def slice_of(*calls: TimedCall) -> Slice:
    return Slice(calls, sum(call.wall_ms for call in calls))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(support.write_two_exits(tmp_path_factory.mktemp("b") / "two.dyn")).manifest


EASY = (0, {"prepare": 1.0, "first": 4.0, "head": 2.0})
HARD = (1, {"prepare": 1.0, "first": 4.0, "second": 8.0})


def test_no_call_is_refused(manifest: Manifest) -> None:
    with support.refuses(dyninfer.InputError, "batch 1", "no calls"):
        summarise(Scenario(1, 0.5), WARM, [], manifest)


def test_spans_of_a_mixed_call_add_up_to_its_time(manifest: Manifest) -> None:
    piece = slice_of(call_of(24, EASY, HARD))
    spans = {span.name: span for span in span_times([piece], list(manifest.roles))}
    assert list(spans) == ["prepare", "first", "head", "second", "other"]
    assert {name: span.ms_per_image.value for name, span in spans.items()} == {
        "prepare": 1,
        "first": 4,
        "head": 1,
        "second": 4,
        "other": 2,
    }
    assert (spans["second"].ms_when_run, spans["second"].share) == (8, 0.5)
    assert spans["second"].kind is SpanKind.ENGINE
    assert spans["other"].kind is SpanKind.OTHER


times = st.floats(0.0, 50.0)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(times, times, times, times), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_spans_never_fall_short_of_the_time_per_image(
    rounds: list[list[tuple[float, float, float, float]]],
) -> None:
    slices = [
        slice_of(
            *(
                call_of(a + b + rest, (0, {"prepare": a, "first": b}), (0, {"prepare": c}))
                for a, b, c, rest in calls
            )
        )
        for calls in rounds
    ]
    spans = span_times(slices, ("first",))
    images = sum(piece.images for piece in slices)
    wall = sum(piece.wall_ms for piece in slices) / images
    total = sum(span.ms_per_image.value for span in spans)
    assert total >= wall - 1e-4
    assert all(span.ms_per_image.value >= 0 for span in spans)


def test_other_is_never_negative_where_devices_and_host_overlap() -> None:
    piece = slice_of(call_of(5, (0, {"first": 9.0})), call_of(5, (0, {"first": 1.0})))
    assert spans_of_slice(piece)[0]["other"] == 4


def test_spans_are_told_in_the_order_in_which_they_happen() -> None:
    names = ["other", "postprocess", "new", "second", "read-back", "first", "gather", "decode"]
    assert in_order(names, ("first", "second")) == [
        "decode",
        "first",
        "second",
        "gather",
        "read-back",
        "postprocess",
        "new",
        "other",
    ]


def test_figures_of_a_closed_loop(manifest: Manifest) -> None:
    slices = [
        slice_of(call_of(10, EASY), call_of(20, HARD)),
        Slice((), 0.0),
        slice_of(call_of(12, EASY), call_of(18, HARD)),
    ]
    found = summarise(Scenario(1, 0.5), WARM, slices, manifest, 2.5)
    assert found.hard_fraction == 0.5
    assert found.rounds_ms == ((10, 20), (12, 18))
    assert found.ms_per_image.value == 15
    assert found.images_per_s.value == pytest.approx(1000 / 15)
    assert found.late_share is None
    assert found.joules_per_image == 2.5
    easy, hard = found.exits
    assert (easy.share, hard.share) == (0.5, 0.5)
    assert easy.latency is not None
    assert hard.latency is not None
    assert (easy.latency.mean_ms.value, hard.latency.mean_ms.value) == (11, 19)


def test_calls_that_split_tell_nothing_of_an_exit(manifest: Manifest) -> None:
    found = summarise(Scenario(2, 0.5), WARM, [slice_of(call_of(24, EASY, HARD))], manifest)
    assert [exit_.latency for exit_ in found.exits] == [None, None]
    assert [exit_.share for exit_ in found.exits] == [0.5, 0.5]


def test_at_a_fixed_rate_waiting_counts_in_the_latency_and_not_in_the_spans(
    manifest: Manifest,
) -> None:
    calls = (call_of(7, EASY), call_of(7, EASY, waited_ms=5))
    found = summarise(Scenario(1, 0.0, rate_per_s=50.0), WARM, [Slice(calls, 40.0)], manifest)
    assert found.rounds_ms == ((7, 12),)
    assert found.late_share == 0.5
    assert found.ms_per_image.value == 20
    assert sum(span.ms_per_image.value for span in found.spans) == pytest.approx(7)


def test_hard_images_are_those_of_the_costliest_way(manifest: Manifest) -> None:
    piece = slice_of(call_of(10, EASY), call_of(20, HARD), call_of(6, EASY), call_of(8, EASY))
    found = summarise(Scenario(1, 0.25), WARM, [piece], manifest)
    assert found.hard_fraction == 0.25
    assert [exit_.share for exit_ in found.exits] == [0.75, 0.25]
    assert [exit_.exit_index for exit_ in found.exits] == [0, 1]
    spans = {span.name: (span.share, span.ms_when_run) for span in found.spans}
    assert spans["second"] == (0.25, 8)
    assert spans["head"] == (0.75, 2)


def test_a_round_without_a_span_had_none_of_it(manifest: Manifest) -> None:
    slices = [slice_of(call_of(10, EASY)), slice_of(call_of(20, HARD))]
    spans = {span.name: span for span in span_times(slices, list(manifest.roles))}
    assert [spans[name].ms_per_image.value for name in ("head", "second")] == [1, 4]
    assert [(spans[name].ms_when_run, spans[name].share) for name in ("head", "second")] == [
        (2, 0.5),
        (8, 0.5),
    ]


def test_between_the_ends_no_image_is_hard(tmp_path) -> None:
    path = support.write_three_exits(tmp_path / "three.dyn")
    three = Bundle.open(path).manifest
    left = [(way, {"body_1": 1.0}) for way in (0, 1, 1, 2, 2, 2, 2, 2)]
    found = summarise(Scenario(8), WARM, [slice_of(call_of(10, *left))], three)
    assert found.hard_fraction == 5 / 8
    assert [exit_.share for exit_ in found.exits] == [1 / 8, 2 / 8, 5 / 8]
