"""The lock that make installs from, against what pyproject.toml declares."""

from __future__ import annotations

import re
import sys

from packaging.requirements import Requirement

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


def test_what_is_declared_is_locked_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((support.ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    installed = set(extras) - {"cuda", "tensorrt"}  # make installs none of these two
    declared = [*project["dependencies"], *(line for name in installed for line in extras[name])]
    versions = locked()
    for requirement in map(Requirement, declared):
        if requirement.name == "torch":
            continue
        for entry in versions[requirement.name.lower().replace("_", "-")]:
            (pin,) = entry.specifier
            assert requirement.specifier.contains(pin.version), (requirement, pin)
