from __future__ import annotations

from pathlib import Path

import pytest

import dyninfer
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.router_quality import FITTED, RANDOM, SHARES
from dyninfer.exporters.cascade.export import export_cascade
from dyninfer.exporters.cascade.options import DetectorSource
from dyninfer.exporters.router.fit import FitOptions, fit_routers, refuse_useless
from dyninfer.images.spec import ResizeMode
from tests import support

MODELS = ("nanodet_dyn.onnx", "centernet.onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    paths = [support.shared_folder() / "models" / name for name in MODELS]
    if not all(path.exists() for path in paths):
        pytest.skip(f"{paths[0].parent} has no detectors; set DYNINFER_SHARED to their folder")
    first, second = paths
    # stretched, as in the committed record: letterboxed, the first detector leaves less to gain
    cheap = DetectorSource(first, size=(224, 224), resize=ResizeMode.STRETCH)
    sources = [cheap, DetectorSource(second)]
    export_cascade(sources, tmp_path / "pair.dyn")
    return tmp_path / "pair.dyn"


@pytest.mark.slow
def test_on_real_photos_a_quarter_and_a_half_sent_on_are_worth_two_points_more_than_random(bundle):
    photos = support.photo_paths(50)
    labels = photos[0].parent.parent / "annotations.json"
    with dyninfer.load(bundle) as detector:
        samples = load_samples(photos, labels, detector.class_names)
        fitted = fit_routers(detector, samples, FitOptions(augment=1, seeds=10))
    refuse_useless(fitted)
    comparison = fitted.exits[0].comparison
    for share in SHARES:
        router, chance = (comparison.row(name, share).ap50.mean for name in (FITTED, RANDOM))
        assert router - chance >= 0.02
