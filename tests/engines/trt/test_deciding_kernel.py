"""The kernel of docs/decision-on-the-device.md: what it decides, and that it compiles."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dyninfer.routing.policy import route
from tests import support
from tests.engines.trt.real_bindings import unpack

SOURCE = Path(__file__).parent / "deciding.cu"
NVRTC = "nvidia-cuda-nvrtc-cu12==12.9.86"
"""The one release with both Volta, which is gone in 13, and sm_121, which is new in 12.9.

Not in requirements.lock: PyTorch's CUDA builds bring an NVRTC of their own.
"""
ARCHITECTURES = (70, 72, 75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121)


@pytest.fixture(scope="module")
def nvrtc(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        pytest.skip(f"its libraries are not looked for on {sys.platform} {platform.machine()}")
    folder = tmp_path_factory.mktemp("nvrtc")
    unpack(NVRTC, folder, "*/lib/libnvrt*[!t].so.*")  # without those called "alt"
    return ctypes.CDLL(str(next(folder.glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*"))))


def compiled(nvrtc: ctypes.CDLL, source: bytes, architecture: int) -> tuple[int, str, bytes]:
    """NVRTC's code, its log, and the machine code."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    made = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"deciding.cu", 0, None, None)
    assert made == 0
    options = (ctypes.c_char_p * 1)(f"--gpu-architecture=sm_{architecture}".encode())
    code = int(nvrtc.nvrtcCompileProgram(program, 1, options))
    found = []
    for what in ("ProgramLog", "CUBIN"):
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        if size.value:
            getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        found.append(text.raw)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return code, found[0].rstrip(b"\0").decode(), found[1]


@pytest.mark.slow  # it fetches 75 MB
def test_it_compiles_for_every_generation(nvrtc: ctypes.CDLL) -> None:
    source = SOURCE.read_bytes()
    for architecture in ARCHITECTURES:
        code, log, binary = compiled(nvrtc, source, architecture)
        assert code == 0, (architecture, log)
        assert binary.startswith(b"\x7fELF")
        assert b".text.decide" in binary
    code, log, _ = compiled(nvrtc, source.replace(b"cudaGraphSet", b"cudaGraphPut", 1), 90)
    assert code != 0
    assert "cudaGraphSetConditional" in log


def test_the_page_shows_this_kernel() -> None:
    text = (support.ROOT / "docs" / "decision-on-the-device.md").read_text(encoding="utf-8")
    shown = text.split("   ```\n")[1]
    assert [line.strip() for line in shown.splitlines()] == [
        line.strip() for line in SOURCE.read_text(encoding="utf-8").splitlines()
    ]


ON_A_CPU = """
#include <stddef.h>
#include <stdbool.h>
#define __global__
#define __device__
#define __cudart_builtin__
#define CUDARTAPI
#define const
typedef unsigned long long cudaGraphConditionalHandle;
static int condition;
%s
void cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned int value)
{ condition = handle == 7 ? (int)value : -1; }
int decided(float easiness, float threshold, int *taken)
{ condition = -1; decide(7, &easiness, &threshold, taken); return condition; }
"""


def test_it_decides_as_the_policy_does(tmp_path: Path) -> None:
    """Its C is compiled for this processor: the kernel has one thread and no more."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    source = ON_A_CPU % SOURCE.read_text(encoding="utf-8").replace('extern "C" ', "")
    library = tmp_path / "deciding.so"
    command = ["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    decided, taken = ctypes.CDLL(str(library)).decided, ctypes.c_int()
    decided.argtypes = (ctypes.c_float, ctypes.c_float, ctypes.POINTER(ctypes.c_int))
    values = [0.0, 0.25, float(np.nextafter(np.float32(0.5), np.float32(0))), 0.5, 1.0, np.nan]
    for threshold in (0.0, 0.5, 1.0, 1.5):
        goes_on = route(np.array(values, np.float32), threshold)
        for easiness, hard in zip(values, goes_on, strict=True):
            leaves = decided(easiness, threshold, ctypes.byref(taken))
            assert (leaves, taken.value) == (int(not hard), int(hard)), (easiness, threshold)
