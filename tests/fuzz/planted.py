"""Inputs that do every thing that none may do: the harness itself must find each."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from random import Random

import numpy as np

from dyninfer.errors import InputError


class Planted:
    """What an input does is written in it; made ones do nothing."""

    def __init__(self, _material: Path) -> None:
        self._held: list[np.ndarray] = []

    def make(self, _rng: Random, folder: Path) -> None:
        (folder / "act").write_text("nothing")

    def feed(self, folder: Path) -> None:
        match (folder / "act").read_text():
            case "refuse":
                raise InputError("this is refused")
            case "crash":
                ctypes.string_at(0)
            case "hang":
                time.sleep(1000)
            case "raise":
                raise KeyError("not of dyninfer")
            case "exit":
                raise SystemExit(3)
            case "memory":
                self._held.append(np.ones(1 << 29, np.uint8))
