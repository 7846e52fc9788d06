from __future__ import annotations

from pathlib import Path

import pytest
import torch

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.errors import BundleError, CheckpointError, ConfigError, DyninferError, InputError
from dyninfer.exporters.class_names import COCO, COCO_IDS
from dyninfer.exporters.faster_rcnn.checkpoint import class_columns, load_model
from dyninfer.exporters.faster_rcnn.export import FASTER_RCNN, FasterRCNNOptions
from dyninfer.exporters.faster_rcnn.names import Library
from dyninfer.exporters.faster_rcnn.options import Style
from dyninfer.exporters.verify import verify
from dyninfer.images.spec import ColorOrder
from tests import support
from tests.exporters.faster_rcnn import narrow


def export(source: Path, target: Path, **options: object) -> tuple[str, ...]:
    chosen = FasterRCNNOptions(**{"image_size": narrow.SIZE, **options})
    return FASTER_RCNN.export(source, target, chosen, lambda _step: None).notes


@pytest.mark.slow
def test_a_torchvision_bundle_equals_its_source(tmp_path: Path) -> None:
    source = narrow.save(narrow.torchvision(), tmp_path / "faster.pth")
    notes = export(source, tmp_path / "x.dyn", proposals=60, candidates=150)
    assert notes[1:] == ("columns: 4, of which the first is of no class",)
    with dyninfer.load(tmp_path / "x.dyn") as detector:
        stages = FASTER_RCNN.source_stages(detector.bundle, [source], None)
        parity = verify(detector, stages, support.random_pictures(2), 2)
        folded = FASTER_RCNN.fold(stages, detector.manifest)
        images = support.random_images(1, *narrow.SIZE)
        one, other = (each["body"].run([images])[3] for each in (stages, folded))
    assert parity.passed, parity.checks
    assert max(check.max_rel for check in parity.checks) < 1e-3
    assert abs(one - other).max() < 1e-4


def read(state: dict[str, torch.Tensor], path: Path, *, stride_first: bool = False):
    return load_model(narrow.save(state, path), stride_first=stride_first)


def test_whose_weights_they_are(tmp_path: Path) -> None:
    for library in Library:
        state = getattr(narrow, library.value)()
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        counted = {
            name.replace("running_var", "num_batches_tracked"): torch.tensor(7)
            for name in state
            if "running_var" in name
        }
        for each in (state, wrapped, {**state, **counted}):
            loaded = read(each, tmp_path / "any.pth")
            assert (loaded.library, loaded.notes) == (library, ())
            weights = loaded.model.backbone.layer4[2].conv2.weight
            name = next(n for n in state if n.endswith("layer4.2.conv2.weight"))
            assert torch.equal(weights, state[name])


