"""Signatures of builds: what was built later is not covered by that of the bundle."""

from __future__ import annotations

from pathlib import Path

from dyninfer.builds.spec import BUILD_FILE, SCHEMA_VERSION, OpenBuild
from dyninfer.bundle.signature import check_files, document_sha256, sign_files


def sign_build(found: OpenBuild, private_key: Path) -> None:
    """Write ``model.sig`` into a build's folder; errors as of ``sign_bundle``."""
    sign_files(found.path, _files_of(found), private_key)


def check_build(found: OpenBuild, public_key: Path) -> None:
    """Refuse a build that is not signed by this key; errors as of ``check_bundle``."""
    check_files(found.path, _files_of(found), public_key)


def _files_of(found: OpenBuild) -> dict[str, str]:
    stages = found.build.stages.values()
    files = [file for stage in stages for file in (stage.onnx, stage.engine) if file is not None]
    document = document_sha256(found.path / BUILD_FILE, found.build, SCHEMA_VERSION)
    return {BUILD_FILE: document, **{file.file: file.sha256 for file in files}}
