"""Which TensorRT fits a GPU: packages for pip, or what the system brings.

What a GPU needs stands in the table of ``dyninfer build --list-targets``; TensorRT-RTX's own list
is that of its 1.7 documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from dyninfer.engines.trt.targets import CURRENT, PRESETS, Preset

RTX_CAPABILITIES = ("7.5", "8.6", "8.9", "12.0", "12.1")
"""No V100 (7.0), no A100 (8.0), no Orin (8.7), no H100 (9.0)."""
LAST_PYTHON = {"10.4.0": (3, 12)}
"""The newest Python that an older TensorRT has packages for."""
TRY_CUDA = "make test-cuda runs the same CUDA layer with PyTorch"


class NoTensorRTError(Exception):
    """There is none for this GPU; the message says why, and what can be run instead."""


@dataclass(frozen=True)
class Found:
    """A machine: its first GPU's compute capability ("8.6"), its CUDA ((12, 4)), and its Python."""

    capability: str
    cuda: tuple[int, int] | None
    python: tuple[int, int]
    jetson: bool = False


@dataclass(frozen=True)
class Choice:
    """What to install with pip, which modules the system's own Python brings, and why."""

    packages: tuple[str, ...]
    why: str
    of_the_system: tuple[str, ...] = ()


def choose(found: Found) -> Choice:
    """What to test with on a machine.

    Raises:
        NoTensorRTError: none fits.
    """
    known = [p for p in PRESETS if p.compute_capability == found.capability]
    preset = next((p for p in known if p.jetson == found.jetson), known[0] if known else None)
    if preset is None and _number(found.capability) < (7, 5):
        raise NoTensorRTError(
            f"no TensorRT that this project knows supports compute capability {found.capability}; "
            f"{TRY_CUDA}"
        )
    if preset is not None and preset.jetson:
        return _of_jetpack(preset, found)
    if found.cuda is None or found.cuda[0] < 12:
        said = "an unknown one" if found.cuda is None else "{}.{}".format(*found.cuda)
        raise NoTensorRTError(f"the driver is for CUDA {said}, expected 12 or later; update it")
    if preset is not None and preset.last_tensorrt != CURRENT:
        return _last(preset, found)
    major = min(found.cuda[0], 13)
    packages = [f"tensorrt-cu{major}", _cuda_python(major)]
    why = f"the newest, for CUDA {major}"
    if preset is None:
        why += f"; compute capability {found.capability} is not in this project's table"
    if found.capability in RTX_CAPABILITIES:
        packages.append(f"tensorrt-rtx-cu{major}")
        why += "; TensorRT-RTX knows it, too"
    return Choice(tuple(packages), why)


def _last(preset: Preset, found: Found) -> Choice:
    """The last TensorRT for a GPU that later ones have dropped; it is one for CUDA 12."""
    version = preset.last_tensorrt
    newest = LAST_PYTHON[version]
    if found.python > newest:
        raise NoTensorRTError(
            f"{preset.name} needs TensorRT {version}, which has packages for Python up to "
            f"{newest[0]}.{newest[1]}, and this is {found.python[0]}.{found.python[1]}; "
            f"make clean, then make test-gpu PYTHON=python{newest[0]}.{newest[1]}"
        )
    why = f"the last that supports {preset.devices}"
    return Choice((f"tensorrt-cu12=={version}", _cuda_python(12)), why)


def _of_jetpack(preset: Preset, found: Found) -> Choice:
    if preset.last_tensorrt != CURRENT:
        raise NoTensorRTError(f"{preset.devices}: {preset.note}; {TRY_CUDA}")
    major = found.cuda[0] if found.cuda is not None else 12
    return Choice((_cuda_python(min(major, 13)),), "JetPack brings TensorRT", ("tensorrt",))


def _cuda_python(major: int) -> str:
    return "cuda-python>=12.6,<13" if major == 12 else "cuda-python>=13,<14"


def _number(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
