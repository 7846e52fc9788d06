"""Stages in plain sessions of ONNX Runtime on the CPU: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dyninfer.bundle.folder import Bundle
from dyninfer.engines.ort.runtime import open_session, parse_device


class PlainStages:
    """Sessions of a bundle's stages, opened when they are first asked for and then kept.

    Args:
        bundle: whose stages they are.
        files: stage -> another file to run it from, such as a conversion's.
    """

    def __init__(self, bundle: Bundle, files: Mapping[str, Path] | None = None) -> None:
        self.bundle = bundle
        self._files = dict(files or {})
        self._sessions: dict[str, Any] = {}

    def run(
        self, stage: str, tensors: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        """The stage's outputs by name for its inputs, which ``tensors`` hold among others."""
        if stage not in self._sessions:
            path = self._files.get(stage) or self.bundle.stage_path(stage)
            self._sessions[stage] = open_session(path, parse_device("cpu", None), False)
        entry = self.bundle.manifest.stages[stage]
        names = [spec.name for spec in entry.outputs]
        found = self._sessions[stage].run(names, {s.name: tensors[s.name] for s in entry.inputs})
        return dict(zip(names, found, strict=True))
