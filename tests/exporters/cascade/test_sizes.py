"""One detector file at several image sizes: a select route without a chooser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, ConfigError, CostBias, InputError, PolicyError
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.cascade.export import OnnxOptions, export_onnx
from dyninfer.exporters.cascade.options import DetectorSource
from dyninfer.exporters.families import source_stages
from dyninfer.exporters.verify import verify
from dyninfer.images.spec import ResizeMode
from tests import support
from tests.exporters.cascade import detectors

SIZES = ((64, 64), (32, 32), (32, 96))
NAMES = {"names": "[cat, dog, cow]"}

pytestmark = pytest.mark.usefixtures("without_a_child")


def dynamic(path: Path) -> Path:
    """A NanoDet of random weights for images of any size."""
    made = detectors.Sketch()
    for stride in detectors.STRIDES:
        weight = made.rng.normal(0, 0.05, (3 + 32, 3, stride, stride)).astype(np.float32)
        size = [stride, stride]
        raw = made.add("Conv", "images", made.constant(weight), kernel_shape=size, strides=size)
        rows = made.reshape(made.add("Transpose", raw, perm=[0, 2, 3, 1]), [0, -1, 35])
        scores = made.add("Sigmoid", made.part(rows, 0, 3))
        made.output(scores, f"scores_{stride}", ["batch", f"cells_{stride}", 3])
        made.output(made.part(rows, 3, 35), f"sides_{stride}", ["batch", f"cells_{stride}", 32])
    return made.save(path, size=("h", "w"), metadata=NAMES)


@pytest.fixture
def source(tmp_path: Path) -> DetectorSource:
    return DetectorSource(dynamic(tmp_path / "any.onnx"), resize=ResizeMode.PAD_BOTTOM_RIGHT)


def test_each_size_becomes_a_branch_the_cheapest_first(source, tmp_path) -> None:
    made = export_onnx(source, tmp_path / "any.dyn", OnnxOptions(sizes=SIZES))
    manifest = Bundle.open(tmp_path / "any.dyn").manifest
    assert manifest == made.manifest
    assert (manifest.family, manifest.route.kind, manifest.routed) == ("onnx", "select", False)
    assert [way.body for way in manifest.ways] == ["size_32", "size_32x96", "size_64"]
    inputs = {name: (spec.height, spec.width) for name, spec in manifest.image_inputs.items()}
    assert inputs == {"images": (32, 32), "images_2": (32, 96), "images_3": (64, 64)}
    assert {spec.resize for spec in manifest.image_inputs.values()} == {ResizeMode.PAD_BOTTOM_RIGHT}
    costs = [manifest.macs_to(way) for way in range(3)]
    # every level's convolution sees each pixel once, for 35 channels of 3; the decode sums 8 bins
    # for 4 sides of each of 21 cells in 1,024 pixels
    pixels = (32 * 32, 32 * 96, 64 * 64)
    assert costs == [3 * 3 * 35 * count + 4 * 8 * 21 * count // 1024 for count in pixels]
    assert (manifest.source.file_name, manifest.further_sources) == ("any.onnx", ())
    assert len({stage.weights for stage in manifest.stages.values()}) == 1  # stored once
    found = [note for note in made.notes if "finds" in note]
    assert [note.split(":")[0] for note in found] == [
        f"any.onnx at {size}" for size in ("32x32", "32x96", "64x64")
    ]
    assert sum("guessed" in note for note in made.notes) == 1


def test_every_branch_equals_the_file_at_its_size(source, tmp_path) -> None:
    export_onnx(source, tmp_path / "any.dyn", OnnxOptions(sizes=SIZES))
    with dyninfer.load(tmp_path / "any.dyn") as detector:
        photos = [np.full((50, 70, 3), 99, np.uint8)]
        parity = verify(detector, source_stages(detector.bundle, [source.path]), photos, 2)
    assert parity.passed, parity.checks
    assert {check.where for check in parity.checks} >= {"size_32", "branch 0", "branch 2"}


def test_until_a_chooser_is_fitted_the_dearest_branch_is_the_default(source, tmp_path) -> None:
    export_onnx(source, tmp_path / "any.dyn", OnnxOptions(sizes=SIZES))
    picture = np.zeros((40, 40, 3), np.uint8)
    with dyninfer.load(tmp_path / "any.dyn") as detector:
        assert detector.policy == AlwaysHard()
        assert detector(picture).exit_index == 2
        assert detector(picture, policy=AlwaysEasy()).exit_index == 0
        assert detector(picture, policy=dyninfer.Forced([1])).exit_index == 1
        with support.refuses(PolicyError, "this bundle has no router"):
            detector.policy = CostBias(0.5)


def test_a_file_of_one_size_is_refused(tmp_path) -> None:
    fixed = detectors.nanodet(3, 8).save(tmp_path / "fixed.onnx", metadata=NAMES)
    with support.refuses(
        InputError, "3 image sizes are given", "fixed.onnx was exported for 32x64 only"
    ):
        export_onnx(DetectorSource(fixed), tmp_path / "fixed.dyn", OnnxOptions(sizes=SIZES))
    half = detectors.nanodet(3, 8).save(tmp_path / "half.onnx", size=("h", 64), metadata=NAMES)
    with support.refuses(InputError, "exported for anyx64 only"):
        export_onnx(DetectorSource(half), tmp_path / "half.dyn", OnnxOptions(sizes=SIZES))
    assert not list(tmp_path.glob("*.dyn"))


def test_sizes_that_cannot_be_branches_are_refused(source, tmp_path) -> None:
    with support.refuses(InputError, "expected at most 8, each once"):
        export_onnx(source, tmp_path / "a.dyn", OnnxOptions(sizes=((32, 32), (32, 32))))
    both = DetectorSource(source.path, size=(32, 32))
    with support.refuses(InputError, "both a size and sizes (64x64, 32x32, 32x96)"):
        export_onnx(both, tmp_path / "a.dyn", OnnxOptions(sizes=SIZES))
    with pytest.raises((ConfigError, dyninfer.CheckpointError, dyninfer.ExportError)) as refused:
        export_onnx(source, tmp_path / "a.dyn", OnnxOptions(sizes=((64, 64), (20, 20))))
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.glob("*.dyn"))
