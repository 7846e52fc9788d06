"""What a model family brings: its export, its source for verification, and its folding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import nn

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.types import AnyArray

Progress = Callable[[str], None]
"""Told what is done next, in words."""
SourceT = TypeVar("SourceT", contravariant=True)
OptionsT = TypeVar("OptionsT", contravariant=True)


class SourceStage(Protocol):
    """What a stage of a bundle is compared with."""

    def run(self, inputs: Sequence[AnyArray]) -> list[AnyArray]:
        """The stage's outputs (N, ...) for its inputs (N, ...), both in the manifest's order."""
        ...

    def in_double(self) -> AbstractContextManager[None] | None:
        """A block in which the stage computes with twice the bits; None if it cannot.

        It is given float64 inputs then.
        """
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


@dataclass(frozen=True)
class Exported:
    """The manifest that was written, and lines for the user on what was guessed and matched."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


class Family(Protocol[SourceT, OptionsT]):
    """A model family. ``SourceT`` is what it is exported from, ``OptionsT`` how."""

    @property
    def name(self) -> str:
        """What ``bundle.json`` calls it."""
        ...

    def export(
        self, source: SourceT, output: Path, options: OptionsT, progress: Progress, /
    ) -> Exported:
        """Write a bundle.

        Raises:
            DyninferError: a subclass that names the cause; nothing is left on disk.
        """
        ...

    def source_stages(
        self, bundle: Bundle, sources: Sequence[Path], config: Path | None, /
    ) -> Mapping[str, SourceStage]:
        """The stages of the model that a bundle was exported from, by name.

        ``sources`` are its files in the manifest's order, as ``sources.find_sources`` gives them;
        ``config`` is what was given to the export, if anything.

        Raises:
            BundleError: the bundle does not say how its source is to be run.
            CheckpointError: a file cannot be read.
        """
        ...

    def fold(
        self, stages: Mapping[str, SourceStage], manifest: Manifest, /
    ) -> Mapping[str, SourceStage] | None:
        """The source's stages folded as for the export; None where there is nothing to fold."""
        ...
