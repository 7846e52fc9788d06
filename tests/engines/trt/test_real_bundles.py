"""Every stage of every model at hand, in every precision, through the real compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision
from dyninfer.bundle.shipped import shipped_bundle
from dyninfer.cli.common import built_in_photos
from dyninfer.engines.trt.builder import EngineOptions, build_engine
from dyninfer.engines.trt.file_types import StageFile
from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.exporters.drnet.export import DRNET
from dyninfer.exporters.drnet.options import DRNetOptions
from dyninfer.exporters.efficientdet.export import EFFICIENTDET, EfficientDetOptions
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Settings, Int8Target
from dyninfer.exporters.zendet.export import ZENDET, ZenDetOptions
from tests import support
from tests.exporters.efficientdet.narrow import narrow, random_model, save
from tests.exporters.zendet import reference

pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
pytestmark = pytest.mark.slow

EMBEDDED = "dy-digits"
# All generations for one topology; the others have further layers, for which one generation does.
# Dy-YOLOv7-X has none of its own.
TARGETS = {
    EMBEDDED: ("7.5", "8.0", "8.6", "8.9", "12.0"),
    "dy-yolov7": ("8.6",),
    "dy-yolov7-w6": ("12.0",),
}
FURTHER = {"dy-yolov7-w6": {"first"}}
"""The stages with layers of their own, where it is not all: here, pixels become channels."""
PROFILE = BatchProfile(minimum=1, optimum=4, maximum=16)
# ranges matter to accuracy, which is measured elsewhere, and not to whether a stage builds
SETTINGS = Int8Settings(
    target=Int8Target.TENSORRT,
    method=CalibrationMethod.MINMAX,
    max_deviation=float("inf"),
    half=True,
    search_samples=1,
)


@pytest.fixture(scope="module")
def bundle_of(exported: Callable[[str], Path], embedded_bundle: Path) -> Callable[[str], Bundle]:
    def get(name: str) -> Bundle:
        return Bundle.open(embedded_bundle if name == EMBEDDED else exported(name))

    return get


@pytest.mark.parametrize("precision", list(Precision), ids=lambda precision: precision.value)
@pytest.mark.parametrize("name", TARGETS)
def test_every_stage_builds_for_generations_of_gpus(
    bundle_of: Callable[[str], Bundle], tmp_path: Path, name: str, precision: Precision
) -> None:
    bundle, library = bundle_of(name), load_library(Flavour.RTX)
    stages = bundle.manifest.stages
    plan = dict.fromkeys(FURTHER.get(name, stages), precision)
    made = convert_bundle_stages(bundle, plan, built_in_photos()[:1], tmp_path, SETTINGS)

    options = EngineOptions(PROFILE, TARGETS[name])
    assert set(made) == set(plan)
    assert all(stage.precision is precision for stage in made.values())
    for stage, converted in made.items():
        source = StageFile(stage, stages[stage], precision, converted.path)
        assert len(build_engine(library, source, options)) > 10_000


def shipped(name: str) -> Callable[[Path], Path]:
    return lambda _folder: shipped_bundle(Path(name))


def drnet(folder: Path) -> Path:
    parts = ("predictor", "classifier")
    sources = tuple(support.VECTORS / f"drnet-narrow.{part}.pt" for part in parts)
    DRNET.export(sources, folder / "drnet.dyn", DRNetOptions(), lambda _step: None)
    return folder / "drnet.dyn"


def efficientdet(folder: Path) -> Path:
    model = random_model(narrow(levels=4, cells=1, repeats=1))
    source = save(model, folder / "tf_efficientdet_d0-narrow.pth")
    options = EfficientDetOptions((64, 64), candidates=50)
    EFFICIENTDET.export(source, folder / "efficientdet.dyn", options, lambda _step: None)
    return folder / "efficientdet.dyn"


def zendet(folder: Path) -> Path:
    source = reference.save(reference.detector_state(), folder / "latest.pth")
    # a larger picture than the vectors', or a group of the coarsest map has one value
    options = ZenDetOptions(reference.STRUCTURE, image_size=(160, 256), candidates=50)
    ZENDET.export(source, folder / "zendet.dyn", options, lambda _step: None)
    return folder / "zendet.dyn"


# of stages that are one network at several sizes, one
OTHERS = {
    "everyday": (shipped("everyday"), {"first", "router"}),
    "everyday-sizes": (shipped("everyday-sizes"), {"chooser"}),
    "drnet": (drnet, {"predictor", "classifier_112"}),
    "efficientdet": (efficientdet, {"body"}),
    "zendet": (zendet, {"body"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_stages_of_the_other_families_build(name: str, tmp_path: Path) -> None:
    make, chosen = OTHERS[name]
    bundle, library = Bundle.open(make(tmp_path)), load_library(Flavour.RTX)
    options = EngineOptions(PROFILE, ("8.6",))
    for stage in sorted(chosen):
        entry = bundle.manifest.stages[stage]
        source = StageFile(stage, entry, entry.precision, bundle.path / entry.file)
        assert len(build_engine(library, source, options)) > 10_000
