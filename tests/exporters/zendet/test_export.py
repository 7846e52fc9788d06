from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch

import dyninfer
from dyninfer.bundle.manifest import Task
from dyninfer.errors import CheckpointError, ConfigError, InputError
from dyninfer.evaluation.dataset import load_samples
from dyninfer.exporters.family import TorchStage
from dyninfer.exporters.zendet.backbone import fold, random_backbone
from dyninfer.exporters.zendet.checkpoint import load_model
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.export import ZENDET, ZenDetOptions, class_names_of
from dyninfer.exporters.zendet.stages import BackboneStage, build_stage
from dyninfer.search.cost import cost_of
from dyninfer.search.structure import Block, checked, read_structure
from tests import support
from tests.exporters.zendet import reference
from tests.exporters.zendet.reference import CHECKPOINT, SIZE, STRUCTURE

MAPS = ("c2", "c3", "c4", "c5")
UNEVEN = [
    Block(3, 8, 3, 2),
    Block(8, 16, 3, 2, 1, 8),
    Block(16, 24, 5, 2, 2, 8),
    Block(24, 32, 3, 2, 1, 16),
    Block(32, 40, 5, 1, 3, 16),
    Block(40, 48, 3, 2, 1, 16, groups=2),
]


def export(
    source: Path | None, output: Path, **options: object
) -> dyninfer.bundle.manifest.Manifest:
    chosen = ZenDetOptions(**{"structure": STRUCTURE, "image_size": SIZE, **options})
    return ZENDET.export(source, output, chosen, lambda _: None).manifest


@pytest.fixture(scope="module")
def backbone(made_once) -> Path:
    return made_once("zendet-narrow.dyn", lambda path: export(CHECKPOINT, path))


def infer(bundle: Path) -> list[dict[str, np.ndarray]]:
    with dyninfer.load(bundle) as opened:
        return [raw.outputs for raw in opened.infer({"images": reference.images()})]


def test_the_vectors_features_are_reproduced_through_onnx(backbone: Path) -> None:
    found = infer(backbone)
    with np.load(support.VECTORS / "zendet-narrow.npz") as vectors:
        for index, outputs in enumerate(found):
            assert sorted(outputs) == sorted(MAPS)
            for name in MAPS:
                np.testing.assert_allclose(outputs[name], vectors[name][index], rtol=0, atol=1e-4)
        manifest = json.loads((backbone / "bundle.json").read_text())
        assert manifest["stages"]["body"]["parameters"] == int(vectors["params"])
    assert manifest["task"] == "features"
    structure = read_structure(STRUCTURE)
    assert manifest["stages"]["body"]["macs"] == cost_of(structure, SIZE).macs


def test_a_backbone_answers_with_its_maps(backbone: Path) -> None:
    with dyninfer.load(backbone) as opened:
        first = opened(np.zeros((60, 80, 3), np.uint8))
        before = first.maps["c5"].copy()
        opened(np.full((60, 80, 3), 255, np.uint8))
    assert (len(first), first.maps["c2"].shape) == (0, (24, 24, 32))
    np.testing.assert_array_equal(first.maps["c5"], before)
    assert first["features"][3] == {"name": "c5", "shape": [96, 3, 4]}
    assert "c4 (64, 6, 8)" in repr(first)


def decoded(columns: int, candidates: int | None) -> list[np.ndarray]:
    """Boxes and class scores of a head of random weights, folded, on the vectors' pictures."""
    model = load_detector(reference.detector_state(columns))
    stage = build_stage(fold(model), SIZE, 80, candidates)
    return TorchStage(stage).run([reference.images()])


def load_detector(state: dict[str, torch.Tensor]) -> Detector:
    with TemporaryDirectory() as folder:
        checkpoint = reference.save(state, Path(folder, "latest.pth"))
        model, _ = load_model(checkpoint, read_structure(STRUCTURE))
    assert isinstance(model, Detector)
    return model


