from __future__ import annotations

import pytest

from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.engines.trt.targets import PRESETS, Preset, check_for, check_here, find_presets
from dyninfer.errors import EngineBuildError, InputError
from tests import support


class NoModule:
    """A TensorRT of which only the version matters."""

    __version__ = "0"


def tensorrt(version: str) -> Library:
    return Library(Flavour.TENSORRT, NoModule, version)  # type: ignore[arg-type]


def names(presets: list[Preset]) -> list[str]:
    return [preset.name for preset in presets]


@pytest.fixture
def rtx() -> Library:
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
    return load_library(Flavour.RTX)


def test_names_are_unique_and_lower_case() -> None:
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)
    assert all(preset.name == preset.name.lower() for preset in PRESETS)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_is_found_by_its_name(preset: Preset) -> None:
    assert find_presets(preset.name.upper()) == [preset]
    assert find_presets(preset.sm)[0].compute_capability == preset.compute_capability


def test_several_devices_and_both_ways_of_writing_a_compute_capability() -> None:
    found = find_presets("rtx30, sm89,12.0")

    assert [preset.compute_capability for preset in found] == ["8.6", "8.9", "12.0"]
    assert names(found) == ["rtx30", "rtx40", "rtx50"]
    assert find_presets("sm_121")[0].compute_capability == "12.1"


@pytest.mark.parametrize("text", ["", " , ", "rtx60", "sm", "8", "gtx1080"])
def test_an_unknown_device_is_refused_with_those_that_are_known(text: str) -> None:
    with support.refuses(InputError, "rtx30"):
        find_presets(text)


@pytest.mark.parametrize("version", ["10.5.0", "10.5.0.18", "10.13.3.9", "11.4.1"])
def test_volta_ends_with_tensorrt_10_4_0(version: str) -> None:
    with support.refuses(EngineBuildError, version, "v100", "10.4.0 is the last", "==10.4.0"):
        check_for(find_presets("v100"), tensorrt(version))


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.4.0", "10.4.0.26"])
def test_volta_builds_up_to_tensorrt_10_4_0(version: str) -> None:
    check_for(find_presets("v100,a100"), tensorrt(version))


def test_blackwell_begins_with_tensorrt_10_8() -> None:
    check_for(find_presets("rtx50"), tensorrt("10.8.0"))
    with support.refuses(EngineBuildError, "rtx50", "10.8 is the first"):
        check_for(find_presets("rtx40,rtx50"), tensorrt("10.7.0"))


def test_xavier_is_told_that_its_tensorrt_is_too_old() -> None:
    with support.refuses(EngineBuildError, "jetson-xavier", "8.5.2 is the last", "JetPack 5.1"):
        check_for(find_presets("jetson-xavier"), tensorrt("8.6.2"))


def test_tensorrt_rtx_says_what_it_builds_for_and_what_else_there_is(rtx: Library) -> None:
    check_for(find_presets("t4,a100,rtx30,rtx40,rtx50,sm121"), rtx)
    with support.refuses(EngineBuildError, "v100 (sm70)", "sm75", "TensorRT 10.4.0 or earlier"):
        check_for(find_presets("rtx30,v100"), rtx)
    with support.refuses(EngineBuildError, "h100 (sm90)", "--backend tensorrt"):
        check_for(find_presets("h100"), rtx)
    with support.refuses(EngineBuildError, "jetson-orin", "build on the Jetson"):
        check_for(find_presets("jetson-orin"), rtx)


def test_tensorrt_builds_for_the_gpu_that_is_there_alone() -> None:
    check_here([], "RTX 3090", "8.6")
    check_here(find_presets("rtx30"), "RTX 3090", "8.6")
    with support.refuses(EngineBuildError, "RTX 3090", "8.6", "h100 (--for) is 9.0"):
        check_here(find_presets("rtx30,h100"), "RTX 3090", "8.6")
    with support.refuses(EngineBuildError, "on the Jetson"):
        check_here(find_presets("jetson-orin"), "RTX 3090", "8.6")
