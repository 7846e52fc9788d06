"""The one stage of a bundle: images in, boxes and class scores out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyninfer.bundle.manifest import Task
from dyninfer.types import Float64Array

BODY, IMAGES = "body", "images"


class Decode(nn.Module):
    """Logits (N, A, C) and codes (N, A, 4) -> boxes (N, K, 4) in pixels, class scores (N, K, C').

    The K anchors of the largest logits are taken first, the surest first; all, in their order,
    where there are no more. A code (tx, ty, tw, th) of an anchor of the centre (x, y) and the size
    (w, h) is the centre (x + tx w, y + ty h) and the size (w e^tw, h e^th).
    """

    centre: Tensor
    size: Tensor
    half_size: Tensor
    columns: Tensor | None

    def __init__(
        self, anchors_yxyx: Float64Array, candidates: int, columns: Sequence[int] | None
    ) -> None:
        super().__init__()
        self.candidates = candidates if candidates < len(anchors_yxyx) else None
        low, high = (torch.from_numpy(anchors_yxyx[:, part].copy()) for part in ([1, 0], [3, 2]))
        self.register_buffer("centre", ((low + high) / 2).float())
        self.register_buffer("size", (high - low).float())
        self.register_buffer("half_size", ((high - low) / 2).float())
        self.register_buffer("columns", None if columns is None else torch.tensor(columns))

    def forward(self, logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        centre, size, half = self.centre, self.size, self.half_size
        if self.candidates is not None:
            best = logits.amax(2).topk(self.candidates, 1).indices
            logits, codes = _rows(logits, best), _rows(codes, best)
            centre, size, half = (F.embedding(best, table) for table in (centre, size, half))
        if self.columns is not None:
            logits = logits.index_select(2, self.columns)
        middle = codes[..., :2] * size + centre
        reach = codes[..., 2:].exp() * half
        return torch.cat([middle - reach, middle + reach], 2), logits.sigmoid()


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Chosen rows (N, K) of (N, A, V)."""
    if torch.onnx.is_in_onnx_export():
        shape = (*rows.shape, tensor.shape[2])
        places = rows.unsqueeze(2)
        return torch.onnx.ops.symbolic(
            "GatherND", (tensor, places), {"batch_dims": 1}, dtype=tensor.dtype, shape=shape
        )
    return tensor.take_along_dim(rows.unsqueeze(2), 1)


class BodyStage(nn.Module):
    """An EfficientDet, as it is or folded, with its decode."""

    inputs, outputs = (IMAGES,), Task.DETECT.outputs

    def __init__(self, model: nn.Module, decode: Decode) -> None:
        super().__init__()
        self.model, self.decode = model, decode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = self.model(images)
        return self.decode(logits, codes)  # type: ignore[no-any-return]  # untyped torch
