from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyninfer.engines.trt.library import Flavour, installed_flavour, load_library
from dyninfer.errors import BackendUnavailable
from dyninfer.installing import pip_install
from tests import support


@pytest.fixture(autouse=True)
def forget_libraries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let each test have its own tensorrt, and the others theirs."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt", "tensorrt_rtx")]:
        monkeypatch.delitem(sys.modules, name)
    load_library.cache_clear()
    yield
    load_library.cache_clear()


def package(folder: Path, name: str, code: str | None) -> None:
    (folder / name).mkdir()
    if code is not None:
        (folder / name / "__init__.py").write_text(code)


def test_a_package_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [])

    for flavour in Flavour:
        extra = pip_install(flavour.value)
        with support.refuses(BackendUnavailable, "is not installed", extra):
            load_library(flavour)


def test_a_folder_of_type_stubs_is_no_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "tensorrt", None)
    (tmp_path / "tensorrt" / "__init__.pyi").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    with support.refuses(BackendUnavailable, "not installed", pip_install("tensorrt")):
        load_library(Flavour.TENSORRT)


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ({}, Flavour.TENSORRT),
        ({"tensorrt_rtx": ""}, Flavour.RTX),
        ({"tensorrt_rtx": "", "tensorrt": ""}, Flavour.TENSORRT),
        ({"tensorrt_rtx": "", "tensorrt": None}, Flavour.RTX),  # a folder of type stubs
    ],
)
def test_the_flavour_that_is_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    packages: dict[str, str | None],
    expected: Flavour,
) -> None:
    for name, code in packages.items():
        package(tmp_path, name, code)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])

    assert installed_flavour() is expected


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (
            "libnvinfer.so.10: cannot open shared object file: No such file or directory",
            ("libnvinfer.so.10", "tensorrt-cu12-libs", "LD_LIBRARY_PATH"),
        ),
        ("libcuda.so.1: cannot open shared object file", ("libcuda.so.1", "NVIDIA driver")),
        ("Could not find: nvinfer_10.dll. Is it on your PATH?", ("nvinfer_10.dll",)),
    ],
)
@pytest.mark.parametrize("kind", ["ImportError", "OSError", "FileNotFoundError"])
def test_a_library_that_is_missing_is_named_with_what_brings_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    parts: tuple[str, ...],
    kind: str,
) -> None:
    package(tmp_path, "tensorrt", f"raise {kind}({error!r})\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    with support.refuses(BackendUnavailable, "is installed but", *parts):
        load_library(Flavour.TENSORRT)


def test_a_package_that_it_needs_and_lacks_is_not_taken_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "tensorrt_rtx", "import tensorrt_rtx_libs_that_are_not_there\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    with support.refuses(BackendUnavailable, "tensorrt_rtx_libs_that", "reinstall"):
        load_library(Flavour.RTX)


def test_a_version_before_8_6_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "tensorrt", "__version__ = '8.5.2.2'\nclass Builder: pass\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    with support.refuses(BackendUnavailable, "8.5.2.2", "8.6 or later"):
        load_library(Flavour.TENSORRT)
