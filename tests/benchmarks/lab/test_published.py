from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dyninfer.benchmarks.lab import published
from dyninfer.benchmarks.lab.published import beside_published
from dyninfer.benchmarks.lab.published_times import (
    PUBLISHED,
    V100_FP32_TFLOPS,
    V100_TENSOR_TFLOPS,
    VARIANTS,
    ComputeModel,
    convolutions,
    fit_convolutions,
    fit_fixed,
    line_of_ends,
    rows_of,
)
from dyninfer.benchmarks.latency.record import BenchRecord, LatencyModel, StageInfo
from dyninfer.benchmarks.latency.step_costs import RunsFor, StepCost
from dyninfer.errors import InputError
from tests.benchmarks.report.report_records import minimal_record
from tests.support import ROOT

PROTOCOL = ROOT / "benchmarks" / "protocols" / "published-table.md"
# multiply-accumulates times two of the public code, all easy and all hard, in units of 1e9
COUNTED_GFLOPS = {
    "dy-yolov7": (104.5, 181.7),
    "dy-yolov7x": (189.7, 307.6),
    "dy-yolov7-w6": (359.7, 601.7),
}


@pytest.fixture
def full_size_record() -> BenchRecord:
    """Of Dy-YOLOv7 at 640: easy 3 ms, hard 4.5, and half a millisecond around the engines."""
    macs = {"first": 33_070_000_000, "router": 2_000_000, "head": 19_185_000_000}
    macs["second"] = 57_785_000_000
    roles = ("body of exit 0", "router of exit 0", "head of exit 0", "body of exit 1")
    stages = tuple(
        StageInfo(name, role, "fp16", None, count)
        for (name, count), role in zip(macs.items(), roles, strict=True)
    )
    steps = (
        StepCost("first", 2.0, 1.0),
        StepCost("head", 1.0, 1.0, RunsFor.EASY),
        StepCost("second", 2.5, 2.5, RunsFor.HARD),
        StepCost("postprocess", 0.5, 0.5),
    )
    record = minimal_record()
    return replace(
        record,
        measured=replace(record.measured, stages=stages),
        model=LatencyModel(steps, (), 0.0),
    )


def test_every_variant_has_four_mixes() -> None:
    assert len(PUBLISHED) == 12
    for variant in VARIANTS:
        assert [row.hard_fraction for row in rows_of(variant)] == [0.1, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_gflops_are_a_line_between_what_was_counted(variant: str) -> None:
    easy, hard = COUNTED_GFLOPS[variant]
    for row in rows_of(variant):
        expected = easy + (hard - easy) * row.hard_fraction
        assert row.gflops == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    ("variant", "limit"), [("dy-yolov7", 0.005), ("dy-yolov7x", 0.025), ("dy-yolov7-w6", 0.005)]
)
def test_rows_in_between_follow_from_the_ends(variant: str, limit: float) -> None:
    line = line_of_ends(variant)
    first, *between, last = rows_of(variant)
    assert line.at(first.hard_fraction) == pytest.approx(first.ms)
    assert line.at(last.hard_fraction) == pytest.approx(last.ms)
    for row in between:
        assert 1e3 / line.at(row.hard_fraction) == pytest.approx(row.fps, rel=limit)


def test_a_static_detector_is_met_at_a_hard_fraction() -> None:
    line = line_of_ends("dy-yolov7")
    assert line.fraction_up_to(line.at(0.3)) == pytest.approx(0.3)
    assert line.fraction_up_to(line.easy / 2) == 0
    assert line.fraction_up_to(line.hard * 2) == 1


def test_convolutions_are_those_of_the_tables() -> None:
    # 41 in either backbone and 38 + 7 + 3 + 3 in a head, 5 CBLinear, 2 in the router
    assert convolutions("dy-yolov7").easy == 41 + 51 + 2
    assert convolutions("dy-yolov7").hard == 41 + 2 + 41 + 5 + 51
    # four levels to detect on
    assert convolutions("dy-yolov7-w6").easy == 41 + 55 + 7 + 4 + 2


