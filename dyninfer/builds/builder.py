"""Who makes builds for a backend, and which build and which files a bundle is opened with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dyninfer.builds.files import AS_USUAL, Converted, Making, make_build
from dyninfer.builds.search import build_command, find_build, refusal
from dyninfer.builds.signature import check_build
from dyninfer.builds.spec import (
    FOR_OPENVINO,
    BuildSpec,
    OpenBuild,
    own_precision,
    plan_precision,
    source_hashes,
)
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines import TENSORRT
from dyninfer.engines.base import Backend
from dyninfer.errors import EngineBuildError


class Builder(Protocol):
    """Makes builds for one backend, and for one device where that matters."""

    def wanted(
        self, manifest: Manifest, precision: Mapping[str, Precision], max_batch: int
    ) -> BuildSpec | None:
        """The build that the backend needs for a bundle, or None if its own files will do.

        ``max_batch`` is the most images that it will be given at once.
        """

    def converted(self, bundle: Bundle, precision: Mapping[str, Precision]) -> Converted | None:
        """Stages in a precision, as far as they need not be converted anew; None where they do."""

    def make(self, bundle: Bundle, wanted: BuildSpec, making: Making = AS_USUAL) -> OpenBuild:
        """Make what :meth:`wanted` asked for.

        Raises:
            EngineBuildError: it cannot be built here; the message names the command that can.
        """


class ConversionBuilder(Builder):
    """Keeps ONNX files in another precision than the bundle's own, for ONNX Runtime and OpenVINO.

    Converting takes pictures, which nobody has when a bundle is opened. ``travel`` are the options
    of :data:`dyninfer.builds.spec.TRAVEL` that are wanted, ``backend_of`` tells which of
    :data:`dyninfer.engines.ON_HOST` will run a stage.
    """

    def __init__(
        self,
        travel: Mapping[str, str] | None = None,
        backend_of: Callable[[str], str] = lambda _stage: "onnxruntime",
    ) -> None:
        self._travel = dict(travel or {})
        self._backend_of = backend_of

    def wanted(
        self, manifest: Manifest, precision: Mapping[str, Precision], max_batch: int
    ) -> BuildSpec | None:
        """A conversion, unless the bundle's own files have the precision; they take any batch."""
        del max_batch
        files = {  # OpenVINO computes in bf16 with the bundle's own files
            name: stage.precision if precision[name] is Precision.BF16 else precision[name]
            for name, stage in manifest.stages.items()
        }
        if files == own_precision(manifest):
            return None
        for_openvino = ",".join(
            name
            for name, stage in manifest.stages.items()
            if files[name] is Precision.INT8 and stage.precision is not Precision.INT8
            if self._backend_of(name) == "openvino"
        )
        return BuildSpec(
            backend="onnxruntime",
            precision=files,
            stages_sha256=source_hashes(manifest),
            options=self._travel | ({FOR_OPENVINO: for_openvino} if for_openvino else {}),
        )

    def converted(self, _bundle: Bundle, _precision: Mapping[str, Precision]) -> None:
        """Nothing: a build of conversions that is there already need not be made."""

    def make(self, bundle: Bundle, wanted: BuildSpec, making: Making = AS_USUAL) -> OpenBuild:
        """Keep what was converted; it cannot be converted here."""
        if making.converted is None:
            raise EngineBuildError(
                f"{bundle.path} has no build in the precision that is wanted, and none can be "
                f"made when it is opened; run: {build_command(bundle, wanted)}"
            )
        return make_build(bundle, wanted, making)


def builder_for(backend: Backend[Any, Any]) -> Builder:
    """The builder for an opened backend and its device; the only place that chooses one."""
    if backend.name not in TENSORRT:
        return ConversionBuilder(backend_of=backend.backend_of)
    from dyninfer.builds.tensorrt import TensorRTBuilder
    from dyninfer.engines.trt.backend import TrtBackend

    assert isinstance(backend, TrtBackend)  # it has both names
    return TensorRTBuilder.on(backend.platform)


def choose_build(
    bundle: Bundle,
    backend: Backend[Any, Any],
    precision: str | None,
    max_batch: int,
    *,
    may_build: bool,
    trusted_key: Path | None = None,
    checked: Callable[[], None] = lambda: None,
) -> OpenBuild | None:
    """The build to open a bundle with, or None if its own ONNX files will do.

    ``precision`` is as ``dyninfer build --precision`` takes it, None for the bundle's own;
    ``max_batch`` the most images that will be run at once. A build that is there must be signed
    where there is a ``trusted_key``. ``checked`` is called before a build is
    used or made, and returns once the bundle's own files are known to be as they were exported.

    Raises:
        InputError: the precision cannot be understood, or the backend does not compute in it.
        BundleError: a file of the build that fits was changed, or it is not signed.
        EngineBuildError: there is none that fits, and it may not or cannot be made here.
    """
    builder = builder_for(backend)
    plan = plan_precision(precision, bundle.manifest)
    backend.configure(bundle.manifest, plan)
    wanted = builder.wanted(bundle.manifest, plan, max_batch)
    if wanted is None:
        return None
    checked()
    found = find_build(bundle, wanted)
    if found is not None:
        if trusted_key is not None:
            check_build(found, trusted_key)
        files = found.build.spec.precision
        fell_back = {n: p for n, p in files.items() if p is not wanted.precision[n]}
        backend.configure(bundle.manifest, plan | fell_back)
        return found
    if may_build:
        return builder.make(bundle, wanted)
    raise EngineBuildError(refusal(bundle, wanted))


def stage_file(bundle: Bundle, stage: str, build: OpenBuild | None) -> Path:
    """The file that a backend opens for a stage: the build's, or else the bundle's own."""
    built = None if build is None else build.stage_path(stage)
    return bundle.stage_path(stage) if built is None else built