REFUSED = {
    "another network": ({"conv1.weight": torch.zeros(1)}, "not a Faster R-CNN checkpoint"),
    "mask": ({"roi_head.mask_head.conv.weight": torch.zeros(1)}, "1 unexpected"),
    "of mmdetection 1": ({"bbox_head.fc_cls.weight": torch.zeros(4, 24)}, "of mmdetection 1"),
    "boxes of all columns": (
        {
            f"roi_head.bbox_head.fc_reg.{n}": torch.zeros(16, *s)
            for n, s in (("weight", (24,)), ("bias", ()))
        },
        "boxes for all 4 columns",
    ),
    "diverged": ({"neck.fpn_convs.0.conv.bias": torch.full((16,), torch.nan)}, "NaN or infinity"),
    "deformable": ({"backbone.layer2.0.conv2_offset.weight": torch.zeros(1)}, "conv2_offset"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_checkpoints_are_refused_in_a_line(tmp_path: Path, kind: str) -> None:
    changed, reason = REFUSED[kind]
    state = changed if kind == "another network" else {**narrow.mmdetection(), **changed}
    source = narrow.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as error:
        export(source, tmp_path / "x.dyn")
    assert reason in str(error.value)
    assert str(source) in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize(
    ("library", "options", "kind", "reason"),
    [
        ("mmdetection", {"image_size": (64, 100)}, InputError, "expected multiples of 32"),
        ("mmdetection", {"image_size": (64, 32 * 513)}, InputError, "up to 16384"),
        ("torchvision", {"style": Style.CAFFE}, ConfigError, "whose style is pytorch"),
        ("mmdetection", {"class_names": True}, ConfigError, "4 columns, one of which is of no"),
    ],
    ids=["odd", "large", "style", "names"],
)
def test_wrong_options_are_refused(
    tmp_path: Path, library: str, options: dict[str, object], kind: type[DyninferError], reason: str
) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    if "class_names" in options:
        options = {"class_names": tmp_path / "names.txt"}
    source = narrow.save(getattr(narrow, library)(), tmp_path / "x.pth")
    with support.refuses(kind, reason):
        export(source, tmp_path / "x.dyn", **options)
    assert not (tmp_path / "x.dyn").exists()


def test_columns_of_81_and_91_are_cocos_classes() -> None:
    names, columns, note = class_columns(81, None, background_first=False)
    assert (names, columns) == (COCO, tuple(range(80)))
    assert note == "columns: 81, of which the last is of no class"
    names, columns, note = class_columns(91, None, background_first=True)
    assert (names, columns) == (COCO, COCO_IDS)
    assert (names[79], columns[79]) == ("toothbrush", 90)
    names, columns, _ = class_columns(91, None, background_first=False)
    assert (names, columns) == (COCO, tuple(number - 1 for number in COCO_IDS))
    names, columns, _ = class_columns(80, None, background_first=False)
    assert (len(names), names[0], columns[-1]) == (79, "class_0", 78)


def test_names_may_hold_the_background(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    for text in ("__background__\ncat\ndog\n", "cat\ndog\n", "cat\ndog\nBackground\n"):
        path.write_text(text)
        assert class_columns(3, path, background_first=True)[:2] == (("cat", "dog"), (1, 2))
    path.write_text("\n".join(COCO))
    assert class_columns(91, path, background_first=True)[1] == COCO_IDS
    path.write_text("\n".join(f"n{i}" for i in range(90)))
    assert class_columns(91, path, background_first=True)[1] == tuple(range(1, 91))


@pytest.fixture(scope="module")
def caffe(made_once) -> Path:
    def write(path: Path) -> None:
        source = narrow.save(narrow.mmdetection(), path.parent / "r50_caffe.pth")
        export(source, path, proposals=20, candidates=30)

    return made_once("caffe.dyn", write)


@pytest.mark.slow
def test_caffes_style_is_in_the_files_name(caffe: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(caffe)
    spec = bundle.manifest.image_inputs["images"]
    assert (spec.color_order, spec.std) == (ColorOrder.BGR, (1.0, 1.0, 1.0))
    assert bundle.manifest.settings == {"style": "caffe", "columns": (0, 1, 2)}
    ends = {s.name: s.shape for s in bundle.manifest.stages["head"].outputs}
    assert ends == {"boxes_xyxy": ("batch", 30, 4), "class_scores": ("batch", 30, 3)}
    between = [s.name for s in bundle.manifest.stages["head"].inputs]
    assert between == ["p2", "p3", "p4", "p5", "proposals", "objectness"]
    head = bundle.manifest.stages["head"]
    assert head.macs == 20 * (784 * 32 + 32 * 24 + 24 * 4 + 24 * 12)
    source = narrow.save(narrow.mmdetection(), tmp_path / "r50.pth")
    stages = FASTER_RCNN.source_stages(bundle, [source], None)
    assert stages["body"].module.model.backbone.layer2[0].conv1.stride == (2, 2)
    for settings in ({}, {"style": "else", "columns": (0, 1, 2)}, {"style": "caffe"}):
        bundle.__dict__["manifest"] = bundle.manifest.model_copy(update={"settings": settings})
        with support.refuses(BundleError, "export it again"):
            FASTER_RCNN.source_stages(bundle, [source], None)
