"""What engines can be built for: ranges of batches, devices, and what TensorRT says of each.

Sources: NVIDIA's support matrices of TensorRT 8.6 to 11 and of TensorRT-RTX 1.x, the release notes
of TensorRT 10.5 (Volta removed) and the JetPack notes. The table is for choosing and for errors
that explain; what a library can do is asked of the library itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from dyninfer.bundle.documents import Frozen
from dyninfer.engines.trt.library import Flavour, Library
from dyninfer.errors import EngineBuildError, InputError


class BatchProfile(Frozen):
    """The smallest, the usual and the largest batch of an engine."""

    minimum: Annotated[int, Field(ge=1)]
    optimum: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _rising(self) -> BatchProfile:
        if not self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"batch {self} does not rise")
        return self

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """``1:4:16`` -> smallest, usual, largest; ``4`` -> always 4.

        Raises:
            InputError: it is neither, or does not rise.
        """
        match = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}):(\d{1,9}))?", text.strip())
        numbers = [int(number) for number in match.groups() if number] if match else []
        low, usual, high = numbers if len(numbers) == 3 else (numbers or [0]) * 3
        if not 1 <= low <= usual <= high:
            raise InputError(
                f"batch is {text[:80]!r}, expected MIN:OPT:MAX from 1 up and rising, such as 1:4:16"
            )
        return cls(minimum=low, optimum=usual, maximum=high)

    def parts(self) -> list[BatchProfile]:
        """The range in parts, each with its optimum at its end, so that none is tuned for others.

        One image alone, what is usual, and what is more: 1:4:16 -> 1, 2 to 4, 5 to 16.
        """
        ends = sorted({self.minimum, self.optimum, self.maximum})
        starts = [self.minimum, *(end + 1 for end in ends[:-1])]
        pairs = zip(starts, ends, strict=True)
        return [BatchProfile(minimum=low, optimum=high, maximum=high) for low, high in pairs]

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"


CURRENT = "current"


@dataclass(frozen=True)
class Preset:
    """A kind of device by the name that ``--for`` takes, such as "rtx30".

    ``last_tensorrt`` is the last TensorRT that supports it, or "current"; ``first_tensorrt`` the
    first, of those from 8.6 on. On a Jetson JetPack brings TensorRT, and engines are built there.
    """

    name: str
    devices: str
    compute_capability: str
    last_tensorrt: str
    first_tensorrt: str
    cuda: str
    precisions: str
    memory_gb: str
    note: str
    jetson: bool = False

    @property
    def sm(self) -> str:
        """The compute capability as compilers write it: "sm86"."""
        return f"sm{self.compute_capability.replace('.', '')}"


_ALL = "fp32/16 int8"
_ALONE = "TensorRT-RTX: build for it alone; an engine shared with later GPUs is slower"
PRESETS = (
    Preset("v100", "Tesla V100", "7.0", "10.4.0", "8.6", "11.8, 12", _ALL, "16, 32",
        "int8 has no tensor cores here and gains nothing over fp16; TensorRT 10.5 and CUDA 13 "
        "removed Volta"),
    Preset("t4", "T4", "7.5", CURRENT, "8.6", "11.8 on", _ALL, "16", _ALONE),
    Preset("rtx20", "RTX 20", "7.5", CURRENT, "8.6", "11.8 on", _ALL, "6-11", _ALONE),
    Preset("a100", "A100, A30", "8.0", CURRENT, "8.6", "11.8 on", _ALL, "24-80", ""),
    Preset("rtx30", "RTX 30, A10", "8.6", CURRENT, "8.6", "11.8 on", _ALL, "8-24", ""),
    Preset("rtx40", "RTX 40, L4", "8.9", CURRENT, "8.6", "11.8 on", _ALL, "8-24", ""),
    Preset("h100", "H100, H200", "9.0", CURRENT, "8.6", "11.8 on", _ALL, "80-141", ""),
    Preset("b200", "B200", "10.0", CURRENT, "10.8", "12.8 on", _ALL, "192", ""),
    Preset("rtx50", "RTX 50", "12.0", CURRENT, "10.8", "12.8 on", _ALL, "8-32", ""),
    Preset("jetson-xavier", "Xavier", "7.2", "8.5.2", "-", "11.4", _ALL, "8-64",
        "JetPack 5.1 ends at TensorRT 8.5.2 and Python 3.8, too old for this project", True),
    Preset("jetson-orin", "Orin", "8.7", CURRENT, "8.6", "12.2 on", _ALL, "4-64",
        "JetPack 6.0 has TensorRT 8.6.2, 6.1 and 6.2 have 10.3, 7.2.2 has 11.4; memory is shared "
        "with the CPU: fp16 and a small workspace (--workspace)", True),
    Preset("jetson-thor", "Thor", "11.0", CURRENT, "10.13", "13 on", _ALL, "128",
        "JetPack 7; memory is shared with the CPU", True),
)  # fmt: skip  # a table reads better than one value a line


def find_presets(text: str) -> list[Preset]:
    """``rtx30,rtx40`` or ``sm86,8.9`` -> presets, one for every entry.

    Raises:
        InputError: a name is not known; the message lists those that are.
    """
    found = [_find(entry.strip().lower()) for entry in text.split(",") if entry.strip()]
    if not found:
        raise InputError(
            f"what to build for (--for) is {text!r}, expected for example rtx30 or sm86,sm89"
        )
    return found


def _find(name: str) -> Preset:
    match = re.fullmatch(r"(?:sm_?(\d+)|(\d+)\.)(\d)", name)
    capability = f"{match[1] or match[2]}.{match[3]}" if match else ""
    for preset in PRESETS:
        if name == preset.name or capability == preset.compute_capability:
            return preset
    if not capability:
        names = ", ".join(preset.name for preset in PRESETS)
        raise InputError(
            f"the device {name!r} (--for) is unknown, expected one of {names}, or a compute "
            "capability like sm86"
        )
    return Preset(
        name, "", capability, CURRENT, "-", "", "", "", "not in this project's table of devices"
    )


def check_for(presets: Sequence[Preset], library: Library) -> None:
    """Refuse what a library cannot build for, and say what can.

    Raises:
        EngineBuildError: the device is not supported by this flavour or version.
    """
    for preset in presets:
        if library.flavour is Flavour.RTX:
            _check_rtx(preset, library)
        else:
            _check_tensorrt(preset, library)


def _check_rtx(preset: Preset, library: Library) -> None:
    if preset.compute_capability in library.compute_capabilities:
        return
    targets = ", ".join(f"sm{c.replace('.', '')}" for c in library.compute_capabilities)
    if preset.jetson:
        hint = "build on the Jetson with TensorRT (--backend tensorrt)"
    else:
        old = preset.last_tensorrt != CURRENT
        version = f" {preset.last_tensorrt} or earlier" if old else ""
        hint = f"build on a machine that has one, with TensorRT{version} (--backend tensorrt)"
    raise EngineBuildError(
        f"{library.title} does not build for {preset.name} ({preset.sm}), it builds for {targets}; "
        f"{hint}"
    )


def _check_tensorrt(preset: Preset, library: Library) -> None:
    if preset.last_tensorrt != CURRENT and _parts(library.version) > _parts(preset.last_tensorrt):
        hint = (
            preset.note
            if preset.jetson
            else f'install it with pip install "tensorrt-cu12=={preset.last_tensorrt}", and a '
            "CUDA 12 driver or toolkit"
        )
        raise EngineBuildError(
            f"TensorRT {library.version} does not support {preset.name} ({preset.sm}), TensorRT "
            f"{preset.last_tensorrt} is the last that does; {hint}"
        )
    if preset.first_tensorrt != "-" and _parts(library.version) < _parts(preset.first_tensorrt):
        raise EngineBuildError(
            f"TensorRT {library.version} does not know {preset.name} ({preset.sm}), TensorRT "
            f"{preset.first_tensorrt} is the first that does; upgrade it"
        )


def check_here(presets: Sequence[Preset], gpu_name: str, compute_capability: str) -> None:
    """Refuse to build for a GPU other than this machine's, which TensorRT cannot do.

    Raises:
        EngineBuildError: a preset has another compute capability than the GPU that is here.
    """
    for preset in presets:
        if preset.compute_capability != compute_capability:
            where = "on the Jetson" if preset.jetson else f"on a machine with a {preset.devices}"
            raise EngineBuildError(
                f"TensorRT builds for the GPU of this machine, {gpu_name} (compute capability "
                f"{compute_capability}), and {preset.name} (--for) is {preset.compute_capability}; "
                f"build {where}, or with TensorRT-RTX (--backend tensorrt-rtx) if it is among its "
                "targets"
            )


def _parts(version: str) -> tuple[int, ...]:
    """The first three numbers of a version: 10.4.0.26 is no later than 10.4.0."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
