"""Which engines a bundle is opened with. Cheap to import: command lines declare it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineChoice:
    """What :func:`dyninfer.load` is told of the engines; ``load(path, **asdict(choice))``."""

    device: str | None = None
    backend: str | None = None
    provider: str | None = None
    precision: str | None = None
    threads: int | None = None
    trusted_key: str | None = None
