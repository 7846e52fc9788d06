"""What weights cannot tell, and who is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer import ConfigError
from dyninfer.exporters.efficientdet.config import PUBLISHED, choose
from dyninfer.images.spec import ResizeMode, Rounding
from tests import support
from tests.exporters.efficientdet.narrow import narrow

STRUCTURES = {name: published.scaled.structure(20) for name, published in PUBLISHED.items()}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("tf_efficientdet_d0_34-f153e0cf.pth", "tf_efficientdet_d0"),
        ("TF_EfficientDet_D0_ap-d0cdbd0a.pth", "tf_efficientdet_d0_ap"),
        ("tf_efficientdet_d6_52-4eda3773.pth", "tf_efficientdet_d6"),
        ("tf_efficientdet_d7_53-6d1d7a95.pth", "tf_efficientdet_d7"),
        ("tf_efficientdet_d7x-f390b87c.pth", "tf_efficientdet_d7x"),
        ("efficientdet_d1-bb7e98fe.pth", "efficientdet_d1"),
        ("efficientdet_d5-mine.pth", "efficientdet_d5"),
        ("tf_efficientdet_lite3x-8404c57b.pth", "tf_efficientdet_lite3x"),
    ],
)
def test_the_start_of_a_file_name_is_a_configuration(file, name) -> None:
    chosen, note = choose(STRUCTURES[name], Path("somewhere") / file, None, None)
    assert chosen is PUBLISHED[name]
    assert name in note
    assert "file's name" in note


@pytest.mark.parametrize(
    "name", ["tf_efficientdet_d7x", "efficientdet_d0", "tf_efficientdet_lite1"]
)
def test_a_structure_that_one_model_has_needs_no_name(name) -> None:
    chosen, note = choose(STRUCTURES[name], Path("model.pth"), None, "mine")
    assert chosen is PUBLISHED[name]
    assert "structure" in note


def test_d6_or_d7_and_adversarial_or_not_are_asked_for() -> None:
    with support.refuses(
        ConfigError,
        "tf_efficientdet_d6 and tf_efficientdet_d7",
        "image size and anchor scale",
        "weights do not tell",
        "give tf_efficientdet_d6 or another of them as config (--config)",
        "--config",
    ):
        choose(STRUCTURES["tf_efficientdet_d6"], Path("best.pth"), None, None)
    with support.refuses(
        ConfigError, "tf_efficientdet_d3 and tf_efficientdet_d3_ap", "normalisation of colours"
    ):
        choose(STRUCTURES["tf_efficientdet_d3"], Path("d3.pth"), None, None)
    with support.refuses(ConfigError, "and efficientdet_d4, which", "padding of the backbone"):
        choose(STRUCTURES["efficientdet_d4"], Path("d4.pth"), None, None)
    with support.refuses(ConfigError, "no published EfficientDet", "--config"):
        choose(narrow(), Path("tf_efficientdet.pth"), None, None)


def test_who_is_asked_first() -> None:
    path, structure = Path("tf_efficientdet_d6_52.pth"), STRUCTURES["tf_efficientdet_d6"]
    assert choose(structure, path, None, "tf_efficientdet_d7")[0].anchor_scale == 5
    chosen, note = choose(structure, path, "tf_efficientdet_D6", "tf_efficientdet_d7")
    assert (chosen.name, chosen.anchor_scale) == ("tf_efficientdet_d6", 4)
    assert "--config" in note


def test_a_name_that_belongs_to_other_weights_is_refused() -> None:
    structure = STRUCTURES["tf_efficientdet_d3"]
    with support.refuses(ConfigError, "config (--config) is tf_efficientdet_d4", "those of", "_d3"):
        choose(structure, Path("x.pth"), "tf_efficientdet_d4", None)
    with support.refuses(ConfigError, "start of the file's name is tf_efficientdet_d0", "_d3"):
        choose(structure, Path("tf_efficientdet_d0.pth"), None, None)
    with support.refuses(
        ConfigError, "config (--config) is 'tf_efficientdet_d33'", "tf_efficientdet_d3"
    ):
        choose(structure, Path("x.pth"), "tf_efficientdet_d33", None)


def test_a_relative_has_the_padding_and_the_colours_of_what_it_is_named_after() -> None:
    chosen, note = choose(narrow(), Path("tf_efficientdet_d1-mine.pth"), None, None)
    assert chosen.name == "tf_efficientdet_d1"
    assert "structure of their own" in note
    for structure in (narrow(), narrow(native=True)):  # padded as PyTorch's backbone in any case
        assert choose(structure, Path("efficientdet_d4.pth"), None, None)[0].native_backbone
    for structure, name, reason in (
        (narrow(native=True), "tf_efficientdet_d0", "no bias before batch norms"),
        (narrow(), "efficientdet_d0", "a bias before each batch norm"),
        (narrow(lite=True), "tf_efficientdet_d0", "no squeeze-and-excitation"),
        (narrow(lite=True), "efficientdet_d5", "no squeeze-and-excitation"),
        (narrow(), "tf_efficientdet_lite0", "squeeze-and-excitation, as all but Lite"),
    ):
        with support.refuses(ConfigError, name, reason):
            choose(structure, Path(f"{name}-mine.pth"), None, None)


def test_pictures_are_prepared_as_in_training() -> None:
    imagenet = PUBLISHED["tf_efficientdet_d2"].image((768, 512))
    assert (imagenet.height, imagenet.width) == (768, 512)
    assert imagenet.resize is ResizeMode.PAD_BOTTOM_RIGHT
    assert imagenet.rounding is Rounding.TRUNCATE
    assert imagenet.mean == (123.675, 116.28, 103.53)
    assert imagenet.std == (58.395, 57.12, 57.375)
    assert imagenet.pad_value == (124, 116, 104)
    adversarial = PUBLISHED["tf_efficientdet_d0_ap"].image((512, 512))
    lite = PUBLISHED["tf_efficientdet_lite0"].image((320, 320))
    assert adversarial.mean == adversarial.std == lite.mean == lite.std == (127.5,) * 3
    assert (adversarial.pad_value, lite.pad_value) == ((0, 0, 0), (128, 128, 128))


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (124, 116, 104))
# image size, channels, cells, repeats, scale of anchors, multipliers of width and depth
TABLE = {
    "d0": (512, 64, 3, 3, 4, 1.0, 1.0),
    "d1": (640, 88, 4, 3, 4, 1.0, 1.1),
    "d2": (768, 112, 5, 3, 4, 1.1, 1.2),
    "d3": (896, 160, 6, 4, 4, 1.2, 1.4),
    "d4": (1024, 224, 7, 4, 4, 1.4, 1.8),
    "d5": (1280, 288, 7, 4, 4, 1.6, 2.2),
    "d6": (1280, 384, 8, 5, 4, 1.8, 2.6),
    "d7": (1536, 384, 8, 5, 5, 1.8, 2.6),
    "d7x": (1536, 384, 8, 5, 4, 2.0, 3.1),
    "lite0": (320, 64, 3, 3, 3, 1.0, 1.0),
    "lite1": (384, 88, 4, 3, 3, 1.0, 1.1),
    "lite2": (448, 112, 5, 3, 3, 1.1, 1.2),
    "lite3": (512, 160, 6, 4, 4, 1.2, 1.4),
    "lite3x": (640, 200, 6, 4, 3, 1.2, 1.4),
    "lite4": (640, 224, 7, 4, 4, 1.4, 1.8),
}


def test_the_published_configurations_are_these() -> None:
    """Tan, Pang and Le, "EfficientDet", CVPR 2020, table 1, and the Lite and AdvProp models."""
    names = {f"tf_efficientdet_{size}" for size in TABLE}
    names |= {f"tf_efficientdet_d{phi}_ap" for phi in range(6)}
    names |= {f"efficientdet_d{phi}" for phi in range(6)}
    assert PUBLISHED.keys() == names
    for name, made in PUBLISHED.items():
        assert made.name == name
        size = name.removesuffix("_ap").rpartition("_")[2]
        scaled, lite = made.scaled, size.startswith("lite")
        found = (scaled.image_size, scaled.channels, scaled.cells, scaled.repeats)
        assert (*found, made.anchor_scale, scaled.width, scaled.depth) == TABLE[size]
        assert scaled.levels == (6 if size == "d7x" else 5)
        assert scaled.weighted is not (lite or size in ("d6", "d7", "d7x"))
        own = name in {f"efficientdet_d{phi}" for phi in range(4)}
        assert scaled.redundant_bias is not own
        assert scaled.lite is lite
        padding = {"_ap": (0, 0, 0)}.get(name[-3:], (128, 128, 128) if lite else None)
        half = ((127.5,) * 3, (127.5,) * 3, padding)
        assert made.colours == (IMAGENET if padding is None else half)


def test_of_a_long_name_80_characters_are_told() -> None:
    structure = STRUCTURES["tf_efficientdet_d0"]
    with support.refuses(ConfigError, f"config (--config) is {'x' * 80!r}, expected the name"):
        choose(structure, Path("x.pth"), "x" * 90, None)


def test_a_structure_with_an_exact_name_is_not_asked_about() -> None:
    structure = STRUCTURES["tf_efficientdet_d0"]
    assert choose(structure, Path("x.pth"), None, "TF_EfficientDet_D0")[0].name == (
        "tf_efficientdet_d0"
    )
    with support.refuses(ConfigError, "d0 and tf_efficientdet_d0_ap"):  # as part of other words
        choose(structure, Path("tf_efficientdet_d0x.pth"), None, "my_tf_efficientdet_d0")
    with support.refuses(ConfigError, "for example tf_efficientdet_d7x, tf_efficientdet_d7"):
        choose(structure, Path("x.pth"), "tf_efficientdet_d7xx", None)


@pytest.mark.parametrize(("asked", "told"), [("tf_efficientdet_d7xx", 3), ("?", len(PUBLISHED))])
def test_of_an_unknown_name_the_nearest_three_are_told_or_all(asked, told) -> None:
    with pytest.raises(ConfigError) as refused:
        choose(STRUCTURES["tf_efficientdet_d0"], Path("x.pth"), asked, None)
    names = str(refused.value).partition("for example ")[2].split(", ")
    assert len(names) == told
    assert set(names) <= PUBLISHED.keys()
