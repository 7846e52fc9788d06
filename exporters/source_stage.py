"""A stage of a source model as something that maps arrays to arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from dyninfer.types import AnyArray


class SourceStage(Protocol):
    """What a stage of a bundle is compared with."""

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """The stage's outputs (N, ...) for its inputs (N, ...), both in the manifest's order."""
        ...

    def in_double(self) -> AbstractContextManager[None] | None:
        """A block in which the stage computes in float64, on float64 inputs; None if it cannot."""
        ...


@dataclass(frozen=True)
class TorchStage:
    """A stage as a PyTorch module in float32."""

    module: nn.Module

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """See :class:`SourceStage`."""
        with torch.inference_mode():
            produced = self.module(*(torch.from_numpy(array) for array in inputs))
        outputs = [produced] if isinstance(produced, torch.Tensor) else produced
        return [output.numpy() for output in outputs]

    @contextmanager
    def in_double(self) -> Iterator[None]:
        """The weights in float64, and afterwards back, without loss."""
        try:
            self.module.double()
            yield
        finally:
            self.module.float()
