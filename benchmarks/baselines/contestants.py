"""What contenders open, whether they find the same, and their times as a part of a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.benchmarks.baselines.child import Child
from dyninfer.benchmarks.baselines.contest import ContestTimes
from dyninfer.benchmarks.baselines.setup import (
    DYNINFER,
    NAMES,
    SINGLE_GRAPH,
    Arrays,
    CallKind,
    Kind,
    Setup,
    is_onnx_file,
)
from dyninfer.benchmarks.latency.record import BaselineRatio, ContenderTimes
from dyninfer.builds.builder import choose_build, stage_file
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest
from dyninfer.engines import open_backend
from dyninfer.evaluation.interleaved import compare, quantiles
from dyninfer.hardware import usable_cores
from dyninfer.images.spec import ImageSpec
from dyninfer.runtime.engine_choice import EngineChoice
from dyninfer.types import Float32Array

GRAPH_MODULE = "dyninfer.benchmarks.baselines.single_graph"
TOLERANCE = 1e-3
"""Float32 rounding through a hundred layers, in another order, stays a tenth of this below the
largest value (the exports' own verification has seen 1e-4); a wrong route or weight is far above.
"""


@dataclass(frozen=True)
class Contestants:
    """What all contenders of a contest share; ``folder`` is for files that the contest makes."""

    bundle: Path
    manifest: Manifest
    engine: EngineChoice
    folder: Path
    sources: tuple[Path, ...] = ()

    def setup(self, kind: Kind, model: Path | str | None = None) -> Setup:
        """The setup of a contender that needs no more than a file, by default the bundle."""
        return Setup(
            kind=kind,
            inputs=str(self.folder / "inputs.npz"),
            model=str(model or self.bundle),
            engine=self.engine,
            cores=usable_cores(),
            stage_files=self._stage_files() if kind is Kind.NAIVE else {},
            sources=tuple(map(str, self.sources)),
        )

    def _stage_files(self) -> dict[str, str]:
        """Stage -> the ONNX file that dyninfer opens with ONNX Runtime: the bundle's, or a build's.

        For other backends the bundle's own.

        Raises:
            EngineBuildError: no build holds the precision.
        """
        on_ort = self.engine.backend in (None, "onnxruntime")
        bundle = Bundle.open(self.bundle)
        with closing(open_backend("onnxruntime")) as backend:
            precision = self.engine.precision if on_ort else None
            build = choose_build(bundle, backend, precision, 1, may_build=False)
            return {name: str(stage_file(bundle, name, build)) for name in self.manifest.stages}

    def write_inputs(self) -> None:
        """Draw the image that everybody gets."""
        rng = np.random.default_rng(0)
        specs = self.manifest.image_inputs
        arrays = {name: noise_image(spec, rng) for name, spec in specs.items()}
        np.savez(self.folder / "inputs.npz", **arrays)  # type: ignore[arg-type]  # any arrays

    def setup_of(self, name: str) -> Setup:
        """What a baseline opens.

        Raises:
            DyninferError: it cannot be made from this bundle.
        """
        if is_onnx_file(name):
            return self.setup(Kind.FOREIGN, Path(name).resolve())
        return self.setup(Kind(name), self._write_graph() if name == SINGLE_GRAPH else None)

    def _write_graph(self) -> Path:
        output = self.folder / "single_graph.onnx"
        files = self._stage_files()
        with Child(GRAPH_MODULE) as child:
            child.ask({"bundle": str(self.bundle), "output": str(output), "files": files})
        return output


def noise_image(spec: ImageSpec, rng: np.random.Generator) -> Float32Array:
    """Uniform noise (1, 3, H, W) between what black and white become."""
    mean, std = (np.array(n, np.float32).reshape(3, 1, 1) for n in (spec.mean, spec.std))
    black, white = -mean / std, (255 - mean) / std
    noise = rng.random((1, 3, spec.height, spec.width), np.float32)
    image: Float32Array = black + noise * (white - black)
    return image


def labels_of(names: Iterable[str]) -> dict[str, str]:
    """Name -> what it is called in a record: of a file its name, unless two share that."""
    files = [name for name in names if is_onnx_file(name)]
    short = [Path(file).name for file in files]
    return {
        name: Path(name).name if name in files and short.count(Path(name).name) == 1 else name
        for name in names
    }


def times_of(samples: ContestTimes, ways: Sequence[str]) -> ContenderTimes:
    """Times with their median and quartiles; ``ways`` are the names of the bundle's."""
    found, entry = quantiles(samples.times_ms), samples.entry
    ours, other = (
        "the bundle itself, with the way forced",
        NAMES.get(entry.contender, "another detector"),
    )
    what = ours if entry.contender == DYNINFER else other
    return ContenderTimes(
        name=entry.name,
        what=what + ("; outputs left in buffers" if entry.call is CallKind.ENGINES else ""),
        side=ways[samples.way],
        times_ms=samples.times_ms,
        median_ms=found.median_ms,
        p25_ms=found.p25_ms,
        p75_ms=found.p75_ms,
        idle_cpu_ms=samples.idle_cpu_ms,
    )


def ratios_of(samples: Sequence[ContestTimes], ways: Sequence[str]) -> tuple[BaselineRatio, ...]:
    """Our time over each other's with the same kind of call, pair by pair."""
    ours = {
        (found.way, found.entry.call): found
        for found in samples
        if found.entry.contender == DYNINFER
    }
    return tuple(
        BaselineRatio(
            theirs.entry.name,
            ways[theirs.way],
            compare(ours[theirs.way, theirs.entry.call].times_ms, theirs.times_ms),
        )
        for theirs in samples
        if theirs.entry.contender != DYNINFER
    )


def largest_difference(reference: Arrays, found: Arrays) -> float | None:
    """Largest difference of any output, relative to the largest value of that output.

    Outputs that only one has do not count. None where nothing can be compared: no output is
    common, or a common one has another shape; infinity where only one of the two has a NaN.
    """
    common = [name for name in reference if name in found]
    if not common or any(reference[name].shape != found[name].shape for name in common):
        return None
    return max(_difference(reference[name], found[name]) for name in common)


def _difference(reference: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    ours, theirs = reference.astype(np.float64), found.astype(np.float64)
    if not ours.size:
        return 0.0
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return float("inf")
    finite = np.isfinite(ours)
    scale = float(np.abs(ours[finite]).max(initial=0.0))
    largest = float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0))
    return largest / scale if scale else largest
