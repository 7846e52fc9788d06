from __future__ import annotations

import json

import cv2
import pytest

from dyninfer.benchmarks.lab.precision_speed import time_stage
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.errors import InputError
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.settings import Int8Settings
from tests import support


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), support.random_pictures(1)[0])
    return path


def test_both_precisions_are_timed_in_every_round(small_bundle, picture, tmp_path) -> None:
    bundle = Bundle.open(small_bundle)
    settings = Int8Settings(max_float_share=0)
    found = convert_bundle_stages(
        bundle, {"second": Precision.INT8}, [picture], tmp_path, settings
    )["second"]
    speed = time_stage(bundle, "second", found, picture, rounds=3)
    assert len(speed.fp32_times_ms) == len(speed.int8_times_ms) == 3
    assert speed.speedup == pytest.approx(1 / speed.time_ratio.median)
    assert speed.int8_bytes == found.path.stat().st_size


def test_a_stage_that_was_not_converted_is_refused(small_bundle, picture, tmp_path) -> None:
    bundle = Bundle.open(small_bundle)
    found = convert_bundle_stages(bundle, {"head": Precision.FP32}, [], tmp_path)["head"]
    with pytest.raises(InputError, match="fp32, expected int8"):
        time_stage(bundle, "head", found, picture, rounds=2)


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_a_record(tmp_path) -> None:
    import typer
    from typer.testing import CliRunner

    from dyninfer.benchmarks.lab.precision_speed import main

    app = typer.Typer()
    app.command()(main)
    output = tmp_path / "record.json"
    options = ["--width-divisor", "8", "--image-size", "64", "--rounds", "2", "--stages", "first"]
    result = CliRunner().invoke(app, [*options, "--output", str(output)])
    assert result.exit_code == 0, result.output
    record = json.loads(output.read_text(encoding="utf-8"))
    assert [stage["stage"] for stage in record["stages"]] == ["first"]
    assert record["variant"] == "dy-yolov7 at 1/8 width"
