"""Builds for TensorRT and TensorRT-RTX: one engine for every stage of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from dyninfer.builds.files import AS_USUAL, NOTHING_CONVERTED, Converted, Making, make_build
from dyninfer.builds.search import build_command, find_converted
from dyninfer.builds.spec import (
    HARDWARE_COMPATIBLE,
    IO,
    VERSION_COMPATIBLE,
    BuildSpec,
    BuildTarget,
    OpenBuild,
    own_precision,
    source_hashes,
    this_system,
    travel_of,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines import TENSORRT
from dyninfer.engines.trt.backend import Platform
from dyninfer.engines.trt.builder import (
    Active,
    EngineOptions,
    build_engine,
    check_options,
)
from dyninfer.engines.trt.cuda import DeviceProperties
from dyninfer.engines.trt.file_types import StageFile
from dyninfer.engines.trt.kept import timing_file
from dyninfer.engines.trt.library import Library
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import EngineBuildError

USUAL_BATCH = 4


def default_batch(max_batch: int) -> BatchProfile:
    """The range from one image to the most there may be; engines are fastest for a few."""
    return BatchProfile(minimum=1, optimum=min(USUAL_BATCH, max_batch), maximum=max_batch)


def device_target(library: Library, properties: DeviceProperties) -> BuildTarget:
    """The GPU of this machine as a target.

    TensorRT-RTX compiles for a kind of GPU and leaves the rest to the moment an engine is opened,
    so that nothing else of the GPU matters to it.
    """
    kind = BuildTarget(compute_capabilities=(properties.capability,), system=this_system())
    if library.compute_capabilities:
        return kind
    return kind.model_copy(
        update={
            "gpu_name": properties.name,
            "multiprocessors": properties.multiprocessors,
            "memory_gib": properties.memory_gib,
        }
    )


@dataclass(frozen=True)
class TensorRTBuilder:
    """Builds engines for one target. See :class:`dyninfer.builds.builder.Builder`.

    Without ``options`` in the usual way, with batches as large as are asked for. ``active`` makes
    the GPU to build on the current one, as :meth:`dyninfer.engines.trt.cuda.Cuda.active` does.
    ``travel`` are the options of :data:`dyninfer.builds.spec.TRAVEL`; None for whatever is there.

    Raises:
        EngineBuildError: an option does not go with the library.
    """

    library: Library
    target: BuildTarget
    options: EngineOptions | None = None
    active: Active = nullcontext
    travel: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.options is not None:
            check_options(self.library, self.options)

    @classmethod
    def on(cls, platform: Platform) -> TensorRTBuilder:
        """Builds for the GPU of an opened backend, on that GPU, which can take minutes."""
        library, cuda = platform.library, platform.cuda
        return cls(library, device_target(library, cuda.properties), active=cuda.active)

    def wanted(
        self, manifest: Manifest, precision: Mapping[str, Precision], max_batch: int
    ) -> BuildSpec:
        """Engines for the target; ``max_batch`` counts where there are no ``options``."""
        options = self.options or EngineOptions(default_batch(max_batch))
        chosen = dict(self.travel or {})
        if options.workspace_bytes is not None:
            chosen["workspace_bytes"] = str(options.workspace_bytes)
        if options.version_compatible:
            chosen[VERSION_COMPATIBLE] = "yes"
        if options.hardware_compatible:
            chosen[HARDWARE_COMPATIBLE] = "yes"
        if self.library.must_share_profiles:
            chosen["shared_profiles"] = "yes"
        return BuildSpec(
            backend=self.library.flavour.value,
            library_version=self.library.version,
            target=self.target,
            batch=options.batch,
            precision=precision,
            stages_sha256=source_hashes(manifest),
            options=chosen,
        )

    def converted(self, bundle: Bundle, precision: Mapping[str, Precision]) -> Converted | None:
        """What an earlier build has converted, for instance for another GPU or version."""
        if dict(precision) == own_precision(bundle.manifest) and not self.travel:
            return NOTHING_CONVERTED
        found = find_converted(bundle, precision, self._reads)
        if found is None:
            return None
        paths = {name: found.onnx_path(name) for name in bundle.manifest.stages}
        files = {name: path for name, path in paths.items() if path is not None}
        build = found.build
        return Converted(
            files,
            build.onnx_sha256(),
            build.conversion,
            found.parity(),
            build.tensors,
            travel_of(build.spec),
        )

    def _reads(self, built: BuildSpec) -> bool:
        """Whether engines can be built from the ONNX files of this build."""
        half_scales = Precision.INT8 in built.precision.values() and IO in built.options
        return (
            built.backend in TENSORRT
            and self.travel in (None, travel_of(built))
            and (self.library.keeps_types or not half_scales)
        )

    def make(self, bundle: Bundle, wanted: BuildSpec, making: Making = AS_USUAL) -> OpenBuild:
        """Build every stage, or take this very build if it is there."""
        files = making.converted or self.converted(bundle, wanted.precision)
        if files is None:
            raise EngineBuildError(
                f"{bundle.path} holds no stages in the precision that is wanted; convert and build "
                f"them with: {build_command(bundle, wanted)}"
            )
        options = self.options or EngineOptions(wanted.batch or default_batch(1))
        options = replace(
            options,
            compute_capabilities=self._capabilities(),
            timing_cache=options.timing_cache or self._timing_cache(),
        )

        def make_engine(name: str, onnx: Path) -> bytes:
            source = StageFile(name, bundle.manifest.stages[name], wanted.precision[name], onnx)
            return build_engine(
                self.library,
                source,
                options,
                lambda share, phase: making.report(name, share, phase),
                self.active,
            )

        return make_build(bundle, wanted, replace(making, converted=files), make_engine)

    def _timing_cache(self) -> Path | None:
        """The user's, where the library measures kernels of the GPU that is here."""
        if self.library.compute_capabilities or self.target.gpu_name is None:
            return None
        return timing_file(self.library.version, self.target.gpu_name)

    def _capabilities(self) -> tuple[str, ...]:
        """What the library is told to build for; nothing where it builds for the GPU that is here.

        A GPU that it does not list may still run what it builds by default.
        """
        known = self.library.compute_capabilities
        return tuple(c for c in self.target.compute_capabilities if c in known)
