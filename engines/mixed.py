"""Stages of one bundle on several backends of a CPU; tensors cross between them without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dyninfer.bundle.manifest import Manifest, Precision, Stage
from dyninfer.engines.base import Backend, Engine
from dyninfer.engines.ort.host import HostBackend
from dyninfer.engines.threads import Threads
from dyninfer.errors import InputError


class MixedBackend(HostBackend):
    """A backend for each stage.

    Args:
        stages: stage -> the backend that opens it; ``""`` -> that of all others.
    """

    device = "cpu"

    def __init__(self, stages: Mapping[str, Backend[Any, Any]], threads: Threads) -> None:
        super().__init__(threads)
        self._stages = dict(stages)
        self._backends = tuple(dict.fromkeys(stages.values()))
        self.name = ",".join(
            f"{stage}={backend.name}" if stage else backend.name
            for stage, backend in sorted(stages.items())
        )
        self.version = " and ".join(dict.fromkeys(b.version for b in self._backends))
        self.provider = " and ".join(dict.fromkeys(b.provider for b in self._backends))
        self.device_name = self._backends[0].device_name

    def _of(self, stage: str) -> Backend[Any, Any]:
        return self._stages.get(stage, self._stages[""])

    def backend_of(self, stage: str) -> str:
        """See :meth:`dyninfer.engines.base.Backend.backend_of`."""
        return self._of(stage).name

    def configure(self, manifest: Manifest, precision: Mapping[str, Precision]) -> None:
        """See :meth:`dyninfer.engines.base.Backend.configure`."""
        for stage in self._stages.keys() - {*manifest.stages, ""}:
            near = get_close_matches(stage, manifest.stages, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"backend {self.name!r} names a stage {stage!r}, expected one of "
                f"{', '.join(manifest.stages)}{hint}"
            )
        for backend in self._backends:
            own = {name: p for name, p in precision.items() if self._of(name) is backend}
            backend.configure(manifest, own)
        self.precision = dict(precision)

    @contextmanager
    def opening(self, manifest: Manifest, batch: int, host_code: bool = False) -> Iterator[None]:
        """See :meth:`dyninfer.engines.base.Backend.opening`."""
        with ExitStack() as stack:
            for backend in self._backends:
                stack.enter_context(backend.opening(manifest, batch, host_code))
            yield

    def open(
        self, name: str, stage: Stage, path: Path, host_outputs: frozenset[str]
    ) -> Engine[Any, Any]:
        """See :meth:`dyninfer.engines.base.Backend.open`."""
        return self._of(name).open(name, stage, path, host_outputs)

    def close(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.close`."""
        for backend in self._backends:
            backend.close()
        super().close()

    def after_fork(self) -> None:
        """See :meth:`dyninfer.engines.base.Backend.after_fork`."""
        for backend in self._backends:
            backend.after_fork()
