from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dyninfer.benchmarks.lab import image_report
from dyninfer.benchmarks.lab.image_cost import (
    ASSUMPTIONS,
    GPUS,
    WAYS,
    Coefficients,
    StageWork,
    gpu_of,
    stage_works,
)
from dyninfer.benchmarks.lab.published_times import line_of_ends
from tests.support import ROOT

PAGE = ROOT / "docs" / "one-image-on-a-gpu.md"
DECISION = ROOT / "docs" / "decision-on-the-device.md"
WHOLE, LEAN, ON_DEVICE = WAYS
V100 = GPUS[0]


def test_stages_add_up_to_what_was_published_and_counted() -> None:
    work = stage_works()
    line = line_of_ends("dy-yolov7", "gflops")
    easy = sum(work[name].gflops for name in ("first", "router", "head"))
    hard = sum(work[name].gflops for name in ("first", "router", "second"))
    assert (easy, hard) == (pytest.approx(line.easy, rel=2e-3), pytest.approx(line.hard, rel=2e-3))
    # megabytes of float32 that the stages fetch: the first one's features, and the picture
    assert 4e-6 * work["head"].reads == pytest.approx(21.3, abs=0.05)
    assert 4e-6 * work["second"].reads == pytest.approx(78.6, abs=0.05)
    # the first convolution of Dy-YOLOv7 writes 32 channels at 640, the last ones 1024 at 20
    assert work["first"].activations > 32 * 640**2 + 1024 * 20**2


def test_bytes_of_a_picture_and_of_its_outputs() -> None:
    assert (WHOLE.bytes_in, LEAN.bytes_in) == (3 * 640 * 640 * 4, 3 * 640 * 640)
    assert WHOLE.bytes_out == 25_200 * 84 * 4 + 4
    assert LEAN.bytes_out == 1_000 * 84 * 4 + 4


def test_a_stage_takes_the_longer_of_computing_and_memory_and_its_gaps() -> None:
    cost = Coefficients(1.0, 1.0, 1.0, 10.0, 0, 0, 0)  # 1 TFLOP/s, 1 GB/s
    computing = StageWork(gflops=5.0, kernels=100, weights=0, activations=0)
    assert computing.ms(cost, 2) == pytest.approx(5 + 1)
    moving = StageWork(0.0, 0, weights=500_000, activations=1_000_000, reads=250_000)
    assert moving.ms(cost, 4) == pytest.approx(1 + 4 + 1)
    assert moving.ms(cost, 2) == pytest.approx(1 + 4 + 0.5)


def test_what_a_wait_a_call_and_a_branch_are_worth() -> None:
    free = replace(V100.coefficients, call_us=0, wait_us=0, branch_us=0)
    waits = replace(free, wait_us=100)
    branches = replace(free, branch_us=100)
    for hard in (False, True):
        way = LEAN.ms(free, hard=hard)
        assert LEAN.ms(waits, hard=hard) == pytest.approx(way + 0.2)
        assert ON_DEVICE.ms(free, hard=hard) == pytest.approx(way)
        assert ON_DEVICE.ms(waits, hard=hard) == pytest.approx(way + 0.1)
        assert ON_DEVICE.ms(branches, hard=hard) == pytest.approx(way + 0.1)
        assert LEAN.ms(branches, hard=hard) == way
    slow_host = replace(free, call_us=10_000)  # the GPU waits for the host's calls
    assert LEAN.ms(slow_host, hard=True) == pytest.approx(10 * sum(LEAN.calls))


def test_the_mean_image_is_a_mixture() -> None:
    easy, hard = (LEAN.ms(V100.coefficients, hard=side) for side in (False, True))
    assert LEAN.mean_ms(V100.coefficients, 0.25) == pytest.approx(0.75 * easy + 0.25 * hard)
    assert easy < hard < 12.05  # what the published times are with PyTorch


