"""EfficientDet checkpoints as detectors of a cascade, alone and beside ONNX files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import dyninfer
from dyninfer import BundleError, CheckpointError, ConfigError
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.exporters.candidate_rows import in_order_of
from dyninfer.exporters.cascade.export import CASCADE, CascadeOptions, export_cascade
from dyninfer.exporters.cascade.options import ClassList, Decode, DetectorSource, made_from_onnx
from dyninfer.exporters.class_names import COCO
from dyninfer.exporters.efficientdet.anchors import make_anchors
from dyninfer.exporters.efficientdet.detector import load_model
from dyninfer.exporters.efficientdet.export import EVALUATION, USE
from dyninfer.exporters.families import source_stages
from dyninfer.exporters.router import FeatureKind
from dyninfer.exporters.router.model import build_features
from dyninfer.exporters.verify import verify
from dyninfer.runtime.detector import Detector
from tests import support
from tests.exporters.cascade import detectors
from tests.exporters.efficientdet.narrow import narrow, random_model, save

FIRST, LAST, NAMES = "tf_efficientdet_d0-cheap.pth", "tf_efficientdet_lite0-good.pth", "three.txt"
Files = tuple[DetectorSource, DetectorSource]


def write_files(folder: Path) -> None:
    """Three classes of its own, of which COCO has two; and COCO's 90 columns."""
    folder.mkdir()
    three = narrow(levels=4, cells=1, repeats=1)
    coco = narrow(lite=True, levels=3, classes=90, cells=1, repeats=1)
    save(random_model(three, 1), folder / FIRST)
    save(random_model(coco, 2), folder / LAST)
    (folder / NAMES).write_text("dog\ngnome\nperson\n")


def write_pair(folder: Path) -> None:
    """Both, and the bundle of them."""
    write_files(folder)
    made = export_cascade(sources_of(folder), folder / "pair.dyn")
    (folder / "notes.txt").write_text("\n".join(made.notes))


def sources_of(folder: Path) -> Files:
    """The files as detectors of a cascade, each with an image size of its own."""
    return (
        DetectorSource(folder / FIRST, size=(96, 96), class_names=folder / NAMES),
        DetectorSource(folder / LAST, size=(72, 104)),
    )


@pytest.fixture
def pair(made_once: Callable[..., Path]) -> Path:
    """The folder of the two checkpoints, and of ``pair.dyn``; do not change it."""
    return made_once("EfficientDets", write_pair)


@pytest.fixture
def sources(pair: Path) -> Files:
    return sources_of(pair)


@pytest.fixture
def detector(pair: Path):
    with dyninfer.load(pair / "pair.dyn") as opened:
        yield opened


def paths(sources: Files) -> list[Path]:
    return [source.path for source in sources]


def test_the_first_is_a_body_and_a_head_and_the_last_is_whole(pair: Path) -> None:
    manifest = Bundle.open(pair / "pair.dyn").manifest
    assert manifest.family == "cascade"
    assert not made_from_onnx(manifest)  # or no baseline would run in PyTorch
    assert [tuple(way.parts.items()) for way in manifest.ways] == [
        (("body", "first"), ("head", "first_head")),
        (("body", "second"),),
    ]
    maps = {spec.name: spec.shape for spec in manifest.stages["first"].outputs}
    sides = {"first_p3": 12, "first_p4": 6, "first_p5": 3, "first_p6": 2}
    assert maps == {name: ("batch", 16, side, side) for name, side in sides.items()}
    assert {spec.name for spec in manifest.stages["first_head"].inputs} == set(maps)
    images = {n: (i.height, i.width, i.mean[0]) for n, i in manifest.image_inputs.items()}
    assert images == {"images": (96, 96, 123.675), "images_2": (72, 104, 127.5)}
    assert (manifest.postprocess, manifest.evaluation) == (USE, EVALUATION)
    assert manifest.class_names == COCO
    named = [
        (s.file_name, s.config_file_name) for s in (manifest.source, *manifest.further_sources)
    ]
    assert named == [(FIRST, "tf_efficientdet_d0"), (LAST, "tf_efficientdet_lite0")]
    model = load_model(pair / FIRST)
    heads = sum(p.numel() for net in (model.class_net, model.box_net) for p in net.parameters())
    whole = sum(p.numel() for p in model.parameters())
    assert manifest.stages["first_head"].parameters == heads
    assert manifest.stages["first"].parameters == whole - heads
    notes = (pair / "notes.txt").read_text()
    for part in (
        f"{FIRST}: image size, anchors and colours of tf_efficientdet_d0, which the start",
        "first: 1 of its 3 classes dropped: gnome",
        "first: lacks 78 of the 80 classes: bicycle",
    ):
        assert part in notes


