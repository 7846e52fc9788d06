"""What int8 and fp16 cost the embedded model, on scenes that it was not calibrated on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Converted, Making
from dyninfer.builds.spec import parse_precision
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.demo.scenes import Scene, SceneSource
from dyninfer.evaluation.coco import Truth
from dyninfer.exporters.precision.convert import ConvertedStage, convert_bundle_stages
from dyninfer.exporters.precision.measure import measure_engines, measure_precision
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target, types_for
from dyninfer.types import ImageArray

SIZE = 192
SCENES = 100
CALIBRATION_SCENES = 24
# weights have 7 bits where a processor adds up pairs of products in 16
LOST_AP = 0.015 if types_for(Int8Target.CPU).reduce_range else 0.01

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(embedded_bundle) -> Bundle:
    return Bundle.open(embedded_bundle)


@pytest.fixture(scope="module")
def calibration() -> list[ImageArray]:
    return [s.image for s in SceneSource("train", SIZE).scenes(range(CALIBRATION_SCENES))]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return SceneSource("held_out", SIZE).scenes(range(SCENES))


CPU, OPENVINO, TENSORRT = (Int8Settings(target=target) for target in Int8Target)


def on_openvino(
    bundle: Bundle,
    plan: Mapping[str, Precision],
    found: Mapping[str, ConvertedStage],
    folder: Path,
) -> dyninfer.Detector:
    """A copy of the bundle with these stages, opened by the backend that they were made for."""
    pytest.importorskip("openvino")
    copy = Bundle.open(shutil.copytree(bundle.path, folder / "copy.dyn"))
    builder = ConversionBuilder(backend_of=lambda _stage: "openvino")
    wanted = builder.wanted(copy.manifest, plan, 1)
    assert wanted is not None
    files = {n: stage.path for n, stage in found.items() if stage.precision is Precision.INT8}
    builder.make(copy, wanted, Making(converted=Converted(files)))
    return dyninfer.load(copy.path, backend="openvino", precision="int8")


@pytest.mark.parametrize(
    ("text", "settings", "flip_share"),
    [
        ("int8", CPU, 0.02),
        ("int8", OPENVINO, 0.02),
        ("int8", TENSORRT, 0.02),
        ("fp16,router=fp16", CPU, 0.001),
    ],
    ids=["int8-cpu", "int8-openvino", "int8-tensorrt", "fp16"],
)
def test_both_exits_stay_within_a_point(
    bundle, calibration, scenes, tmp_path, text, settings, flip_share
) -> None:
    plan = parse_precision(text, bundle.manifest)
    found = convert_bundle_stages(bundle, plan, calibration, tmp_path, settings)
    assert [stage.precision for stage in found.values()] == list(plan.values())
    truths = [Truth(scene.boxes_xyxy, scene.class_ids) for scene in scenes]
    pictures = [scene.image for scene in scenes]
    if settings is OPENVINO:
        with on_openvino(bundle, plan, found, tmp_path) as detector:
            report = measure_engines(detector, pictures, truths)
    else:
        report = measure_precision(bundle, found, pictures, truths)
    assert [error.exit_index for error in report.exits] == [0, 1]
    for error in report.exits:
        assert error.ap_fp32 is not None
        assert error.ap_converted is not None
        assert error.ap_fp32 > 0.5
        assert error.ap_converted >= error.ap_fp32 - LOST_AP
    assert report.flips["router"].share <= flip_share


def test_the_search_finds_layers_to_keep(bundle, calibration, tmp_path) -> None:
    """Of the stage with the fewest layers that 8 bits alone bring beyond the bound."""
    plan, few = {"first": Precision.INT8}, calibration[:2]
    searched = convert_bundle_stages(bundle, plan, few, tmp_path, Int8Settings(search_samples=1))
    assert searched["first"].kept_float
