from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import dyninfer
from dyninfer import Bundle, CheckpointError, ConfigError, ExportError, InputError
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.class_names import COCO, class_names_for
from dyninfer.exporters.dynamicdet.export import (
    DYNAMICDET,
    DynamicDetOptions,
    choose_image_size,
    export_dynamicdet,
)
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from dyninfer.exporters.graphs import count_macs
from dyninfer.exporters.onnx_export import write_stage
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.measure import measure_precision
from dyninfer.exporters.router.model import PooledFeatures
from dyninfer.exporters.verify import verify
from tests import support


def test_the_default_size_is_that_of_the_published_models() -> None:
    assert choose_image_size(None, 32) == (640, 640)
    assert choose_image_size(None, 64) == (1280, 1280)
    assert choose_image_size((96, 160), 32) == (96, 160)


@pytest.mark.parametrize(
    ("size", "stride", "parts"),
    [
        ((100, 128), 32, ("100x128", "multiples of 32", "96", "128")),
        ((128, 100), 32, ("128x100",)),
        ((96, 96), 64, ("64", "128")),
        ((0, 64), 32, ("0x64",)),
        ((16, 64), 32, ("32",)),
        ((-32, 64), 32, ("-32x64",)),
    ],
)
def test_sizes_that_are_no_multiple_of_the_stride_are_refused(size, stride, parts) -> None:
    with support.refuses(InputError, *parts):
        choose_image_size(size, stride)


@pytest.mark.slow
def test_a_bundle_gives_on_the_surest_boxes_of_every_head(
    tmp_path, small_checkpoint, small_yaml, small_bundle
) -> None:
    options = DynamicDetOptions(image_size=(64, 96), config=small_yaml, candidates=30)
    path = tmp_path / "few.dyn"
    manifest = export_dynamicdet(small_checkpoint, path, options)
    for name in ("head", "second"):
        assert [spec.shape[1] for spec in manifest.stages[name].outputs] == [30, 30]
    images = {"images": support.random_images(2, 64, 96)}
    with dyninfer.load(path) as few, dyninfer.load(small_bundle) as whole:
        sources = DYNAMICDET.source_stages(few.bundle, [small_checkpoint], small_yaml)
        assert verify(few, sources, support.random_pictures(2), 2).passed
        for policy in (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard()):
            found, all_of_them = (d.infer(images, policy=policy) for d in (few, whole))
            for kept, every in zip(found, all_of_them, strict=True):
                best = np.argsort(-every.outputs["class_scores"].max(1), kind="stable")[:30]
                for tensor, array in every.outputs.items():
                    np.testing.assert_allclose(kept.outputs[tensor], array[best], atol=1e-4)
    # of a conversion, candidates that rounding swaps are compared with themselves
    support.reseal(path, lambda document: document.update(postprocess={"confidence": 0.0}))
    bundle = Bundle.open(path)
    half = convert_bundle_stages(bundle, {"second": Precision.FP16}, [], tmp_path)
    (_, end) = measure_precision(bundle, half, support.random_pictures(2)).exits
    assert end.box_error_mean_px < 4  # of pictures of 64x96; rank by rank it is 28


def test_a_wrong_size_leaves_nothing_on_disk(tmp_path) -> None:
    options = DynamicDetOptions(image_size=(100, 100))
    with support.refuses(InputError, "100x100"):
        export_dynamicdet(support.checkpoint_of("dy-yolov7"), tmp_path / "x.dyn", options)
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_refused_before_anything_is_read(tmp_path) -> None:
    path = support.write_static(tmp_path / "old.dyn")
    before = support.files_below(tmp_path)
    with support.refuses(ExportError, "old.dyn", "exists"):
        export_dynamicdet(tmp_path / "nothing.pt", path)
    with support.refuses(CheckpointError, "nothing.pt"):
        export_dynamicdet(tmp_path / "nothing.pt", path, DynamicDetOptions(overwrite=True))
    assert support.files_below(tmp_path) == before


def test_a_failing_stage_keeps_the_old_bundle(tmp_path, small_checkpoint, small_yaml) -> None:
    path = support.write_static(tmp_path / "old.dyn")
    before = support.files_below(tmp_path)

    def fail(stage: str) -> None:
        if stage == "router":
            raise OSError(28, "No space left on device")

    options = DynamicDetOptions(image_size=(32, 32), config=small_yaml, overwrite=True)
    with support.refuses(ExportError, "old.dyn", "disk is full"):
        export_dynamicdet(small_checkpoint, path, options, fail)
    assert support.files_below(tmp_path) == before


@pytest.fixture
def files_of_20_kb() -> Iterator[None]:
    """No file can be longer, as where a disk is full after as much."""
    resource = pytest.importorskip("resource", reason="this system limits no files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_target_and_no_temporary_folder(
    tmp_path, small_bundle, small_checkpoint, small_yaml, stages_from, request
) -> None:
    path = support.write_static(tmp_path / "old.dyn")
    before = support.files_below(tmp_path)
    stages_from(small_bundle)
    assert (small_bundle / "onnx/first.onnx").stat().st_size > 20_000
    options = DynamicDetOptions(image_size=(64, 96), config=small_yaml, overwrite=True)
    request.getfixturevalue("files_of_20_kb")
    with support.refuses(ExportError, "disk is full"):
        export_dynamicdet(small_checkpoint, path, options)
    assert support.files_below(tmp_path) == before