def test_every_stage_and_way_equals_the_checkpoints(detector: Detector, sources: Files) -> None:
    stages = source_stages(detector.bundle, paths(sources))
    assert list(stages) == ["first", "first_head", "second"]
    parity = verify(detector, stages, support.random_pictures(2), 2)
    assert parity.passed, parity.checks
    assert parity.not_compared == ()
    folded = CASCADE.fold(stages, detector.manifest)
    assert folded is not None
    images = support.random_images(1, 96, 96)
    maps = stages["first"].run([images])
    for one, other in zip(maps, folded["first"].run([images]), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)
    names, head = ("boxes_xyxy", "class_scores"), "first_head"
    expected = dict(zip(names, stages[head].run(maps), strict=True))
    found = dict(zip(names, folded[head].run(maps), strict=True))
    for name, array in in_order_of(expected, found, 1e-2, 1e-4).items():
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=1e-3)


def test_classes_are_matched_by_name_and_dropped_ones_take_no_candidates(
    detector: Detector, pair: Path
) -> None:
    """By the formulas, of the model as it was saved: columns 0 and 2, dog and person."""
    images = support.random_images(1, 96, 96)
    with torch.inference_mode():
        logits, codes = load_model(pair / FIRST)(torch.from_numpy(images))
    anchors = make_anchors((96, 96), 4, 4.0)[:, [1, 0, 3, 2]]
    own = logits[0][:, [0, 2]].sigmoid().numpy()
    best = np.argsort(-own.max(1), kind="stable")[:1000]
    assert len(own) > 1.5 * len(best)
    size, centre = anchors[:, 2:] - anchors[:, :2], (anchors[:, 2:] + anchors[:, :2]) / 2
    middle = codes[0, :, :2].numpy() * size + centre
    reach = np.exp(codes[0, :, 2:].numpy()) * size / 2
    boxes = np.concatenate([middle - reach, middle + reach], 1)
    scores = np.zeros((len(own), 80), np.float32)
    scores[:, [COCO.index("dog"), COCO.index("person")]] = own
    inputs = {"images": images, "images_2": support.random_images(1, 72, 104)}
    raw = detector.infer(inputs, policy=dyninfer.AlwaysEasy())
    expected = {"boxes_xyxy": boxes[None, best], "class_scores": scores[None, best]}
    found = {name: support.stacked(raw, name) for name in expected}
    found = in_order_of(expected, found, 1e-2, 1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-3)
    assert not found["class_scores"][..., COCO.index("cat")].any()


def test_an_image_that_goes_on_does_not_run_the_first_head(pair: Path) -> None:
    with dyninfer.load(pair / "pair.dyn") as detector:
        found = detector(support.random_pictures(2), policy=dyninfer.Forced([1, 1]))
        assert [each.exit_index for each in found] == [1, 1]
        assert detector.engines["first_head"].run_count == 0
        assert detector(support.random_pictures(1)[0], policy=dyninfer.AlwaysEasy()).exit_index == 0
        assert detector.engines["first_head"].run_count == 1


def test_a_router_reads_the_averages_of_the_pyramid(detector: Detector) -> None:
    reader = build_features(detector.manifest, 0, FeatureKind.AUTO)
    assert [spec.name for spec in reader.inputs] == [f"first_p{n}" for n in range(3, 7)]
    assert len(reader.features.names) == 4 * 16


