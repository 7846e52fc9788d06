"""What a model family brings: its export, its source for verification, and its folding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.exporters.source_stage import SourceStage

Progress = Callable[[str], None]
"""Told what is done next, in words."""
SourceT = TypeVar("SourceT", contravariant=True)
OptionsT = TypeVar("OptionsT", contravariant=True)


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
        self, source: SourceT, output: Path, options: OptionsT, progress: Progress
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

        Args:
            bundle: of this family.
            sources: its files, in the manifest's order, as ``sources.find_sources`` gives them.
            config: the configuration that was given to the export, if any.

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