def test_fits_find_what_made_the_times() -> None:
    made = ComputeModel(0.0, 0.05, 0.02)
    rows = [replace(row, fps=1e3 / made.ms(row)) for row in PUBLISHED]
    found = fit_convolutions(rows)
    assert found.convolution_ms == pytest.approx(0.05)
    assert found.tflops == pytest.approx(50)
    assert max(abs(found.error(row)) for row in rows) < 1e-9
    fixed = ComputeModel(3.0, 0.0, 0.02)
    rows = [replace(row, fps=1e3 / fixed.ms(row)) for row in PUBLISHED]
    assert fit_fixed(rows).fixed_ms == pytest.approx(3)


def test_a_time_for_each_convolution_explains_more_than_one_fixed_time() -> None:
    def mean_error(model: ComputeModel) -> float:
        return float(np.mean([abs(model.error(row)) for row in PUBLISHED]))

    by_convolutions = fit_convolutions(PUBLISHED)
    assert mean_error(by_convolutions) < mean_error(fit_fixed(PUBLISHED)) / 2
    assert V100_FP32_TFLOPS < by_convolutions.tflops < V100_TENSOR_TFLOPS


def test_left_out_variants_are_predicted_as_badly_as_the_text_says() -> None:
    worst, tflops = [], []
    for variant in ("dy-yolov7x", "dy-yolov7", "dy-yolov7-w6"):
        model = fit_convolutions([row for row in PUBLISHED if row.variant != variant])
        worst.append(max(abs(model.error(row)) for row in rows_of(variant)))
        tflops.append(model.tflops)
    x, base, w6 = (f"{100 * error:.0f} %" for error in worst)
    text = " ".join(PROTOCOL.read_text(encoding="utf-8").split())
    assert f"{x} (-X), {base} (Dy-YOLOv7) and {w6} (-W6)" in text
    assert f"between {min(tflops):.0f} and {max(tflops):.0f} TFLOP/s" in text


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(published.main)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_protocol_shows_what_the_command_prints() -> None:
    status, printed, _ = run()
    assert status == 0
    *tables, source = printed.strip().split("\n\n")
    assert "CVPR 2023" in source
    text = PROTOCOL.read_text(encoding="utf-8")
    assert len(tables) == 5
    for table in tables:
        assert table in text


def test_the_protocol_for_a_v100_repeats_the_same_rows() -> None:
    text = (PROTOCOL.parent / "v100.md").read_text(encoding="utf-8")
    for row in PUBLISHED:
        assert f"{row.gflops:.1f}, {row.fps:g}, {row.ap:.1f}" in text


def test_a_record_stands_beside_its_variant(full_size_record: BenchRecord) -> None:
    found = beside_published(full_size_record)
    assert [beside.row for beside in found] == list(rows_of("dy-yolov7"))
    assert found[0].engines_ms == pytest.approx(2.0 + 0.9 * 1.0 + 0.1 * 2.5)
    assert found[0].whole_ms == pytest.approx(found[0].engines_ms + 0.5)
    assert found[-1].engines_ms == pytest.approx(4.5)


def test_another_model_has_nothing_to_stand_beside(full_size_record: BenchRecord) -> None:
    stages = tuple(replace(s, macs=1) for s in full_size_record.measured.stages)
    other = replace(full_size_record, measured=replace(full_size_record.measured, stages=stages))
    with pytest.raises(InputError, match="none of the published models"):
        beside_published(other)
    lacking = replace(full_size_record, model=None, missing={"model": "1 batch size(s)"})
    with pytest.raises(InputError, match=r"no latency model: 1 batch size\(s\)"):
        beside_published(lacking)


def test_a_file_that_is_no_record_is_one_line_on_stderr(tmp_path: Path) -> None:
    status, printed, complaint = run(str(tmp_path / "missing.json"))
    assert status == 1
    assert not printed
    assert complaint.count("\n") == 1
