"""The names of a Faster R-CNN's parameters, in torchvision and in mmdetection.

The model here has mmdetection's, with every convolution as ``conv`` and its norm as ``bn``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import TypeVar

from dyninfer.exporters.weights import Naming

ValueT = TypeVar("ValueT")


class Library(str, Enum):
    """Where a checkpoint was trained."""

    TORCHVISION = "torchvision"
    MMDETECTION = "mmdetection"


_HEAD = "roi_head.bbox_head."
_TORCHVISION = (
    (r"backbone\.body\.", "backbone."),
    (
        r"backbone\.fpn\.inner_blocks\.(\d+)(?:\.0)?\.(?=weight|bias)",
        r"neck.lateral_convs.\1.conv.",
    ),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.1\.", r"neck.lateral_convs.\1.bn."),
    (r"backbone\.fpn\.layer_blocks\.(\d+)(?:\.0)?\.(?=weight|bias)", r"neck.fpn_convs.\1.conv."),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.1\.", r"neck.fpn_convs.\1.bn."),
    (r"rpn\.head\.conv\.(?=weight|bias)", "rpn_head.rpn_conv.0.conv."),
    (r"rpn\.head\.conv\.(\d+)\.0\.", r"rpn_head.rpn_conv.\1.conv."),
    (r"rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"roi_heads\.box_head\.fc6\.", f"{_HEAD}shared_fcs.0."),
    (r"roi_heads\.box_head\.fc7\.", f"{_HEAD}shared_fcs.1."),
    (r"roi_heads\.box_head\.(\d+)\.0\.", rf"{_HEAD}shared_convs.\1.conv."),
    (r"roi_heads\.box_head\.(\d+)\.1\.", rf"{_HEAD}shared_convs.\1.bn."),
    (r"roi_heads\.box_head\.\d+\.(?=weight|bias)", f"{_HEAD}shared_fcs.0."),
    (r"roi_heads\.box_predictor\.cls_score\.", f"{_HEAD}fc_cls."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", f"{_HEAD}fc_reg."),
)
_MMDETECTION = ((r"rpn_head\.rpn_conv\.(?=weight|bias)", "rpn_head.rpn_conv.0.conv."),)
NAMING = Naming(
    family="Faster R-CNN",
    first="rpn.head.' or 'rpn_head.",
    own=re.compile(r"((?:[^.]+\.)*?)(?:rpn\.head\.cls_logits|rpn_head\.rpn_cls)\.weight"),
    foreign=r"rpn\.anchor_generator\..*",
)


def library_of(names: Iterable[str]) -> Library:
    """Whose names these are."""
    of_torchvision = any(name.startswith("rpn.head.") for name in names)
    return Library.TORCHVISION if of_torchvision else Library.MMDETECTION


def own_names(names: Iterable[str], library: Library) -> dict[str, str]:
    """The name here of each parameter of a library."""
    table = _TORCHVISION if library is Library.TORCHVISION else _MMDETECTION
    return {name: _renamed(name, table) for name in names}


def _renamed(name: str, table: Iterable[tuple[str, str]]) -> str:
    for pattern, own in table:
        if match := re.match(pattern, name):
            return match.expand(own) + name[match.end() :]
    return name


def by_own_names(state: Mapping[str, ValueT], library: Library) -> dict[str, ValueT]:
    """A state dict of a library by the names here."""
    names = own_names(state, library)
    return {names[name]: value for name, value in state.items()}
