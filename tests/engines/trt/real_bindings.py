"""NVIDIA's own Python modules of several TensorRT versions, without TensorRT.

The bindings are small wheels that link the libraries. Empty libraries with the symbols that they
ask for are compiled beside them, so that they can be imported, and every class looked at.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.engines.trt.bindings_probe import PACKAGE

WHEELS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.0.1": "tensorrt-cu12-bindings==10.0.1",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.4.0": "tensorrt-cu12-bindings==10.4.0",
    "10.13.0": "tensorrt-cu12-bindings==10.13.0.35",
    "10.16.1": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4.0": "tensorrt-cu12-bindings==11.4.0.106",
}
_OURS = re.compile(r"lib(nvinfer|nvonnxparser|nvparsers|cudart)\w*\.so")
_THEIRS = re.compile(r"nvinfer|Nv|nvcaffe|nvuff|createInfer|PluginRegistry|cuda", re.I)


def probed(version: str, folder: Path) -> dict[str, Any]:
    """What the probe finds in a version; the test is skipped where it cannot be had."""
    missing = [tool for tool in ("cc", "nm", "readelf") if shutil.which(tool) is None]
    if missing or not sys.platform.startswith("linux"):
        pytest.skip(f"no stub libraries can be made here: {missing or sys.platform}")
    unpack(WHEELS[version], folder)
    _compile_stubs(next((folder / PACKAGE).glob("*.so")), folder / "lib")
    path = os.pathsep.join((str(folder), str(support.ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "LD_LIBRARY_PATH": str(folder / "lib")}
    command = [sys.executable, "-m", "tests.engines.trt.bindings_probe"]
    done = subprocess.run(
        command, env=environment, cwd=support.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def unpack(requirement: str, folder: Path, only: str = "*") -> None:
    """Fetch a wheel and unpack what matches; the test is skipped where it cannot be had."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    command += [str(folder), "--only-binary=:all:", "--disable-pip-version-check", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{requirement} cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder, fnmatch.filter(wheel.namelist(), only))


def _compile_stubs(module: Path, folder: Path) -> None:
    """Libraries of the names that a module links, the first of which has all of its symbols."""
    folder.mkdir()
    dynamic = subprocess.check_output(["readelf", "-d", str(module)], text=True)
    libraries = [n for n in re.findall(r"NEEDED.*\[(.+)\]", dynamic) if _OURS.match(n)]
    listed = subprocess.check_output(["nm", "-D", "--undefined-only", str(module)], text=True)
    symbols = {line.split()[-1].split("@")[0] for line in listed.splitlines()}
    source = "".join(
        f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols if _THEIRS.search(symbol)
    )
    for index, name in enumerate(libraries):
        command = ["cc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-xc", "-"]
        text = "" if index else source
        subprocess.run([*command, "-o", str(folder / name)], input=text, text=True, check=True)
