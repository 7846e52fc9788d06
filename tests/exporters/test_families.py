from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.cascade.export import CASCADE
from dyninfer.exporters.dynamicdet.export import DYNAMICDET, DynamicDetOptions
from dyninfer.exporters.families import FAMILIES, family_of, source_stages
from dyninfer.exporters.family import TorchStage
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.model import FittedRouter, LinearGain, build_features
from dyninfer.exporters.router.write import write_routed
from dyninfer.exporters.verify import verify
from dyninfer.results.postprocess import EVALUATION, Postprocess
from tests import support


@pytest.fixture
def small(small_bundle: Path) -> Bundle:
    return Bundle.open(small_bundle)


def test_a_bundle_finds_its_family_by_name(small) -> None:
    assert list(FAMILIES) == [
        *("dynamicdet", "cascade", "onnx", "efficientdet", "drnet", "zendet", "detnas")
    ]
    assert family_of(small) is DYNAMICDET


def test_a_bundle_of_no_known_family_is_refused(tmp_path) -> None:
    bundle = Bundle.open(support.write_three_exits(tmp_path / "three.dyn"))
    with support.refuses(dyninfer.BundleError, "family 'tiny'", "dynamicdet, cascade"):
        source_stages(bundle, [])


def test_a_family_exports_and_says_what_it_does(
    small_bundle, small_checkpoint, small_yaml, stages_from, tmp_path
) -> None:
    stages_from(small_bundle)
    steps: list[str] = []
    options = DynamicDetOptions(image_size=(64, 96), config=small_yaml)
    made = DYNAMICDET.export(small_checkpoint, tmp_path / "one.dyn", options, steps.append)
    assert steps == [f"exporting {name}" for name in ("first", "router", "head", "second")]
    assert made.notes == ()
    assert made.manifest == Bundle.open(tmp_path / "one.dyn").manifest


def test_thresholds_for_use_and_for_evaluation_stand_in_the_manifest(small) -> None:
    assert small.manifest.postprocess == Postprocess()
    assert small.manifest.evaluation == EVALUATION


def test_folding_changes_the_layers_and_not_the_results(
    small, small_checkpoint, small_yaml
) -> None:
    source = source_stages(small, [small_checkpoint], small_yaml)
    folded = DYNAMICDET.fold(source, small.manifest)
    assert list(folded) == list(source)

    def norms(stages) -> int:
        return sum(
            isinstance(module, nn.BatchNorm2d)
            for stage in stages.values()
            if isinstance(stage, TorchStage)
            for module in stage.module.modules()
        )

    assert norms(source) > 0
    assert norms(folded) == 0
    images = support.random_images(2, 64, 96)
    for one, other in zip(
        source["first"].run([images]), folded["first"].run([images]), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)


def test_onnx_files_have_nothing_to_fold(small) -> None:
    assert CASCADE.fold({}, small.manifest) is None


def test_a_router_that_was_fitted_later_has_no_source(
    small, small_checkpoint, small_yaml, tmp_path
) -> None:
    reader = build_features(small.manifest, 0, FeatureKind.POOLED)
    count = len(reader.features.names)
    router = FittedRouter(reader, np.zeros(count), LinearGain(np.full(count, 1e-3), 0.1))
    write_routed(small, tmp_path / "routed.dyn", [router], {"images": 1})
    with dyninfer.load(tmp_path / "routed.dyn") as detector:
        stages = source_stages(detector.bundle, [small_checkpoint], small_yaml)
        assert list(stages) == ["first", "head", "second"]
        parity = verify(detector, stages, [], 2)
    assert parity.passed, parity.checks
    assert parity.not_compared == ("router",)
    assert parity.decisions == {}
