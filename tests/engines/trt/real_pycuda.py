"""PyCUDA itself, built without CUDA and without a GPU.

Its headers come from NVIDIA's wheels. It links an empty libcuda, and beside the extension lies
another that has every function that it asks for and answers "no device" to all of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

PYCUDA = "pycuda==2026.1"
HEADERS = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-profiler-api-cu12==12.9.79")
BESIDE = ("pytools", "siphash24", "setuptools", "wheel")
BUILD = "DYNINFER_BUILD_PYCUDA"
"""Set to anything, PyCUDA is built, which takes a processor about a minute."""
_STUB = """
static int answer(void) { return 100; }
int cuGetErrorName(int code, const char **text) { *text = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuGetErrorString(int code, const char **text) { *text = "no device, says a stub"; return 0; }
"""


def build(folder: Path) -> Path:
    """A folder of modules with PyCUDA, all that it needs, and ``libcuda.so.1``.

    The test is skipped where they cannot be had.
    """
    missing = [tool for tool in ("cc", "c++", "nm") if shutil.which(tool) is None]
    if missing or not sys.platform.startswith("linux"):
        pytest.skip(f"PyCUDA cannot be built here: {missing or sys.platform}")
    modules, stub = folder / "modules", folder / "stub"
    stub.mkdir(parents=True)
    _pip("install", "--target", str(modules), *HEADERS, *BESIDE)
    _pip("download", "--no-binary", "pycuda", "--no-build-isolation", "-d", str(folder), PYCUDA)
    with tarfile.open(next(folder.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    _compile("", stub / "libcuda.so", "libcuda.so.1")
    _wheel(next(folder.glob("pycuda-*/")), modules, stub, folder)
    with zipfile.ZipFile(next(folder.glob("pycuda-*.whl"))) as wheel:
        wheel.extractall(modules)
    extension = next((modules / "pycuda").glob("_driver*.so"))
    listed = subprocess.check_output(["nm", "-D", "--undefined-only", str(extension)], text=True)
    asked = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
    answers = "".join(
        f"int {name}(void) {{ return answer(); }}\n"
        for name in sorted(asked)
        if name.startswith("cu") and name[2:3].isupper() and f"int {name}(" not in _STUB
    )
    _compile(_STUB + answers, modules / "libcuda.so.1", "libcuda.so.1")
    return modules


def _wheel(source: Path, modules: Path, stub: Path, folder: Path) -> None:
    nvidia = modules / "nvidia"
    environment = os.environ | {
        "PYTHONPATH": str(modules),
        "CPATH": str(nvidia / "cuda_profiler_api" / "include"),
        "CFLAGS": "-O0 -w",
        "LDFLAGS": "-Wl,--no-as-needed",  # or the empty libcuda would be left out
    }
    configure = [sys.executable, "configure.py", f"--cuda-root={nvidia / 'cuda_runtime'}"]
    configure += ["--no-cuda-enable-curand", f"--cudadrv-lib-dir={stub}"]
    make = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    for command in (configure, [*make, ".", "-w", str(folder)]):
        done = subprocess.run(
            command, cwd=source, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"PyCUDA's parts cannot be had: {done.stderr.strip().splitlines()[-1]}")


def _compile(source: str, library: Path, name: str) -> None:
    command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-xc", "-"]
    subprocess.run([*command, "-o", str(library)], input=source, text=True, check=True)


def python_with(modules: Path, code: str) -> str:
    """What a new Python prints that has PyCUDA and its libcuda."""
    path = os.pathsep.join((str(modules), *sys.path, sysconfig.get_path("purelib")))
    environment = os.environ | {"PYTHONPATH": path, "LD_LIBRARY_PATH": str(modules)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