@pytest.mark.parametrize("columns", [81, 80])
def test_boxes_and_scores_are_the_references_place_by_place(columns: int) -> None:
    with np.load(support.VECTORS / "zendet-narrow.npz") as vectors:
        maps = [torch.from_numpy(vectors[name]) for name in MAPS[1:]]
    boxes, scores = reference.detections(reference.detector_state(columns), maps, 80)
    found_boxes, found_scores = decoded(columns, None)
    assert found_scores.shape == (2, 12 * 16 + 6 * 8 + 3 * 4 + 2 * 2 + 1, 80)
    np.testing.assert_allclose(found_boxes, boxes, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found_scores, scores, rtol=0, atol=1e-5)


def test_one_picture_whose_coarsest_map_has_one_place_and_groups_of_one_channel() -> None:
    stage = build_stage(load_detector(reference.detector_state()), SIZE, 80, None)
    boxes, _ = TorchStage(stage).run([reference.images()[:1]])
    np.testing.assert_allclose(boxes[0], decoded(81, None)[0][0], rtol=0, atol=1e-3)


def test_the_surest_candidates_are_given_on() -> None:
    every, few = decoded(81, None), decoded(81, 40)
    best = np.argsort(-every[1].max(2), axis=1, kind="stable")[:, :40]
    for image, rows in enumerate(best):
        np.testing.assert_allclose(few[0][image], every[0][image][rows])
        np.testing.assert_allclose(few[1][image], every[1][image][rows])


@pytest.mark.slow
def test_a_detector_is_decoded_in_the_graph(tmp_path: Path) -> None:
    checkpoint = reference.save(reference.detector_state(), tmp_path / "latest.pth")
    made = export(checkpoint, tmp_path / "detector.dyn", candidates=40)
    assert (made.task, made.class_names[:2]) == (Task.DETECT, ("person", "bicycle"))
    boxes, scores = decoded(81, 40)
    for index, outputs in enumerate(infer(tmp_path / "detector.dyn")):
        np.testing.assert_allclose(outputs["boxes_xyxy"], boxes[index], rtol=0, atol=1e-3)
        np.testing.assert_allclose(outputs["class_scores"], scores[index], rtol=0, atol=1e-5)


