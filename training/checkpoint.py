"""Writing the trained model in the layout of the published DynamicDet checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dyninfer.exporters.dynamicdet.model import DynamicDetector


def half_state(model: DynamicDetector) -> OrderedDict[str, Tensor]:
    """The state dict as it is stored: floating-point tensors as float16, contiguous."""
    return OrderedDict(
        (
            name,
            tensor.detach().half().contiguous() if tensor.is_floating_point() else tensor.clone(),
        )
        for name, tensor in model.state_dict().items()
    )


def write(model: DynamicDetector, path: Path) -> None:
    """Write ``path``; the fitness, which the published code measures on the way, stays 0."""
    torch.save(
        {
            "epoch": -1,
            "best_fitness": np.array([0.0]),
            "training_results": None,
            "model": half_state(model),
            "ema": None,
            "updates": None,
            "optimizer": None,
            "wandb_id": None,
        },
        path,
    )
