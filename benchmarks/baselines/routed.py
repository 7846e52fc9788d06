"""The way of one image through the exits, for contenders that have no pipeline of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dyninfer.benchmarks.baselines.setup import EASY_THRESHOLD
from dyninfer.bundle.manifest import EASINESS, Manifest

Tensors = dict[str, Any]
RunStage = Callable[[str, Tensors], Tensors]
"""(stage, tensors by name) -> the stage's outputs by name."""


def follow(manifest: Manifest, inputs: Tensors, threshold: float, run: RunStage) -> Tensors:
    """Run stages until the image leaves; its final outputs by name.

    An image goes on when its easiness is below the threshold, or is NaN; where an exit has no
    router, when the threshold is not that which lets every image leave.
    """
    tensors = dict(inputs)
    last = manifest.ways[-1]
    for exit_ in manifest.ways:
        tensors |= run(exit_.body, tensors)
        if exit_.router:
            scores = run(exit_.router, tensors)
            leaves = float(scores[EASINESS].reshape(-1)[0]) >= threshold
        else:
            leaves = threshold == EASY_THRESHOLD
        if leaves or exit_ is last:
            if exit_.head:
                tensors |= run(exit_.head, tensors)
            break
    return {name: tensors[name] for name in manifest.task.outputs}
