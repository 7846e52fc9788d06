from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import dyninfer
from dyninfer import CheckpointError, ConfigError, InputError
from dyninfer.bundle.folder import Bundle
from dyninfer.exporters.candidate_rows import in_order_of
from dyninfer.exporters.class_names import COCO, COCO_IDS
from dyninfer.exporters.efficientdet.anchors import make_anchors
from dyninfer.exporters.efficientdet.detector import load_model
from dyninfer.exporters.efficientdet.export import (
    EFFICIENTDET,
    EVALUATION,
    EfficientDetOptions,
)
from dyninfer.exporters.efficientdet.stages import Decode
from dyninfer.exporters.verify import verify
from tests import support
from tests.exporters.efficientdet.narrow import narrow, random_model, save

CHECKPOINT = support.VECTORS / "tf_efficientdet_d0-3classes.pt"
NAME = "tf_efficientdet_d0"


def export(source: Path, target: Path, size: tuple[int, int] = (64, 64), **options) -> Bundle:
    made = EFFICIENTDET.export(
        source, target, EfficientDetOptions(size, **options), lambda _step: None
    )
    bundle = Bundle.open(target)
    assert bundle.manifest == made.manifest
    return bundle


def decoded(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Raw maps of all levels -> boxes and scores of all anchors, by the published formulas."""

    def rows(kind: str, width: int) -> np.ndarray:
        maps = [raw[f"{kind}_{level}"].transpose(0, 2, 3, 1) for level in range(3, 8)]
        return np.concatenate([m.reshape(len(m), -1, width) for m in maps], 1)

    ty, tx, th, tw = np.moveaxis(rows("box", 4).astype(np.float64), 2, 0)
    top, left, bottom, right = raw["anchors_yxyx"].T.astype(np.float64)
    height, width = bottom - top, right - left
    y, x = (top + bottom) / 2 + ty * height, (left + right) / 2 + tx * width
    h, w = np.exp(th) * height / 2, np.exp(tw) * width / 2
    scores = 1 / (1 + np.exp(-rows("cls", 3).astype(np.float64)))
    return {"boxes_xyxy": np.stack([x - w, y - h, x + w, y + h], 2), "class_scores": scores}


@pytest.mark.slow
def test_d0_equals_the_public_code_with_few_nodes(tmp_path) -> None:
    bundle = export(CHECKPOINT, tmp_path / "d0.dyn", (128, 128))
    with np.load(CHECKPOINT.with_suffix(".npz")) as arrays:
        vector = dict(arrays)
    expected = decoded(vector)
    best = np.argsort(-expected["class_scores"].max(2), 1, kind="stable")[:, :1000, None]
    expected = {name: np.take_along_axis(a, best, 1) for name, a in expected.items()}
    with dyninfer.load(bundle.path) as detector:
        raw = detector.infer({"images": vector["images"]})
        stages = EFFICIENTDET.source_stages(bundle, [CHECKPOINT], None)
        parity = verify(detector, stages, support.random_pictures(2), 1)
    assert parity.passed, parity.checks
    found = {name: support.stacked(raw, name) for name in expected}
    found = in_order_of(expected, found, 1e-3, 1e-6)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4)
    with bundle.opening("body") as file:
        nodes = onnx.load(str(file)).graph.node
    assert len(nodes) + 1 <= 600  # of 90 columns, one more node chooses 80
    assert {node.op_type for node in nodes} & {"BatchNormalization", "Pad", "Div"} == set()
    assert bundle.manifest.class_names == ("class_0", "class_1", "class_2")
    assert bundle.manifest.evaluation == EVALUATION
    np.testing.assert_allclose(
        make_anchors((128, 128), 5, 4.0), vector["anchors_yxyx"], rtol=0, atol=1e-4
    )


@pytest.mark.slow
def test_a_native_bundle_equals_its_source(tmp_path) -> None:
    """TensorFlow's kind: D0. Lite and COCO's columns: test_efficientdets.py of cascades."""
    name = "efficientdet_d0"
    structure = narrow(native=True, level_first=True, cells=1, levels=4)
    source = save(random_model(structure), tmp_path / f"{name}-narrow.pth")
    bundle = export(source, tmp_path / "x.dyn", (72, 104), candidates=50)
    with dyninfer.load(bundle.path) as detector:
        stages = EFFICIENTDET.source_stages(bundle, [source], None)
        parity = verify(detector, stages, support.random_pictures(2), 2)
    assert parity.passed, parity.checks
    assert bundle.manifest.class_names == ("class_0", "class_1", "class_2")
    ends = {spec.name: spec.shape for spec in bundle.manifest.stages["body"].outputs}
    assert ends == {
        "boxes_xyxy": ("batch", 50, 4),
        "class_scores": ("batch", 50, 3),
    }
    assert bundle.manifest.source.config_file_name == name


@pytest.fixture
def model():
    return random_model(narrow(levels=4, cells=1, repeats=1))


def test_all_candidates_are_in_the_order_of_the_anchors() -> None:
    anchors = make_anchors((64, 64), 5, 4.0)
    logits = torch.randn(1, len(anchors), 3)
    boxes, scores = Decode(anchors, len(anchors), None)(logits, torch.zeros(1, len(anchors), 4))
    assert scores.shape == (1, 9 * (64 + 16 + 4 + 1 + 1), 3)
    assert torch.equal(scores, logits.sigmoid())
    np.testing.assert_allclose(boxes[0], anchors[:, [1, 0, 3, 2]], atol=1e-4)


def test_checkpoints_of_trainings_are_read_safely(tmp_path, model, monkeypatch) -> None:
    state = model.state_dict()
    other = {name: tensor + 1 for name, tensor in state.items()}
    contents = {
        "training": {
            "epoch": 3,
            "arch": NAME,
            "state_dict": other,
            "optimizer": {"lr": 0.1},
            "args": Namespace(lr=0.1),
            "metric": 0.3,
            "version": 2,
            "state_dict_ema": {f"module.{n}": t for n, t in state.items()},
        },
        "parallel": {"arch": NAME, "state_dict": {f"module.{n}": t for n, t in state.items()}},
        "bench": {
            "anchors.boxes": torch.zeros(774, 4),
            **{f"model.{n}": t for n, t in state.items()},
        },
        "half": {name: t.half() if t.is_floating_point() else t for name, t in state.items()},
        "without counts": {n: t for n, t in state.items() if "num_batches" not in n},
    }
    found = []
    monkeypatch.setattr(
        "dyninfer.exporters.efficientdet.export.write_bundle",
        lambda *_args, **_options: found.append("written"),
    )
    for kind, content in contents.items():
        named = "model" if "arch" in content else NAME
        path = tmp_path / f"{named}-{kind}.pth"
        torch.save(content, path)
        read = load_model(path)
        for name, tensor in state.items():
            expected = tensor.half().float() if kind == "half" else tensor.float()
            if "num_batches" not in name:
                assert torch.equal(read.state_dict()[name], expected), (kind, name)
        made = EFFICIENTDET.export(path, tmp_path / "x.dyn", EfficientDetOptions(), print)
        assert any(NAME in note for note in made.notes)
        assert any("state_dict_ema" in note for note in made.notes) is (kind == "training")
    assert len(found) == len(contents)


def test_what_is_no_efficientdet_is_refused_without_a_trace(tmp_path, model) -> None:
    state = model.state_dict()
    fused = {n: t for n, t in state.items() if not n.startswith("backbone.blocks.3")}
    extra = {**state, "fpn.cell.0.fnode.0.combine.gate.weight": torch.zeros(3)}
    edge = {n.replace("blocks.1.0.conv_dw", "blocks.1.0.conv_exp"): t for n, t in state.items()}
    broken = {n: t * float("nan") if n == "backbone.bn1.bias" else t for n, t in state.items()}
    for content, reason in (
        ({"fc.weight": torch.zeros(3)}, "not an EfficientDet checkpoint"),
        (fused, "numbered [0, 1, 2, 4, 5, 6]"),
        (extra, "1 unexpected: fpn.cell.0.fnode.0.combine.gate.weight"),
        (edge, "backbone.blocks.1.0 is neither"),
        (broken, "NaN"),
    ):
        torch.save(content, tmp_path / f"{NAME}.pth")
        with support.refuses(CheckpointError, reason):
            export(tmp_path / f"{NAME}.pth", tmp_path / "x.dyn")
        assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.pth"]


def test_wrong_options_are_refused_before_the_work(tmp_path, model) -> None:
    source = save(model, tmp_path / "mine.pth")
    (tmp_path / "names.txt").write_text("one\ntwo\n")
    for options, error, reason in (
        ({"config": "d0"}, ConfigError, "tf_efficientdet_d0"),
        ({}, ConfigError, "--config"),
        ({"config": NAME, "class_names": tmp_path / "names.txt"}, ConfigError, "2 class names"),
    ):
        with support.refuses(error, reason):
            export(source, tmp_path / "x.dyn", **options)
    with support.refuses(InputError, "16384"):
        export(source, tmp_path / "x.dyn", (64, 20_000), config=NAME)
    assert not (tmp_path / "x.dyn").exists()


def test_decoding_undoes_encoding() -> None:
    anchors = make_anchors((64, 64), 5, 4.0)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (len(anchors), 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 40, low.shape)], 1)
    centre, size = (
        (anchors[:, :2] + anchors[:, 2:])[:, ::-1] / 2,
        (anchors[:, 2:] - anchors[:, :2])[:, ::-1],
    )
    middle, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    codes = np.concatenate([(middle - centre) / size, np.log(extent / size)], 1)
    decode = Decode(anchors, len(anchors), None)
    found, _ = decode(torch.zeros(1, len(anchors), 3), torch.from_numpy(codes[None]).float())
    np.testing.assert_allclose(found[0], boxes, atol=1e-3)


def test_columns_are_chosen_and_a_class_without_one_is_never_found() -> None:
    anchors = make_anchors((64, 64), 5, 4.0)
    logits = torch.randn(1, len(anchors), 3, generator=torch.Generator().manual_seed(1))
    codes = torch.zeros(1, len(anchors), 4)
    for columns in ([2, 0], [2, -1, 0]):
        _, scores = Decode(anchors, len(anchors), columns)(logits, codes)
        for place, column in enumerate(columns):
            expected = logits[..., column].sigmoid() if column >= 0 else torch.zeros(())
            torch.testing.assert_close(scores[..., place], expected.expand(scores.shape[:2]))


def test_columns_of_coco_are_its_80_classes_and_the_surest_come_first() -> None:
    anchors = make_anchors((64, 64), 5, 4.0)
    logits = torch.full((1, len(anchors), 90), -9.0)
    logits[0, 700, 90 - 1] = 2.0  # toothbrush
    logits[0, 5, 13 - 1] = 1.0  # stop sign
    decode = Decode(anchors, 2, [number - 1 for number in COCO_IDS])
    boxes, scores = decode(logits, torch.zeros(1, len(anchors), 4))
    assert [COCO[i] for i in scores[0].argmax(1)] == ["toothbrush", "stop sign"]
    np.testing.assert_allclose(boxes[0], anchors[[700, 5]][:, [1, 0, 3, 2]], atol=1e-4)
