from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.benchmarks.latency.scenario_record import Scenario, SpanKind
from dyninfer.benchmarks.report.documents import to_html
from dyninfer.benchmarks.report.latency_charts import (
    MOST_POINTS,
    cumulative,
    model_chart,
    nines,
    panels,
)
from dyninfer.benchmarks.report.row_charts import baselines_chart, segments, spans_chart
from dyninfer.benchmarks.report.slider_charts import (
    BINS,
    curve_chart,
    easiness_chart,
    histogram,
    quality_of,
)
from dyninfer.benchmarks.report.svg import NARROW, WIDE, Element
from tests.benchmarks.report.report_records import (
    baselines,
    estimate,
    full_record,
    scenario_result,
    spans_of,
)

RECORD = full_record()


def inside(drawing: Element) -> None:
    """Nothing is drawn outside the picture, as far as coordinates tell."""
    root = ElementTree.fromstring(drawing.render())
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    moved = {node for g in root.iter("g") if "transform" in g.attrib for node in g.iter()}
    for node in set(root.iter()) - moved:
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(node.get(name, 0)) <= width, ElementTree.tostring(node)
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(node.get(name, 0)) <= height, ElementTree.tostring(node)
        if node.tag == "rect":
            right = float(node.attrib["x"]) + float(node.attrib["width"])
            assert right <= width + 0.01
            assert float(node.attrib["height"]) >= 0
        for point in node.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_all_charts_stay_within_their_pictures() -> None:
    record = RECORD
    assert record.model is not None
    curve, quality = record.pictures.curve, quality_of(record.pictures.curve)
    assert quality is not None
    closed = [r for r in record.scenarios if r.scenario.rate_per_s is None]
    charts = [
        curve_chart(curve, quality, 3),
        curve_chart(curve[:1], replace(quality, values=quality.values[:1]), 0),
        easiness_chart(record.pictures.easiness[0], 0, [0, 0.5, 1.5], 2),
        spans_chart(closed),
        baselines_chart(baselines().ratios),
        model_chart(record.model.checks),
        model_chart(record.model.checks[:1]),
    ]
    for chart in charts:
        inside(chart.wide)
        inside(chart.narrow)
    for panel in panels(record.scenarios):
        inside(panel.drawing)


def test_the_mark_of_the_curve_stands_on_its_point() -> None:
    curve, quality = RECORD.pictures.curve, quality_of(RECORD.pictures.curve)
    assert quality is not None
    drawn = curve_chart(curve, quality, 7)
    wide, narrow = drawn.places[f"marker-{WIDE}"], drawn.places[f"marker-{NARROW}"]
    assert len(wide) == len(narrow) == len(curve)
    x, y = wide[7]
    assert f'transform="translate({x:.2f} {y:.2f})"' in drawn.wide.render()
    xs, ys = zip(*wide, strict=True)
    assert list(xs) == sorted(xs)
    assert list(ys) == sorted(ys, reverse=True)  # AP rises with the share of hard images


@given(st.lists(st.floats(-0.5, 1.5) | st.none(), max_size=60))
def test_every_picture_is_counted_once(easiness) -> None:
    counts = histogram(easiness)
    assert len(counts) == BINS
    assert sum(counts) == len(easiness) - easiness.count(None)


def test_the_outermost_parts_hold_zero_and_one() -> None:
    counts = histogram([0.0, 1.0, 1.0, None])
    assert (counts[0], counts[-1], sum(counts)) == (1, 2, 3)


def test_the_threshold_s_line_stands_between_the_counts_that_it_parts() -> None:
    drawn = easiness_chart([0.1, 0.9, None], 1, [0.0, 0.5, 1.5], 1)
    low, middle, high = (x for x, _ in drawn.places[f"threshold-1-{WIDE}"])
    assert low < middle < high
    assert middle == pytest.approx((low + high) / 2)
    assert "data-moves" not in easiness_chart([0.1], 0, [], 0).wide.render()


def test_segments_add_up_to_the_whole_and_small_ones_stand_together() -> None:
    spans = spans_of(0.5)
    found = segments(spans)
    assert sum(s.ms for s in found) == pytest.approx(sum(s.ms_per_image.value for s in spans))
    assert [s.name for s in found] == ["prepare", "first", "head", "second", "5 small steps"]
    assert found[-1].kind is SpanKind.OTHER


