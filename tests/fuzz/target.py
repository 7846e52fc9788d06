"""What there is to feed: a kind of input, how one is made, and who reads it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from random import Random
from typing import Protocol

KINDS = {
    "bundle": "tests.fuzz.bundles.Bundles",
    "calibration": "tests.fuzz.documents.Calibrations",
    "record": "tests.fuzz.documents.Records",
    "checkpoint": "tests.fuzz.checkpoints.Checkpoints",
    "onnx": "tests.fuzz.onnx_files.OnnxFiles",
    "picture": "tests.fuzz.pictures.Pictures",
    "command line": "tests.fuzz.command_lines.CommandLines",
}


class Target(Protocol):
    """A kind of input; made once in every worker, with an empty folder for what it needs."""

    def make(self, rng: Random, folder: Path) -> None:
        """Write an input into an empty folder."""

    def feed(self, folder: Path) -> None:
        """Have it read, as an application would; a DyninferError says that it was refused.

        Whatever else is raised is a finding. It may write into the folder.
        """


def load_target(name: str, material: Path) -> Target:
    """The target of that class; ``material`` is an empty folder that it may fill."""
    module, _, name = name.rpartition(".")
    made: Target = getattr(import_module(module), name)(material)
    return made


class UnexpectedError(AssertionError):
    """An input was read and something is wrong with what came of it."""