def test_gpus_are_found_by_their_compute_capability() -> None:
    assert [gpu_of(c).name for c in ("7.0", "7.5", "8.7", "9.0")] == [gpu.name for gpu in GPUS]
    assert gpu_of("8.6") is None


def run(*arguments: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(image_report.main)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_the_page_shows_what_the_command_prints() -> None:
    status, printed, _ = run()
    *tables, assumed = printed.strip().split("\n\n")
    text = PAGE.read_text(encoding="utf-8")
    assert status == 0
    assert len(tables) == 4
    for table in tables:
        assert table in text
    words = " ".join(text.split()).lower()
    assert assumed.count("\n") + 1 == len(ASSUMPTIONS)
    for assumption in ASSUMPTIONS:
        assert assumption.lower() in words


@pytest.mark.parametrize("page", [PAGE, DECISION], ids=lambda page: page.stem)
def test_the_gains_in_the_text_are_those_of_the_model(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    short = {"V100 SXM2": "V100", "T4": "T4", "AGX Orin 64 GB": "Orin", "H100 SXM": "H100"}
    for gpu in GPUS:
        easy, hard = (
            [way.ms(gpu.coefficients, hard=side) for way in WAYS] for side in (False, True)
        )
        gained = easy[1] - easy[2]
        assert hard[1] - hard[2] == pytest.approx(gained)
        shares = f"({100 * gained / hard[1]:.1f} to {100 * gained / easy[1]:.1f} %)"
        assert f"{1e3 * gained:.0f} " in text
        assert f"{short[gpu.name]} {shares}" in text
        if page is PAGE:
            assert f"{easy[0] - easy[1]:.2f}" in text


def report_of(path: Path, capability: str = "7.0", **figures: float) -> str:
    machine = {"gpu": "Tesla V100-SXM2-16GB", "compute_capability": capability}
    path.write_text(json.dumps({"machine": machine, "figures": figures}), encoding="utf-8")
    return str(path)


def test_a_report_stands_beside_what_was_assumed(tmp_path: Path) -> None:
    path = report_of(tmp_path / "r.json", tflops=V100.coefficients.tflops / 2, wait_us=50)
    status, printed, _ = run(path)
    assert status == 0
    assert "Tesla V100-SXM2-16GB, beside V100 SXM2" in printed
    assert "| TFLOP/s in fp16 | 55.41 | 27.71 | 0.50 |" in printed
    assert "| us a wait | 25 | 50 | 2.00 |" in printed
    assert "| GB/s of the bus | 12.6 | - | - |" in printed
    half = replace(V100.coefficients, tflops=V100.coefficients.tflops / 2, wait_us=50)
    times = (LEAN.ms(c, hard=h) for h in (False, True) for c in (V100.coefficients, half))
    assert f"| lean | {' | '.join(f'{time:.2f}' for time in times)} |" in printed


def test_a_gpu_that_the_model_does_not_know_is_measured_only(tmp_path: Path) -> None:
    path = report_of(tmp_path / "r.json", "8.6", tflops=30)
    status, printed, _ = run(path)
    assert status == 0
    assert "| TFLOP/s in fp16 | - | 30 | - |" in printed
    assert "no time of an image: memory_gb_s, bus_gb_s" in printed
    every = asdict(V100.coefficients)
    printed = run(report_of(tmp_path / "r.json", "8.6", **every))[1]
    assert f"{LEAN.ms(V100.coefficients, hard=True):.2f} |" in printed


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "cannot be read"),
        ("[]", "holds no object"),
        ('{"machine": {}}', "no machine or no figures"),
        ('{"machine": {}, "figures": {"tflops": "fast", "wait_us": -1}}', "none of the figures"),
    ],
)
def test_what_is_no_report_is_one_line(tmp_path: Path, content: str, part: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    status, printed, complaint = run(str(path))
    assert (status, printed) == (1, "")
    assert part in complaint
    assert complaint.count("\n") == 1
