"""The code's descriptions of TensorRT against NVIDIA's own bindings of every generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dyninfer.engines.trt import api
from tests.engines.trt.real_bindings import WHEELS, probed

pytestmark = pytest.mark.slow  # it fetches and compiles
Found = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the probe finds, by version."""
    return {version: probed(version, tmp_path_factory.mktemp(version)) for version in WHEELS}


def test_every_version_has_what_is_used_but_for_what_is_called_optional(found: Found) -> None:
    for version, said in found.items():
        assert said["version"].startswith(version)
        unknown = {key for key in said["problems"] if not optional(key)}
        assert not unknown, (version, unknown)


def optional(key: str) -> bool:
    owner = key.partition(".")[0]
    return key in api.OPTIONAL or owner in api.OPTIONAL or f"Module.{owner}" in api.OPTIONAL


def test_what_is_called_optional_is_missing_somewhere(found: Found) -> None:
    missing = {key for said in found.values() for key in said["problems"]}
    missing |= {key.partition(".")[0] for key in missing}

    written_by_all = {"IExecutionContext.device_memory"}
    assert set(api.OPTIONAL) - missing == written_by_all


def test_the_library_s_errors_are_heard_in_every_version(found: Found) -> None:
    assert {tuple(said["heard"]) for said in found.values()} == {("said by the library",)}


@pytest.mark.parametrize("version", WHEELS)
def test_what_a_network_is_told(found: Found, version: str) -> None:
    said = found[version]
    told = said["network_flags"], said["keeps_types"], said["must_share_profiles"]

    expected = {"8": (0b01, False, True), "11": (0b01, True, False)}
    assert told == expected.get(version.partition(".")[0], (0b11, True, False))
