"""How many bytes an image costs on its way to a GPU and back."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import dyninfer
from dyninfer.builds.files import Converted
from dyninfer.builds.spec import INPUT
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.precision.travel import rewrite_travel
from tests import support
from tests.engines.trt.rig import Rig, assert_same, make_rig


def count_bytes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that are copied from here on, by kind."""
    counts: Counter[str] = Counter()
    copy = rig.machine.copy

    def counted(target, source, stream, kind, *more):
        counts[kind] += target.size
        return copy(target, source, stream, kind, *more)

    monkeypatch.setattr(rig.machine, "copy", counted)
    return counts


def taking_pixels(bundle: Bundle, folder) -> Converted:
    files, types = rewrite_travel(bundle, {}, folder, pixels=True, maps=None)
    return Converted(files, tensors=types, options={INPUT: "uint8"})


@pytest.mark.parametrize("package", ["cuda-python", "pycuda"])
def test_engines_that_take_pixels_find_what_others_find(tmp_path, package) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    rig = make_rig(package=package)
    with (
        rig.detector(path, converted=taking_pixels(Bundle.open(path), tmp_path)) as detector,
        dyninfer.load(path) as expected,
    ):
        assert detector.manifest.image_tensors["images"].dtype == "uint8"
        pictures = support.random_pictures(5)
        for policy in (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard(), dyninfer.Threshold(0.5)):
            found = detector.infer(detector.prepare(pictures), policy=policy)
            assert_same(found, expected.infer(expected.prepare(pictures), policy=policy))
        pairs = zip(detector(pictures), expected(pictures), strict=True)
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours.boxes_xyxy, theirs.boxes_xyxy, atol=1e-3)


@pytest.mark.slow
def test_an_image_of_dy_yolov7_costs_few_bytes(tmp_path, small_yaml, monkeypatch) -> None:
    """Of its 640x640 pixels and 80 classes: what lies between them changes no byte."""
    model = support.small_detector(read_topology(small_yaml), classes=80)
    checkpoint, path = support.save_checkpoint(model, tmp_path / "wide.pt"), tmp_path / "wide.dyn"
    export_dynamicdet(checkpoint, path, DynamicDetOptions((640, 640), config=small_yaml))
    rig = make_rig(late=False)
    with rig.detector(path, converted=taking_pixels(Bundle.open(path), tmp_path)) as detector:
        picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        counts = count_bytes(rig, monkeypatch)
        for policy in (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()):
            counts.clear()
            detector(picture, policy=policy)
            assert counts["cudaMemcpyHostToDevice"] == 3 * 640 * 640 <= 1.3e6
            assert 1000 * 84 * 4 <= counts["cudaMemcpyDeviceToHost"] <= 0.4e6
