"""Which outputs CenterNet's decode reads: heatmaps, and sizes and offsets beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dyninfer.exporters.cascade.measured import ROWS_KEPT, Measured, called, cells
from dyninfer.exporters.cascade.options import Coding, Match, Part
from dyninfer.exporters.cascade.original import read_part

_LARGEST_LOG = 6.0  # of a box's size in cells of a heatmap: 1600 pixels at stride 4


def match_centernet(measured: Measured) -> Match | None:
    """Heatmaps (N, C, H / s, W / s), and sizes and offsets with two numbers for every cell."""
    for axes in ("nvhw", "nhwv"):
        maps = _maps(measured, axes)
        pairs = {name: stride for name, (channels, stride) in maps.items() if channels == 2}
        sizes = next((n for n in pairs if called(n, "wh|size|scale|dim")), None)
        offsets = next((n for n in pairs if called(n, "reg|off")), None)
        if sizes is None or offsets is None:
            if len(pairs) != 2:
                continue
            sizes, offsets = pairs
        heat = [n for n in maps if n not in (sizes, offsets)]
        heat = [n for n in heat if called(n, "heat|hm|center|centre|score|cls")] or heat
        if not heat or len({maps[n][1] for n in (sizes, offsets, heat[0])}) != 1:
            continue
        channels, stride = maps[heat[0]]
        boxes = (Part((offsets,), axes), Part((sizes,), axes))
        anchors = min(ROWS_KEPT, cells(measured.size, (stride,)))
        match = Match(boxes, Part((heat[0],), axes), channels, anchors, best=True)
        match = replace(match, coding=Coding.PEAKS, strides=(stride,))
        return replace(match, log_sizes=_has_log_sizes(measured, match, sizes))
    return None


def _maps(measured: Measured, axes: str) -> dict[str, tuple[int, int]]:
    """Channels and stride of the outputs that have a place for every few pixels."""
    found = {}
    for name, array in measured.outputs.items():
        if array.ndim != 4 or array.dtype.kind != "f":
            continue
        own = dict(zip(axes, array.shape, strict=True))
        stride = next((s for s in (1, 2, 4, 8, 16) if own["h"] * s == measured.size[0]), 0)
        if own["w"] * stride == measured.size[1]:
            found[name] = (own["v"], stride)
    return found


def _has_log_sizes(measured: Measured, match: Match, sizes: str) -> bool:
    """Whether sizes are logarithms (CenterFace): by name, else as those of surer boxes are."""
    if called(sizes, "scale|log"):
        return True
    if called(sizes, "wh"):
        return False
    surest = []
    for sample in measured.samples:
        heat = read_part(match.scores, sample).max(1)
        surest.append(read_part(match.boxes[1], sample)[np.argsort(-heat)[:10]])
    return bool(np.max(surest) <= _LARGEST_LOG)