def test_what_a_checkpoint_does_not_take_or_tell_is_said(tmp_path: Path, sources: Files) -> None:
    first, last = sources
    mine = shutil.copy(first.path, tmp_path / "mine.pth")
    for wrong, error, parts in (
        (
            DetectorSource(first.path, decode=Decode.YOLOV8, mean=(0.0,) * 3, std=(1.0,) * 3),
            ConfigError,
            (
                *("--first-class-names, --first-config, --first-size", "leave out --first-decode"),
                *("--first-normalise", "fields of DetectorSource"),
            ),
        ),
        (DetectorSource(mine), ConfigError, ("neither image size", "config (--first-config)")),
        (
            DetectorSource(mine, config="d0"),
            ConfigError,
            ("config (--first-config) is 'd0'", "tf_efficientdet_d0"),
        ),
        (DetectorSource(tmp_path / "no.pth"), CheckpointError, ("no.pth does not exist",)),
    ):
        with support.refuses(error, *parts):
            export_cascade([wrong, last], tmp_path / "x.dyn")
    torch.save({"model.0.conv.weight": torch.zeros(3)}, tmp_path / "yolo.pt")
    with support.refuses(CheckpointError, "yolo.pt is not an EfficientDet", "takes ONNX files"):
        export_cascade([DetectorSource(tmp_path / "yolo.pt"), last], tmp_path / "x.dyn")
    (tmp_path / "other.txt").write_text("a\nb\nc\n")
    other = DetectorSource(first.path, class_names=tmp_path / "other.txt")
    with support.refuses(ConfigError, "none in common", "--first-class-names"):
        export_cascade([other, last], tmp_path / "x.dyn")
    file = detectors.yolov8(3).save(tmp_path / "yolo.onnx")
    named = DetectorSource(file, config="tf_efficientdet_d0")
    with support.refuses(ConfigError, "is an ONNX file; leave out --second-config"):
        export_cascade([last, named], tmp_path / "x.dyn")
    assert not (tmp_path / "x.dyn").exists()


@pytest.mark.parametrize("columns", ["", "[1, 2]", "[0, 1, 90]", "{", None])
def test_columns_that_do_not_fit_are_refused(pair: Path, tmp_path: Path, columns) -> None:
    target = shutil.copytree(pair / "pair.dyn", tmp_path / "pair.dyn")
    path = target / "onnx" / "second.onnx"
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {} if columns is None else {"dyninfer_columns": columns})
    path.write_bytes(model.SerializeToString())
    support.reseal(
        target, lambda payload: payload["stages"]["second"].update(sha256=file_sha256(path))
    )
    with support.refuses(BundleError, "second", "export it again"):
        source_stages(Bundle.read(target), paths(sources_of(pair)))


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1])
def test_a_checkpoint_and_an_onnx_file(tmp_path: Path, pair: Path, place: int) -> None:
    """The ONNX file first, and the checkpoint first."""
    file = detectors.yolov8(3).save(
        tmp_path / "yolo.onnx", metadata={"names": "{0: dog, 1: cat, 2: cow}"}
    )
    checkpoint = DetectorSource(pair / LAST, size=(64, 64))
    mixed = [checkpoint, DetectorSource(file)]
    if place == 0:
        mixed.reverse()
    made = export_cascade(mixed, tmp_path / "mixed.dyn", CascadeOptions(classes=ClassList.COMMON))
    assert set(made.manifest.class_names) == {"dog", "cat", "cow"}
    bodies = ["first", "second"] if place == 0 else ["first", "first_head", "second"]
    assert list(made.manifest.stages) == bodies
    assert made_from_onnx(made.manifest)
    with dyninfer.load(tmp_path / "mixed.dyn") as detector:
        stages = source_stages(detector.bundle, [source.path for source in mixed])
        parity = verify(detector, stages, support.random_pictures(2), 2)
    assert parity.passed, parity.checks
    assert CASCADE.fold(stages, made.manifest) is None