def test_a_single_small_step_keeps_its_name_and_a_step_that_never_ran_is_not_drawn() -> None:
    spans = spans_of(0.0)
    kept = tuple(span for span in spans if span.name in ("first", "head", "router", "second"))
    assert [s.name for s in segments(kept)] == ["first", "head", "2 small steps"]
    only = tuple(span for span in spans if span.name in ("first", "router"))
    scarce = (only[0], replace(only[1], ms_per_image=estimate(0.1)))
    assert [s.name for s in segments(scarce)] == ["first", "router"]
    assert segments(()) == []


def test_a_bar_is_as_long_as_its_time_and_kinds_differ_in_more_than_colour() -> None:
    results = [scenario_result(Scenario(hard_fraction=h)) for h in (0.0, 1.0)]
    root = ElementTree.fromstring(spans_chart(results).wide.render())
    rows: dict[str, float] = {}
    for rect in root.iter("rect"):
        rows[rect.attrib["y"]] = rows.get(rect.attrib["y"], 0) + float(rect.attrib["width"]) + 1
    widths = list(rows.values())
    times = [sum(s.ms_per_image.value for s in result.spans) for result in results]
    assert widths[0] / widths[1] == pytest.approx(times[0] / times[1], rel=0.01)
    page = to_html(RECORD)
    marks = {
        kind: tuple(re.findall(r'<path d="([^"]+)"', hatches))
        for kind, hatches in re.findall(r'<pattern id="kind-([^"]+)"(.*?)</pattern>', page)
    }
    assert set(marks) == {kind.value for kind in SpanKind}
    assert len(set(marks.values())) == len(SpanKind)


@given(
    st.lists(st.floats(0.01, 1e4), min_size=1, max_size=600),
    st.sampled_from([5, 50, MOST_POINTS]),
)
def test_a_cumulative_line_rises_keeps_its_ends_and_is_short(times, most) -> None:
    points = cumulative(times, most)
    assert 1 <= len(points) <= max(most, 1)
    assert points[0][0] == min(times)
    assert points[-1][0] == max(times)
    assert points == sorted(points)
    count = len(times)
    ordered = sorted(times)
    for value, share in points:
        rank = round(share * count - 0.5)
        assert ordered[rank] == value


def test_a_thinned_line_keeps_the_tail() -> None:
    times = np.linspace(1, 2, 10_000)
    points = cumulative(times.tolist())
    assert len(points) <= MOST_POINTS
    assert sum(share > 0.99 for _, share in points) > 50


def test_every_nine_has_the_same_room() -> None:
    assert [nines(s) for s in (0, 0.9, 0.99, 0.999)] == pytest.approx([0, 1, 2, 3])


def test_fixed_rates_stand_beside_their_closed_loop() -> None:
    results = [
        scenario_result(Scenario(hard_fraction=0.5, rate_per_s=30), seed=1),
        scenario_result(Scenario(hard_fraction=0.5), seed=2),
        scenario_result(Scenario(hard_fraction=0.25), seed=3),
    ]
    found = panels(results)
    assert [panel.title for panel in found] == ["batch 1, 50 % hard", "batch 1, 25 % hard"]
    both = found[0].drawing.render()
    assert "closed loop: median" in both
    assert "30 calls/s: median" in both
    assert both.index("closed loop") < both.index("30 calls/s")
    assert {"line line-0", "line line-1"} <= set(re.findall(r'class="([^"]+)"', both))


def test_a_long_tail_is_drawn_on_a_logarithmic_axis() -> None:
    even = scenario_result(Scenario(hard_fraction=0.0))
    late = replace(even, rounds_ms=((10.0,) * 50 + (900.0,),))
    shown = [panels([result])[0].drawing.render() for result in (even, late)]
    assert ["logarithmic" in text for text in shown] == [False, True]


def test_more_rates_than_line_styles_get_a_second_panel() -> None:
    results = [scenario_result(Scenario(rate_per_s=rate), calls=30) for rate in range(1, 7)]
    assert [panel.title for panel in panels(results)] == ["batch 1, as routed"] * 2


def test_a_ratio_of_one_stands_on_the_line() -> None:
    root = ElementTree.fromstring(baselines_chart(baselines().ratios).wide.render())
    (unity,) = (float(n.attrib["x1"]) for n in root.iter("line") if n.get("class") == "unity")
    dots = {}
    for dot in root.iter("circle"):
        name, ratio = (dot.findtext("title") or "").split(": ")
        dots[name, ratio.split(" ")[0]] = float(dot.attrib["cx"])
    assert dots["single-graph-if", "1.00"] == pytest.approx(unity, abs=0.01)
    assert dots["pytorch-eager", "0.440"] < unity < dots["always-last-exit", "1.19"]
