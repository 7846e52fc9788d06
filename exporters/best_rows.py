"""The best rows of tensors, taken inside a graph: the anchors that a head gives on."""

from __future__ import annotations

import torch
from torch import Tensor


def best_rows(best: Tensor, count: int) -> Tensor:
    """The places (N, count) of the largest of (N, A), the largest first."""
    return best.topk(count, 1).indices


def rows_at(tensor: Tensor, rows: Tensor) -> Tensor:
    """Chosen rows (N, K) of (N, A, V)."""
    if torch.onnx.is_in_onnx_export():
        shape = (*rows.shape, tensor.shape[2])
        places = rows.unsqueeze(2)
        return torch.onnx.ops.symbolic(
            "GatherND", (tensor, places), {"batch_dims": 1}, dtype=tensor.dtype, shape=shape
        )
    return tensor.take_along_dim(rows.unsqueeze(2), 1)
