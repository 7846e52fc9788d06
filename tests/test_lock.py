"""The lock that make installs from, against what pyproject.toml declares."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import version

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests import support

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCK = (support.ROOT / "requirements.lock").read_text()
ENTRIES = re.split(r"\n(?=\S)", LOCK.strip())


def locked() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for entry in ENTRIES:
        requirement = Requirement(entry.split("\\")[0].strip())
        found.setdefault(requirement.name, []).append(requirement)
    return found


def test_every_entry_has_one_version_and_hashes() -> None:
    assert len(ENTRIES) > 100
    for entry in ENTRIES:
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_no_registry_is_named() -> None:
    assert "://" not in LOCK
    assert "index" not in LOCK


def test_pytorch_and_what_only_its_cuda_build_needs_is_left_to_the_machine() -> None:
    names = {name for name in locked() if re.match(r"torch$|triton|nvidia|cuda-toolkit", name)}
    assert names == {"nvidia-ml-py"}  # NVML's reader, of a few kilobytes
    pinned = (support.ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==\S+$", pinned, re.MULTILINE)


def declared(without: set[str]) -> list[Requirement]:
    """What the package and its extras need, but for some extras."""
    project = tomllib.loads((support.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [line for name in set(extras) - without for line in extras[name]]
    return [Requirement(text) for text in [*project["dependencies"], *texts]]


def test_what_is_declared_is_locked_at_a_version_that_is_allowed() -> None:
    versions = locked()
    for requirement in declared(without={"cuda", "tensorrt"}):  # make installs none of these two
        if requirement.name == "torch":
            continue
        for entry in versions[requirement.name.lower().replace("_", "-")]:
            (pin,) = entry.specifier
            assert requirement.specifier.contains(pin.version), (requirement, pin)


@pytest.mark.skipif("DYNINFER_LOWEST" not in os.environ, reason="this is not make test-lowest")
def test_the_lowest_run_has_the_lowest_versions_that_are_declared() -> None:
    for requirement in declared(without={"cuda", "tensorrt", "tensorrt-rtx"}):
        (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
        lowest, installed = Version(bound).release, Version(version(requirement.name)).release
        assert installed[: len(lowest)] == lowest, (requirement, installed)
