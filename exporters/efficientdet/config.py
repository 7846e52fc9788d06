"""The published configurations, and what of one weights cannot tell: sizes, anchors, colours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dyninfer.errors import ConfigError
from dyninfer.exporters.efficientdet.scaling import MULTIPLIERS, Scaled
from dyninfer.exporters.efficientdet.structure import Structure
from dyninfer.images.spec import ImageSpec, ResizeMode, Rounding

_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (124, 116, 104))
_HALF = ((127.5,) * 3, (127.5,) * 3, (128, 128, 128))
_HALF_ON_BLACK = (*_HALF[:2], (0, 0, 0))
_Colours = tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Published:
    """A published configuration.

    ``colours`` are the mean and the deviation of each channel, and the colour of the padding.
    ``native_backbone`` tells that the backbone is padded as PyTorch's though the rest is not.
    """

    name: str
    scaled: Scaled
    anchor_scale: float = 4.0
    colours: _Colours = _IMAGENET
    native_backbone: bool = False

    def image(self, size: tuple[int, int]) -> ImageSpec:
        """How a picture becomes an input of ``size`` (height, width)."""
        mean, std, padding = self.colours
        return ImageSpec(
            *size,
            resize=ResizeMode.PAD_BOTTOM_RIGHT,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            pad_value=(padding[0], padding[1], padding[2]),
            rounding=Rounding.TRUNCATE,
        )


# backbone's number, side, channels, cells, repeats of a head
_SIZES = {
    "d0": (0, 512, 64, 3, 3),
    "d1": (1, 640, 88, 4, 3),
    "d2": (2, 768, 112, 5, 3),
    "d3": (3, 896, 160, 6, 4),
    "d4": (4, 1024, 224, 7, 4),
    "d5": (5, 1280, 288, 7, 4),
    "d6": (6, 1280, 384, 8, 5),
    "d7": (6, 1536, 384, 8, 5),
    "d7x": (7, 1536, 384, 8, 5),
}
_LITE = {
    "lite0": (0, 320, 64, 3, 3, 3.0),
    "lite1": (1, 384, 88, 4, 3, 3.0),
    "lite2": (2, 448, 112, 5, 3, 3.0),
    "lite3": (3, 512, 160, 6, 4, 4.0),
    "lite3x": (3, 640, 200, 6, 4, 3.0),
    "lite4": (4, 640, 224, 7, 4, 4.0),
}
_ADVERSARIAL = ("d0", "d1", "d2", "d3", "d4", "d5")  # trained with AdvProp, on colours of -1 to 1
_NATIVE = ("d0", "d1", "d2", "d3")  # of PyTorch
_HALF_NATIVE = ("d4", "d5")  # a backbone of PyTorch, and the rest as TensorFlow's


def _scaled(backbone: int, side: int, channels: int, cells: int, repeats: int) -> Scaled:
    return Scaled(*MULTIPLIERS[backbone], side, channels, cells, repeats)


def _all() -> Mapping[str, Published]:
    found = []
    for size, numbers in _SIZES.items():
        scaled = _scaled(*numbers)
        if size in ("d6", "d7", "d7x"):
            scaled = replace(scaled, weighted=False, levels=6 if size == "d7x" else 5)
        name = f"tf_efficientdet_{size}"
        found.append(Published(name, scaled, 5.0 if size == "d7" else 4.0))
        if size in _ADVERSARIAL:
            found.append(Published(f"{name}_ap", scaled, colours=_HALF_ON_BLACK))
        if size in _NATIVE:
            native = replace(scaled, redundant_bias=False)
            found.append(Published(f"efficientdet_{size}", native))
        if size in _HALF_NATIVE:
            found.append(Published(f"efficientdet_{size}", scaled, native_backbone=True))
    for size, (*counts, anchor_scale) in _LITE.items():
        scaled = replace(_scaled(*map(int, counts)), lite=True, weighted=False)
        found.append(Published(f"tf_efficientdet_{size}", scaled, anchor_scale, _HALF))
    return {each.name: each for each in found}


PUBLISHED = _all()
"""By name: D0 to D7x of TensorFlow, those trained with AdvProp, natives of PyTorch, and Lite."""


def choose(
    structure: Structure,
    path: Path,
    asked: str | None,
    arch: str | None,
    option: str = "config",
) -> tuple[Published, str]:
    """The configuration that weights were trained with, and a line on how it is known.

    Args:
        structure: of the weights.
        path: of the checkpoint; published files begin with the configuration's name.
        asked: a name that the user gave.
        arch: the name in a training's checkpoint.
        option: what a user gives ``asked`` with.

    Raises:
        ConfigError: nothing tells it, or what does belongs to other weights; the message says what
            to give.
    """
    given = f"config (--{option})"
    named = _named(path, asked, arch, given)
    same = [each for each in PUBLISHED.values() if _is_of(structure, each)]
    if named is not None:
        name, origin = named
        chosen = PUBLISHED[name]
        _check_kind(structure, chosen, origin, given)
        if same and chosen not in same:
            raise ConfigError(
                f"{origin} is {name}, but the weights are those of "
                f"{' or '.join(each.name for each in same)}; give the right name as {given}"
            )
        relative = (
            "" if same else f", though the weights have a structure of their own ({structure})"
        )
        return chosen, f"image size, anchors and colours of {name}, which {origin} is{relative}"
    if len(same) == 1:
        return same[0], f"image size, anchors and colours of {same[0].name}, whose structure it has"
    raise ConfigError(_question(structure, same, given))


def _named(path: Path, asked: str | None, arch: str | None, given: str) -> tuple[str, str] | None:
    """The name of a configuration, and where it stands."""
    if asked is not None:
        if asked.lower() not in PUBLISHED:
            near = get_close_matches(asked.lower(), PUBLISHED, 3, 0.4) or list(PUBLISHED)
            raise ConfigError(
                f"{given} is {asked[:80]!r}, expected the name of a published "
                f"configuration, for example {', '.join(near)}"
            )
        return asked.lower(), given
    if arch is not None and arch.lower() in PUBLISHED:
        return arch.lower(), "'arch' in the checkpoint"
    for name in sorted(PUBLISHED, key=len, reverse=True):
        if re.match(rf"{name}(?![a-z0-9])", path.name.lower()):
            return name, "the start of the file's name"
    return None


def _is_of(structure: Structure, published: Published) -> bool:
    """Whether weights could be those of a configuration, whatever their classes."""
    other = published.scaled.structure()
    return (structure.body, structure.weighted, structure.redundant_bias) == (
        other.body,
        other.weighted,
        other.redundant_bias,
    )


def _check_kind(structure: Structure, published: Published, origin: str, given: str) -> None:
    """A relative of a configuration has its padding and its activations."""
    biased = structure.redundant_bias
    for ours, theirs, present, absent in (
        (
            biased,
            biased if published.native_backbone else published.scaled.redundant_bias,
            "a bias before each batch norm, as TensorFlow's (tf_...) do",
            "no bias before batch norms, as those trained in PyTorch (without tf_) do",
        ),
        (
            structure.lite,
            published.scaled.lite,
            "no squeeze-and-excitation, as Lite does",
            "squeeze-and-excitation, as all but Lite do",
        ),
    ):
        if ours != theirs:
            raise ConfigError(
                f"{origin} is {published.name}, but the weights have "
                f"{present if ours else absent}; padding and colours would be wrong; give the "
                f"right name as {given}"
            )


def _question(structure: Structure, same: list[Published], given: str) -> str:
    """What is asked for, and why."""
    if not same:
        return (
            f"the weights have the structure of no published EfficientDet ({structure}), and "
            "neither image size nor anchors nor colours can be read from weights; give the name of "
            f"the one that they were trained like, for example tf_efficientdet_d0 as {given}"
        )
    differences: dict[str, set[Any]] = {
        "image size": {each.scaled.image_size for each in same},
        "anchor scale": {each.anchor_scale for each in same},
        "normalisation of colours": {each.colours for each in same},
        "padding of the backbone": {each.native_backbone for each in same},
    }
    unknown = " and ".join(what for what, values in differences.items() if len(values) > 1)
    names = " and ".join(each.name for each in same)
    return (
        f"the weights fit {names}, which differ in {unknown}; weights do not tell it, and neither "
        f"the file's name nor an 'arch' in it does; give {same[0].name} or another of them as "
        f"{given}"
    )