@pytest.mark.slow
def test_the_manifest_says_where_the_weights_came_from(small_bundle, small_checkpoint) -> None:
    manifest = Bundle.open(small_bundle).manifest
    assert manifest.source.file_name == small_checkpoint.name
    assert manifest.source.sha256 == file_sha256(small_checkpoint)
    assert (manifest.family, manifest.name) == ("dynamicdet", "small")
    assert {p.name for p in small_bundle.iterdir()} == {"bundle.json", "onnx"}
    for name, stage in manifest.stages.items():
        assert stage.file == f"onnx/{name}.onnx"
        assert stage.sha256 == file_sha256(small_bundle / stage.file)
    pooled = next(spec for spec in manifest.stages["first"].outputs if spec.name == "pooled")
    assert pooled.shape == ("batch", 56)
    assert [spec.name for spec in manifest.stages["router"].inputs] == ["pooled"]


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.linear = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.conv(x).mean((2, 3)))


@pytest.mark.slow
def test_a_stage_is_counted_by_hand(tmp_path) -> None:
    module = TwoLayers().eval()
    x = torch.rand(2, 4, 8, 8)
    entry, outputs = write_stage(module, {"x": x}, ("y",), 99, tmp_path, "onnx/two.onnx")
    assert entry.macs == 4 * 4 * 6 * (2 * 3 * 3) + 6 * 5
    assert entry.parameters == 99
    assert count_macs(onnx.load(tmp_path / "onnx" / "two.onnx")) == entry.macs
    assert [str(s) for s in (*entry.inputs, *entry.outputs)] == [
        "x float32 (batch, 4, 8, 8)",
        "y float32 (batch, 5)",
    ]
    np.testing.assert_allclose(outputs["y"], module(x).detach(), atol=1e-6)


class Averages(nn.Module):
    """What the router reads of a map that stands for all that it averages."""

    def __init__(self, model: DynamicDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.pooled(dict.fromkeys(self.model.topology.router_inputs, x))


@pytest.mark.parametrize("fitted", [False, True])
def test_averages_of_large_maps_are_as_exact_as_float32_is(tmp_path, small_model, fitted) -> None:
    module = PooledFeatures(["a"]) if fitted else Averages(small_model)
    x = torch.from_numpy(support.random_images(2, 160, 160)) * 2 - 0.3
    write_stage(module, {"x": x}, ["pooled"], 0, tmp_path, "averages.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "averages.onnx")
    (found,) = session.run(None, {"x": x.numpy()})
    exact = x.double().mean((2, 3)).numpy()
    exact = np.tile(exact, found.shape[1] // exact.shape[1])
    assert np.abs(found - exact).max() < 1.5e-7  # over both axes at once: 5e-7


def test_class_names_are_coco_s_for_80_and_numbers_otherwise(tmp_path: Path) -> None:
    assert len(set(COCO)) == 80
    assert (COCO[0], COCO[10], COCO[35], COCO[60], COCO[79]) == (
        "person",
        "fire hydrant",
        "baseball glove",
        "dining table",
        "toothbrush",
    )
    assert class_names_for(80, None) == COCO
    assert class_names_for(2, None) == ("class_0", "class_1")
    (tmp_path / "names.txt").write_text("cat\n\n dog \n", encoding="utf-8")
    assert class_names_for(2, tmp_path / "names.txt") == ("cat", "dog")
    for text in ("names: [cat, dog]\n", "names: {1: dog, 0: cat}\n"):
        (tmp_path / "data.yaml").write_text(text, encoding="utf-8")
        assert class_names_for(2, tmp_path / "data.yaml") == ("cat", "dog")


def test_class_names_in_yaml_are_words(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    for text, names in (
        ("names: [NO, 012, on, 1.0]", ("NO", "012", "on", "1.0")),
        ("names:\n  0: yes\n  1: null\n  2: 7_000\n  3: 12:30", ("yes", "null", "7_000", "12:30")),
        ("nc: 4\nnames:\n- No entry\n- off\n- 1e3\n- '5'", ("No entry", "off", "1e3", "5")),
    ):
        path.write_text(text, encoding="utf-8")
        assert class_names_for(len(names), path) == names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", b"names: [a, '']\n"),
        ("data.yaml", b"names: [a, [b]]\n"),
        ("data.yaml", b"names: {0: a, 2: b}\n"),
        ("names.txt", b"one\ntwo\nthree\n"),
        ("names.txt", b""),
        ("names.txt", bytes(range(256))),
        ("data.yaml", b"names: 3\n"),
        ("data.yaml", b"nothing: 3\n"),
        ("data.yaml", b""),
        ("data.yaml", b"{"),
        ("data.yaml", b"- a\n- b\n"),
        ("data.yaml", b"names: {0: a, x: b}\n"),
        ("data.yaml", b"names: !!python/object/apply:os.system ['true']\n"),
    ],
)
def test_class_name_files_that_do_not_fit_are_refused(tmp_path: Path, name, content) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with support.refuses(ConfigError, name):
        class_names_for(2, path)


def test_a_missing_class_name_file_is_refused(tmp_path: Path) -> None:
    with support.refuses(ConfigError, "nothing.txt"):
        class_names_for(2, tmp_path / "nothing.txt")
