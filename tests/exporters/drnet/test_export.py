from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional as F

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, Forced, LeaveAt
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.drnet.export import DRNET
from dyninfer.exporters.drnet.options import Convention, DRNetOptions
from dyninfer.exporters.verify import verify
from tests import support
from tests.exporters.drnet.narrow import random_state, resnet, write_pair

PREDICTOR, CLASSIFIER = (
    support.VECTORS / f"drnet-narrow.{n}.pt" for n in ("predictor", "classifier")
)


def export(sources: tuple[Path, Path], target: Path, **options) -> Bundle:
    made = DRNET.export(sources, target, DRNetOptions(**options), lambda _step: None)
    bundle = Bundle.open(target)
    assert bundle.manifest == made.manifest
    return bundle


def operators(bundle: Bundle, stage: str) -> list[str]:
    with bundle.opening(stage) as file:
        return [node.op_type for node in onnx.load(str(file), load_external_data=False).graph.node]


def far(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> Bundle:
    return export((PREDICTOR, CLASSIFIER), tmp_path_factory.mktemp("drnet") / "narrow.dyn")


def test_the_vector_is_reproduced_and_every_branch_can_be_forced(narrow) -> None:
    with np.load(support.VECTORS / "drnet-narrow.npz") as arrays:
        vector = dict(arrays)
    inputs, route = {"images": vector["images"]}, vector["route"].tolist()
    with dyninfer.load(narrow.path) as detector:
        chosen = detector.infer(inputs)
        assert [raw.exit_index for raw in chosen] == route
        assert {*route} == {0, 1, 2}
        expected = vector["logits"][np.arange(6), route]
        assert far(support.stacked(chosen, "logits"), expected) < 1e-5
        for branch in range(3):
            forced = detector.infer(inputs, policy=Forced([branch] * 6))
            assert far(support.stacked(forced, "logits"), vector["logits"][:, branch]) < 1e-5
        singly = [detector.infer({"images": image[None]})[0] for image in vector["images"]]
        assert far(support.stacked(singly, "logits"), expected) < 1e-5
        trace = detector.trace(inputs)
        for policy, branch in ((AlwaysHard(), 0), (AlwaysEasy(), 2)):
            assert [raw.exit_index for raw in detector.infer(inputs, policy=policy)] == [branch] * 6
    assert far(trace.signals[0], vector["predictor_logits"]) < 1e-5
    assert narrow.manifest.settings == {
        "resolutions": (224, 168, 112),
        "predictor_size": 128,
        "resize": "half-pixel",
        "shortcut_bn": "index0",
    }


def test_convolutions_are_stored_once_and_only_other_sizes_are_resized(narrow) -> None:
    files = [file for file in narrow.path.rglob("*") if file.is_file()]
    states = [torch.load(path, weights_only=True) for path in (PREDICTOR, CLASSIFIER)]
    weights = sum(4 * tensor.numel() for state in states for tensor in state.values())
    assert sum(file.stat().st_size for file in files) < 1.1 * weights
    stages = {name: operators(narrow, name) for name in narrow.manifest.stages}
    assert {name: found.count("Resize") for name, found in stages.items()} == {
        "predictor": 1,
        "classifier_224": 0,
        "classifier_168": 1,
        "classifier_112": 1,
    }
    assert not {"Mul", "BatchNormalization"} & {*stages["predictor"]}
    spec = narrow.manifest.image_inputs["images"]
    placed = spec.place(500, 375)  # as Resize(256) and CenterCrop(224) do
    assert (placed.resized_width, placed.resized_height, placed.left, placed.top) == (
        *(341, 256),
        *(-58, -16),
    )


def asymmetric(images: torch.Tensor, size: int) -> torch.Tensor:
    """Row i of s is taken at i n / s: the formula, for each pixel."""
    side = images.shape[2]
    matrix = torch.zeros(size, side)
    for row in range(size):
        place = row * side / size
        low, share = int(place), place - int(place)
        matrix[row, low] += 1 - share
        matrix[row, min(low + 1, side - 1)] += share
    return matrix @ images @ matrix.T


@pytest.mark.parametrize("convention", Convention)
def test_another_pair_equals_what_its_weights_mean(tmp_path, convention) -> None:
    predictor = random_state(None, depths=(2, 1, 1), widths=(4, 8, 8), classes=4, seed=3)
    classifier = random_state(
        4, depths=(1, 2, 1), widths=(4, 8, 12), bottleneck=2, stem=12, classes=5, seed=4
    )
    sources = write_pair(tmp_path, predictor, classifier)
    sizes = (96, 70, 50, 33)
    bundle = export(
        sources,
        tmp_path / "x.dyn",
        resolutions=sizes,
        image_size=(96, 96),
        predictor_size=64,
        resize=convention,
    )
    assert bundle.manifest.settings["shortcut_bn"] == "per_resolution"
    images = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(5))

    def resized(size: int) -> torch.Tensor:
        if convention is Convention.ASYMMETRIC:
            return asymmetric(images, size)
        return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)

    with dyninfer.load(bundle.path) as detector:
        found = detector.trace({"images": images.numpy()})
        scores = resnet(predictor, resized(64)).numpy()
        assert far(found.signals[0], scores) < 1e-5
        for index, size in enumerate(sizes):
            expected = resnet(classifier, resized(size) if index else images, index, index)
            assert far(found.ways[index]["logits"], expected.numpy()) < 1e-5
        chosen = detector.infer({"images": images.numpy()})
        assert [raw.exit_index for raw in chosen] == scores.argmax(1).tolist()
        parity = verify(detector, DRNET.source_stages(bundle, sources, None), [], 2)
        folded = DRNET.fold(DRNET.source_stages(bundle, sources, None), bundle.manifest)
        assert verify(detector, folded, [], 1).passed
    assert parity.passed, parity.checks
    assert not [name for name in parity.decisions if name != "predictor"]


def test_a_picture_is_classified_at_the_resolution_that_is_asked_for(narrow) -> None:
    picture = support.random_pictures(1)[0]
    with dyninfer.load(narrow.path) as detector:
        answers = [detector(picture, policy=LeaveAt(branch)) for branch in range(3)]
    assert [answer.exit_index for answer in answers] == [0, 1, 2]
    assert all(len(answer.class_names) == 5 for answer in answers)