def test_columns_of_other_counts(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\nbird\n")
    for columns in (3, 4):
        assert class_names(columns, names) == (("cat", "dog", "bird"), ())
    assert class_names(4, None)[0] == ("class_0", "class_1", "class_2", "class_3")
    assert "give names" in class_names(4, None)[1][0]
    assert class_names(80, None)[1] == ()
    assert len(class_names(81, None)[0]) == 80
    names.write_text("cat\n")
    with pytest.raises(ConfigError, match="1 class name, but the head has 4 columns"):
        class_names(4, names)
    with pytest.raises(ConfigError, match="a backbone has no classes"):
        export(CHECKPOINT, tmp_path / "one.dyn", class_names=names)


def class_names(columns: int, path: Path | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return class_names_of(load_detector(reference.detector_state(columns)), path)


def test_wrappers_and_missing_counts_make_no_difference(tmp_path: Path) -> None:
    """Of DataParallel, and of a detector without its neck."""
    state = reference.backbone_state()
    kept = {name: value for name, value in state.items() if not name.endswith("_tracked")}
    structure = read_structure(STRUCTURE)
    expected = load_model(CHECKPOINT, structure)[0].state_dict()
    for prefix in ("", "module.", "backbone.body.", "body."):
        path = tmp_path / f"{prefix}pth"
        torch.save({f"{prefix}{name}": value for name, value in kept.items()}, path)
        found = load_model(path, structure)[0].state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in kept)


def test_random_weights_of_a_structure_with_a_stride_of_1_in_the_middle() -> None:
    structure = checked(UNEVEN)
    stage = BackboneStage(random_backbone(structure, 0))
    maps = dict(zip(MAPS, TorchStage(stage).run([reference.images()]), strict=True))
    assert {name: map_.shape[1:] for name, map_ in maps.items()} == {
        "c2": (16, 24, 32),
        "c3": (24, 12, 16),
        "c4": (40, 6, 8),
        "c5": (48, 3, 4),
    }
    assert all(0.01 < map_.std() < 100 for map_ in maps.values())
    again = BackboneStage(fold(random_backbone(structure, 0)))
    for name, found in zip(MAPS, TorchStage(again).run([reference.images()]), strict=True):
        np.testing.assert_allclose(found, maps[name], rtol=1e-4, atol=1e-4)


def test_random_maps_do_not_grow_with_depth() -> None:
    blocks = [replace(block, depth=10) if block.width else block for block in UNEVEN]
    stage = BackboneStage(random_backbone(checked(blocks), 1))
    for map_ in TorchStage(stage).run([reference.images()]):
        assert 0.01 < map_.std() < 1000


@pytest.mark.parametrize(
    ("changed", "kind", "expected"),
    [
        ({"image_size": (96, 100)}, InputError, "expected multiples of 32"),
        ({"image_size": (96, 32 * 513)}, InputError, "expected sides up to 16384"),
        ({"structure": support.VECTORS / "none.txt"}, ConfigError, "does not exist"),
    ],
    ids=["odd", "large", "no structure"],
)
def test_what_cannot_be_exported_is_refused(tmp_path: Path, changed, kind, expected: str) -> None:
    with pytest.raises(kind, match=expected):
        export(CHECKPOINT, tmp_path / "out.dyn", **changed)
    assert not [*tmp_path.iterdir()]


def test_a_checkpoint_of_another_structure_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(STRUCTURE.read_text().replace("'L': 3", "'L': 4"))
    with pytest.raises(CheckpointError) as error:
        export(CHECKPOINT, tmp_path / "out.dyn", structure=other)
    assert re.search(r"does not fit a backbone of 5 blocks.*15 missing", str(error.value))
    assert str(CHECKPOINT) in str(error.value)
    assert "structure text" in str(error.value)
    narrower = tmp_path / "narrower.txt"
    text = STRUCTURE.read_text().replace("'out': 16", "'out': 8").replace("'in': 16", "'in': 8")
    narrower.write_text(text)
    checkpoint = reference.save(reference.detector_state(), tmp_path / "latest.pth")
    with pytest.raises(CheckpointError, match=r"of another shape: backbone.body.block_list.0"):
        export(checkpoint, tmp_path / "out.dyn", structure=narrower)
    assert not (tmp_path / "out.dyn").exists()


def test_other_heads_are_refused(tmp_path: Path) -> None:
    state = reference.detector_state()
    for name, broken in (
        ("bbox_head.reg_conf.0.weight", None),
        ("bbox_head.gfl_reg.weight", torch.zeros(67, 32, 3, 3)),
        ("bbox_head.gfl_cls.weight", torch.zeros(81, 30, 3, 3)),
    ):
        changed = {key: value for key, value in state.items() if key != name}
        if broken is not None:
            changed[name] = broken
        path = reference.save(changed, tmp_path / "latest.pth")
        with pytest.raises(CheckpointError, match="not GFLV2's"):
            export(path, tmp_path / "out.dyn")
    path = reference.save({**state, "bbox_head.extra": torch.zeros(1)}, tmp_path / "latest.pth")
    with pytest.raises(CheckpointError, match=r"1 unexpected: bbox_head\.extra"):
        export(path, tmp_path / "out.dyn")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match="is not a ZenDet checkpoint"):
        export(tmp_path / "resnet.pth", tmp_path / "out.dyn")


def test_backbones_are_measured_on_no_labels() -> None:
    with pytest.raises(InputError, match="a backbone ends in feature maps"):
        load_samples([], Path("labels.json"), (), Task.FEATURES)
    assert load_samples([CHECKPOINT], None, (), Task.FEATURES).items[0].path == CHECKPOINT
