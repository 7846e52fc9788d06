"""What a DRNet's weights do not tell: sizes, the resize, and how shortcuts are normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from dyninfer.bundle.manifest import Setting
from dyninfer.errors import BundleError, CheckpointError, ConfigError, InputError
from dyninfer.exporters.drnet.model import ResNet
from dyninfer.exporters.drnet.options import Convention, DRNetOptions, ShortcutNorm
from dyninfer.exporters.file_kinds import START
from dyninfer.exporters.mindspore_file import is_mindspore
from dyninfer.images.spec import MAX_SIDE, ImageSpec, ResizeMode, Rounding

IMAGE_SIZE, SHORT_SIDE = 224, 256
PUBLISHED = {3: (224, 168, 112), 5: (224, 192, 168, 112, 96)}
"""Resolutions of the paper, by how many they are, in the order of the batch norms' sets."""
_SMALLEST = 32
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's


@dataclass(frozen=True)
class Sizes:
    """The sides of squares: of the crop, of what the predictor sees, of each resolution."""

    image: int
    predictor: int
    resolutions: tuple[int, ...]

    def image_spec(self) -> ImageSpec:
        """How a picture becomes the crop: the shorter side to 256 for one of 224."""
        return ImageSpec(
            self.image,
            self.image,
            resize=ResizeMode.CENTER_CROP,
            mean=_MEAN,
            std=_STD,
            rounding=Rounding.TRUNCATE,
            short_side=round(self.image * SHORT_SIDE / IMAGE_SIZE),
        )


def choose_sizes(options: DRNetOptions, sets: int) -> Sizes:
    """What was asked for, or the published sizes for so many sets of batch norm.

    Raises:
        ConfigError: the number of resolutions is not that of the sets, or is none of the published.
        InputError: a size is out of range, the crop is no square, or resolutions are equal.
    """
    height, width = options.image_size or (IMAGE_SIZE, IMAGE_SIZE)
    if height != width:
        raise InputError(
            f"the image size is {height}x{width}, but resolutions are squares of the same crop; "
            "give one number"
        )
    resolutions = options.resolutions or PUBLISHED.get(sets)
    if resolutions is None:
        raise ConfigError(
            f"the classifier has {sets} sets of batch norm, and their resolutions are published "
            f"for {' and '.join(map(str, PUBLISHED))} alone; give them in the sets' order as "
            "resolutions (--resolutions 224,160)"
        )
    if len(resolutions) != sets:
        raise ConfigError(
            f"{len(resolutions)} resolutions were given ({_listed(resolutions)}), but the "
            f"classifier has {sets} sets of batch norm; give one for each set"
        )
    for side in (height, options.predictor_size, *resolutions):
        if not _SMALLEST <= side <= MAX_SIDE:
            raise InputError(f"a size is {side}, expected {_SMALLEST} to {MAX_SIDE} pixels a side")
    if len(set(resolutions)) < sets:
        raise InputError(f"the resolutions {_listed(resolutions)} are not all different")
    return Sizes(height, options.predictor_size, tuple(resolutions))


def check_pair(predictor: ResNet, classifier: ResNet) -> None:
    """Refuse models that are not a predictor and the classifier that it decides for.

    Raises:
        CheckpointError: the message says which does not fit.
    """
    if predictor.sets > 1:
        order = "the predictor comes first, then the classifier"
        raise CheckpointError(
            f"the predictor has {predictor.sets} sets of batch norm, expected one; {order}"
            if classifier.sets > 1
            else f"these are a classifier and a predictor; {order}"
        )
    if classifier.sets < 2:
        raise CheckpointError(
            "the classifier has one set of batch norm, as an ordinary network; expected one for "
            "each resolution (bn1.bn.0, bn1.bn.1, ...)"
        )
    if predictor.classes != classifier.sets:
        raise CheckpointError(
            f"the predictor gives {predictor.classes} scores, but the classifier has "
            f"{classifier.sets} sets of batch norm; expected one score for each"
        )


def choose_shortcut(classifier: ResNet, asked: ShortcutNorm | None) -> tuple[ShortcutNorm, str]:
    """Which set the shortcuts' batch norms use, and a line on how that is known.

    Raises:
        ConfigError: the weights do not tell it: some of the sets were trained and some were not.
    """
    unused = [
        norm.never_trained
        for parent, _, norms in classifier.convolutions()
        if isinstance(parent, nn.Sequential)
        for norm in getattr(parent, norms).bn[1:]
    ]
    found = ShortcutNorm.INDEX0 if all(unused) else ShortcutNorm.PER_RESOLUTION
    if asked is None and any(unused) and not all(unused):
        raise ConfigError(
            f"{sum(unused)} of {len(unused)} further sets of the shortcuts' batch norms are as "
            "before training, so whether shortcuts have a set for each resolution is not known; "
            "give it as shortcut_bn (--shortcut-bn index0 or per_resolution)"
        )
    chosen = asked or found
    said = (
        "set 0 at every resolution" if chosen is ShortcutNorm.INDEX0 else "a set at each resolution"
    )
    trained = "as before training" if found is ShortcutNorm.INDEX0 else "trained"
    origin = "" if asked is None else ", as asked for"
    return chosen, f"batch norms of shortcuts: {said}{origin}; their further sets are {trained}"


def choose_resize(asked: Convention | None, checkpoint: Path) -> tuple[Convention, str]:
    """The convention that was asked for, or that of the library that wrote a checkpoint."""
    with checkpoint.open("rb") as file:
        of_mindspore = is_mindspore(file.read(START))
    found = Convention.ASYMMETRIC if of_mindspore else Convention.HALF_PIXEL
    library = "MindSpore" if of_mindspore else "PyTorch"
    origin = f"as in {library}, which wrote the file" if asked is None else "as asked for"
    return asked or found, f"resize: {(asked or found).value}, {origin} (--resize)"


def settings_of(sizes: Sizes, resize: Convention, shortcut: ShortcutNorm) -> dict[str, Setting]:
    """What a manifest keeps, to build the source model again."""
    return {
        "resolutions": sizes.resolutions,
        "predictor_size": sizes.predictor,
        "resize": resize.value,
        "shortcut_bn": shortcut.value,
    }


def read_settings(
    settings: Mapping[str, Setting], image: ImageSpec
) -> tuple[Sizes, Convention, ShortcutNorm]:
    """The opposite of :func:`settings_of`.

    Raises:
        BundleError: they are not what that writes.
    """
    try:
        resolutions, predictor = settings["resolutions"], settings["predictor_size"]
        if not isinstance(resolutions, tuple) or not isinstance(predictor, int):
            raise TypeError
        sizes = Sizes(image.height, predictor, resolutions)
        return sizes, Convention(settings["resize"]), ShortcutNorm(settings["shortcut_bn"])
    except (KeyError, TypeError, ValueError):
        raise BundleError(
            f"the bundle's settings are {dict(settings)!r}, expected resolutions, predictor_size, "
            "resize and shortcut_bn; export it again"
        ) from None


def _listed(resolutions: Sequence[int]) -> str:
    return ", ".join(map(str, resolutions))
