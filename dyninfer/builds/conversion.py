"""Builds for ONNX Runtime: ONNX files in another precision than the bundle's own."""

from __future__ import annotations

from collections.abc import Mapping

from dyninfer.builds.builder import AS_USUAL, Making
from dyninfer.builds.files import make_build
from dyninfer.builds.messages import build_command
from dyninfer.builds.spec import BuildSpec, OpenBuild, own_precision, source_hashes
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.errors import EngineBuildError


class ConversionBuilder:
    """Keeps converted stages. Converting takes pictures, which nobody has when a bundle is opened.

    See :class:`dyninfer.builds.builder.Builder`.
    """

    def wanted(
        self, manifest: Manifest, precision: Mapping[str, Precision], max_batch: int
    ) -> BuildSpec | None:
        """A conversion, unless the bundle's own files have the precision; they take any batch."""
        del max_batch
        if dict(precision) == own_precision(manifest):
            return None
        return BuildSpec(
            backend="onnxruntime", precision=precision, stages_sha256=source_hashes(manifest)
        )

    def converted(self, _bundle: Bundle, _precision: Mapping[str, Precision]) -> None:
        """Nothing: a build of conversions that is there already need not be made."""

    def make(self, bundle: Bundle, wanted: BuildSpec, making: Making = AS_USUAL) -> OpenBuild:
        """Keep what was converted; it cannot be converted here."""
        if making.converted is None:
            raise EngineBuildError(
                f"{bundle.path} has no build in the precision that is wanted, and ONNX Runtime "
                f"cannot make one when it loads; run: {build_command(bundle, wanted)}"
            )
        return make_build(
            bundle, wanted, making.converted, replace=making.replace, on_wait=making.on_wait
        )
