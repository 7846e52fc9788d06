"""The published evaluation: how pictures are prepared, and what the model says of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from dyninfer import Bundle, InputError
from dyninfer.exporters.dynamicdet.model import load_model
from dyninfer.exporters.dynamicdet.protocol import prepare, published_evaluation, rectangle
from dyninfer.images.pictures import read_image
from tests import support
from tests.dyninfer.cli.run import run


@pytest.mark.parametrize(
    ("height", "width", "side", "stride", "expected"),
    [
        (480, 640, 640, 32, (512, 672)),
        (640, 480, 640, 32, (672, 512)),
        (427, 640, 640, 32, (448, 672)),
        (500, 500, 640, 32, (672, 672)),
        (1080, 1920, 1280, 64, (768, 1344)),
        (10, 1000, 640, 32, (32, 672)),
    ],
)
def test_a_rectangle_has_half_a_stride_to_spare(height, width, side, stride, expected) -> None:
    assert rectangle(height, width, side, stride) == expected


def test_a_picture_that_shrinks_is_averaged_and_its_size_cut_off() -> None:
    image = np.random.default_rng(0).integers(0, 256, (333, 500, 3), np.uint8)
    images, placement = prepare(image, 64, 32)
    assert images.shape == (1, 3, 64, 96)  # 333 * 0.128 = 42.6 becomes 42
    area = cv2.resize(image, (64, 42), interpolation=cv2.INTER_AREA)
    inside = images[0, ::-1, 11:53, 16:80].transpose(1, 2, 0)
    np.testing.assert_array_equal(inside, area.astype(np.float32) / np.float32(255))
    outside = images.sum() - images[:, :, 11:53, 16:80].sum()
    assert outside == pytest.approx(114 / 255 * 3 * (64 * 96 - 42 * 64), rel=1e-5)
    assert (placement.left, placement.top) == (16, 11)


def test_a_picture_that_grows_is_interpolated() -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 40, 3), np.uint8)
    images, _ = prepare(image, 64, 32)
    assert images.shape == (1, 3, 96, 96)
    linear = cv2.resize(image, (64, 49), interpolation=cv2.INTER_LINEAR)
    inside = images[0, ::-1, 23:72, 16:80].transpose(1, 2, 0)
    np.testing.assert_array_equal(inside, linear.astype(np.float32) / np.float32(255))


def test_boxes_go_back_by_one_scale_and_halves_of_pixels() -> None:
    _, placement = prepare(np.zeros((333, 500, 3), np.uint8), 66, 32)
    assert (placement.resized_width, placement.resized_height) == (66, 43)
    # 96 - 66 and 64 - 43 pixels of padding; 43 / 333 is the scale of both axes
    boxes = np.array([[15 + 10, 10.5 + 5, 15 + 20, 10.5 + 40], [0, 0, 96, 64]], np.float32)
    scale = 43 / 333
    wanted = [[10 / scale, 5 / scale, 20 / scale, 40 / scale], [0, 0, 500, 333]]
    np.testing.assert_allclose(placement.to_image(boxes), wanted, rtol=1e-5)


def test_a_picture_of_one_line_keeps_a_pixel_of_it() -> None:
    for shape, size, at in (
        ((1, 1000), (32, 96), (slice(15, 16), slice(16, 80))),
        ((1000, 1), (96, 32), (slice(16, 80), slice(15, 16))),
    ):
        images, placement = prepare(np.full((*shape, 3), 255, np.uint8), 64, 32)
        assert images.shape == (1, 3, *size)
        assert (images[0, :, at[0], at[1]] == 1).all()
        assert (images == 1).sum() == 3 * 64
        resized = placement.resized_height, placement.resized_width
        assert resized == tuple(max(1, side * 64 // 1000) for side in shape)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Three pictures of different shapes, and an object in each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    images, annotations = [], []
    for number, picture in enumerate(support.random_pictures(3)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png"})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 20, 20]}
        annotations.append(box)
    categories = [{"id": 1, "name": "0"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def test_the_command_evaluates_on_rectangles(
    capsys, labelled, small_bundle, small_checkpoint, small_yaml
) -> None:
    names = Bundle.open(small_bundle).manifest.class_names
    labels = labelled / "labels.json"
    labels.write_text(labels.read_text().replace('"name": "0"', f'"name": "{names[0]}"'))
    side = Bundle.open(small_bundle).manifest.image_inputs["images"].width
    model = load_model(small_checkpoint, small_yaml)
    easiness = []
    for path in sorted(labelled.glob("*.png")):
        images = torch.from_numpy(prepare(read_image(path), side, 32).images)
        easiness.append(float(model.easiness(model.first(images))))
    arguments = ("--images", str(labelled), "--annotations", str(labels), "--json")
    source = ("--checkpoint", str(small_checkpoint), "--config", str(small_yaml))
    protocol = ("eval", str(small_bundle), *arguments, "--protocol", "dynamicdet", *source)
    status, out, _ = run(capsys, *protocol, "--curve")
    document = json.loads(out)
    assert (status, document["protocol"], document["pictures"]) == (0, "dynamicdet", 3)
    found = [row["threshold"] for row in document["rows"][1:-1]]
    assert found == pytest.approx(np.percentile(easiness, np.linspace(5, 95, len(found))), abs=2e-6)
    status, out, _ = run(capsys, *protocol, "--speed", str(np.median(easiness) + 1e-6))
    assert status == 0
    assert json.loads(out)["hard_fraction"] == pytest.approx(2 / 3)
    assert run(capsys, *protocol, "--speed", "30%")[0] == 2


def test_other_families_are_refused(tmp_path) -> None:
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    with support.refuses(InputError, "protocol dynamicdet", "--protocol"):
        published_evaluation(bundle, [], None)


@pytest.mark.parametrize("family", ["acme", "dynamicdets", "DYNAMICDET"])
def test_the_protocol_is_of_one_family_whatever_the_name(family) -> None:
    manifest = SimpleNamespace(family=family, name="mine", deciders=())
    with support.refuses(InputError, f"mine is of the family {family}", "without --protocol"):
        published_evaluation(SimpleNamespace(manifest=manifest), [], None)


@pytest.mark.parametrize(
    ("deciders", "record", "refused"),
    [(("router", "other"), object(), True), (("router",), None, False), ((), object(), False)],
)
def test_a_router_that_was_fitted_is_refused(monkeypatch, deciders, record, refused) -> None:
    def find_sources(*_: object) -> None:
        raise InputError("looked for the source")

    monkeypatch.setattr("dyninfer.exporters.dynamicdet.protocol.find_sources", find_sources)
    manifest = SimpleNamespace(family="dynamicdet", name="mine", deciders=deciders)
    bundle = SimpleNamespace(manifest=manifest, path=None, router_record=lambda: record)
    told = "stage 'router' was fitted" if refused else "looked for the source"
    with support.refuses(InputError, told):
        published_evaluation(bundle, [], None)
