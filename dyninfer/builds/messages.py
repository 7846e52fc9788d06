"""What a user is told where a build is missing: why none fits, and the command that makes one."""

from __future__ import annotations

from dyninfer.builds.precisions import describe_plan
from dyninfer.builds.search import describe_differences, list_builds, nearest_build
from dyninfer.builds.spec import BuildSpec
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Precision


def build_command(bundle: Bundle, wanted: BuildSpec) -> str:
    """The command that makes a build."""
    parts = [f"dyninfer build {bundle.path} --backend {wanted.backend}"]
    if wanted.target is not None and wanted.target.gpu_name is None:
        devices = (f"sm{c.replace('.', '')}" for c in wanted.target.compute_capabilities)
        parts.append(f"--for {','.join(devices)}")
    if wanted.batch is not None:
        parts.append(f"--batch {wanted.batch}")
    parts.append(f"--precision {describe_plan(wanted.precision, bundle.manifest)}")
    if Precision.INT8 in wanted.precision.values():
        parts.append("--images FOLDER")
    return " ".join(parts)


def refusal(bundle: Bundle, wanted: BuildSpec) -> str:
    """Why no build fits, with both fingerprints field by field, and the command that makes one."""
    nearest = nearest_build(bundle, wanted)
    if nearest is not None:
        reason = describe_differences(nearest.spec, wanted)
    else:
        _, broken = list_builds(bundle)
        reason = str(broken[0]) if broken else "it has no builds yet"
    return (
        f"no build of {bundle.path} fits, and building was not allowed: {reason}; "
        f"run: {build_command(bundle, wanted)}"
    )
