from __future__ import annotations

import pytest

from dyninfer.engines.trt.library import Flavour, load_library
from dyninfer.engines.trt.targets import PRESETS
from tests.gpu.choosing import RTX_CAPABILITIES, Choice, Found, NoTensorRTError, choose

CU12, CU13 = "cuda-python>=12.6,<13", "cuda-python>=13,<14"


def chosen(capability: str, cuda: tuple[int, int] | None = (13, 0), **other) -> Choice:
    return choose(Found(capability, cuda, **({"python": (3, 12)} | other)))


@pytest.mark.parametrize(
    ("capability", "cuda", "packages"),
    [
        ("7.0", (12, 4), ("tensorrt-cu12==10.4.0", CU12)),
        ("7.0", (13, 0), ("tensorrt-cu12==10.4.0", CU12)),  # CUDA 13 itself dropped it
        ("7.5", (12, 4), ("tensorrt-cu12", CU12, "tensorrt-rtx-cu12")),
        ("7.5", (13, 1), ("tensorrt-cu13", CU13, "tensorrt-rtx-cu13")),
        ("8.0", (12, 9), ("tensorrt-cu12", CU12)),
        ("8.6", (13, 0), ("tensorrt-cu13", CU13, "tensorrt-rtx-cu13")),
        ("8.9", (14, 0), ("tensorrt-cu13", CU13, "tensorrt-rtx-cu13")),
        ("9.0", (12, 2), ("tensorrt-cu12", CU12)),
        ("10.0", (13, 0), ("tensorrt-cu13", CU13)),
        ("12.0", (12, 8), ("tensorrt-cu12", CU12, "tensorrt-rtx-cu12")),
    ],
)
def test_what_fits_a_gpu_and_its_driver(capability, cuda, packages) -> None:
    assert chosen(capability, cuda).packages == packages


def test_a_gpu_that_is_not_in_the_table_gets_the_newest() -> None:
    found = chosen("12.1")
    assert found.packages == ("tensorrt-cu13", CU13, "tensorrt-rtx-cu13")
    assert "12.1 is not in this project's table" in found.why


def test_a_jetson_s_tensorrt_is_that_of_jetpack() -> None:
    six = chosen("8.7", (12, 6), python=(3, 10), jetson=True)
    assert (six.packages, six.of_the_system) == ((CU12,), ("tensorrt",))
    assert chosen("8.7", (13, 0), jetson=True).packages == (CU13,)
    assert chosen("8.7", None, jetson=True).packages == (CU12,)
    assert chosen("11.0", (13, 0), jetson=True).of_the_system == ("tensorrt",)


@pytest.mark.parametrize(
    ("capability", "other", "parts"),
    [
        ("6.1", {}, ("6.1", "make test-cuda")),
        ("7.2", {"jetson": True}, ("Xavier", "JetPack 5.1", "make test-cuda")),
        ("7.0", {"python": (3, 13)}, ("10.4.0", "up to 3.12", "this is 3.13", "PYTHON=python3.12")),
        ("8.6", {"cuda": (11, 8)}, ("CUDA 11.8", "update")),
        ("8.6", {"cuda": None}, ("an unknown one",)),
    ],
)
def test_what_has_none_is_told_why(capability, other, parts) -> None:
    with pytest.raises(NoTensorRTError) as caught:
        chosen(capability, **other)
    for part in parts:
        assert part in str(caught.value)


def test_every_device_of_the_table_is_decided() -> None:
    for preset in PRESETS:
        try:
            found = chosen(preset.compute_capability, jetson=preset.jetson)
        except NoTensorRTError:
            assert preset.name == "jetson-xavier"
        else:
            assert found.packages
            assert found.why


def test_tensorrt_rtx_builds_for_what_it_is_said_to_know() -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
    known = set(load_library(Flavour.RTX).compute_capabilities)
    assert set(RTX_CAPABILITIES) <= known
    assert not known & {"7.0", "8.7", "9.0"}
