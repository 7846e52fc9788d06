"""What ``dyninfer build`` is asked for."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from dyninfer.builds.spec import INPUT, IO
from dyninfer.bundle.manifest import Precision
from dyninfer.cli.options import TrustedKeyOption
from dyninfer.engines import ON_HOST
from dyninfer.engines.trt.library import Library
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.exporters.precision.settings import CalibrationMethod, Int8Target, types_for

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_engine_option = functools.partial(typer.Option, rich_help_panel="TensorRT")
_picture_option = functools.partial(typer.Option, rich_help_panel="fp16 and int8")


def parse_bytes(text: str) -> int:
    """``512MB``, ``2G`` or ``1073741824`` -> bytes, in powers of 1024.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise typer.BadParameter(f"{text!r} is not a size, expected for example 512MB or 2GB")
    return size


class BackendChoice(str, Enum):
    """Backends by the names that users know."""

    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    AUTO = "auto"


class InputChoice(str, Enum):
    """Element types of image inputs."""

    FLOAT32 = "float32"
    UINT8 = "uint8"


class IoChoice(str, Enum):
    """Precisions of what stages hand on."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


@dataclass(frozen=True)
class BuildOptions:
    """What is built, how TensorRT does it, and what a conversion is made and measured with."""

    backend: Annotated[
        BackendChoice | None,
        typer.Option(
            help="Backend that will run it; onnxruntime and openvino take only fp16 and int8. Each "
            "runs the files of the other, too, but int8 is slower there. **auto** measures which "
            "of those two, and which precision, is fastest for each stage on this machine. "
            "Default: tensorrt, or tensorrt-rtx where only that is installed.",
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            "-p",
            help="fp32, fp16 or int8 for all stages but routers, or one for each stage, such as "
            "first=int8,router=fp32,second=fp16. Default: as exported.",
        ),
    ] = None
    device: Annotated[str, typer.Option(help="GPU to build on.")] = "cuda:0"
    trusted_key: TrustedKeyOption = None
    force: Annotated[bool, typer.Option("--force", help="Build again even if a build fits.")] = (
        False
    )
    for_: Annotated[
        str | None,
        _engine_option(
            "--for",
            help="Devices by name or compute capability, such as rtx30,rtx40 or sm86. "
            "**list** shows them all. Default: this machine's GPU.",
        ),
    ] = None
    batch: Annotated[
        str | None,
        _engine_option(
            help="Batch sizes, MIN:OPT:MAX; tuned for each of the three. Default: 1:4:16. With "
            "--backend auto one number, beside single images, or **auto**, which finds the best: "
            "its default."
        ),
    ] = None
    workspace: Annotated[
        int | None,
        _engine_option(
            parser=parse_bytes,
            metavar="SIZE",
            help="Maximum scratch memory of a kernel, such as 512MB or 2GB. Default: no limit.",
        ),
    ] = None
    timing_cache: Annotated[
        Path | None,
        _engine_option(
            help="File that keeps kernel timings from one build to the next. Default: one for this "
            "GPU and version in the user's cache folder."
        ),
    ] = None
    version_compatible: Annotated[
        bool,
        _engine_option(
            "--version-compatible",
            help="Make engines that later versions of TensorRT run, too; they contain code that "
            "runs when they are opened.",
        ),
    ] = False
    hardware_compatible: Annotated[
        bool,
        _engine_option(
            "--hardware-compatible", help="Make engines for every GPU from Ampere on; slower."
        ),
    ] = False
    input_: Annotated[
        InputChoice,
        typer.Option(
            "--input",
            help="What stages read of pictures: uint8, pixels that they normalise themselves, a "
            "quarter of the bytes; or float32.",
        ),
    ] = InputChoice.FLOAT32
    io: Annotated[
        IoChoice | None,
        typer.Option(
            "--io",
            help="What feature maps travel in to the next stage. fp16 is for stages in fp16, with "
            "TensorRT also in int8, and then what is not in 8 bits there is in it as well; int8 is "
            "for stages in int8 on an x86 CPU, where all who read a map round it so anyway. "
            "Default: fp16 with TensorRT (with 8.6 not where a stage is in int8); on a CPU int8 "
            "for stages in int8, else fp32.",
        ),
    ] = None
    images: Annotated[
        list[Path] | None,
        _picture_option(
            "--images",
            "-i",
            help="Pictures or folders like those to be run later: int8 takes its ranges from most "
            "of them, and the rest show what it costs. Default: the built-in photos.",
        ),
    ] = None
    annotations: Annotated[
        Path | None,
        _picture_option(
            "--annotations",
            "-a",
            help="What is in the pictures, as for **dyninfer eval**; adds AP, or of a classifier "
            "top-1, to the comparison with fp32.",
        ),
    ] = None
    gate: Annotated[
        str | None,
        _picture_option(
            "--gate",
            metavar="LIMITS",
            help="The most that may be lost, such as ap=0.3,flips=1%,differ=2%: points of AP (of a "
            "classifier top-1), decisions that flip, results that differ. A stage that loses more "
            "falls back to the next higher precision; what cannot stay within is not built.",
        ),
    ] = None
    method: Annotated[
        CalibrationMethod, _picture_option(help="How the ranges of int8 are chosen.")
    ] = CalibrationMethod.PERCENTILE

    @property
    def profile(self) -> BatchProfile:
        """The batch sizes of engines; InputError where they are none."""
        return BatchProfile.parse("1:4:16" if self.batch is None else self.batch)

    @property
    def on_host(self) -> bool:
        """Whether the backend runs ONNX files as they are, on a CPU."""
        return self.backend is not None and self.backend.value in ON_HOST

    def travel(
        self, plan: Mapping[str, Precision], library: Library | None = None
    ) -> dict[str, str]:
        """The options of a build that say in what types tensors travel.

        ``library`` is the TensorRT that builds; TensorRT 8.6 reads scales in float16 as if they
        were float32, so that there nothing is in float16 where a stage is in int8.

        Raises:
            typer.BadParameter: maps cannot travel so, because no stage computes in it.
        """
        planned = {*plan.values()}
        unsigned = not types_for(Int8Target.CPU).signed  # what a map in 8 bits must be
        eight_bits = library is None and Precision.INT8 in planned and unsigned
        if self.io is IoChoice.INT8 and not eight_bits:
            raise typer.BadParameter(
                f"--io int8 goes with stages in int8 for {' or '.join(ON_HOST)} on x86; leave it "
                "out, or give --backend and --precision"
            )
        computed = planned & {Precision.FP16, *([Precision.INT8] if library else [])}
        single = library is not None and Precision.INT8 in planned and not library.keeps_types
        if self.io is IoChoice.FP16 and not computed:
            raise typer.BadParameter(
                "--io fp16 goes with stages in fp16 (or with TensorRT in int8), and there is none; "
                "give --precision"
            )
        if self.io is IoChoice.FP16 and library is not None and single:
            raise typer.BadParameter(
                f"--io fp16 and int8 go together from TensorRT 10 on, and this is {library.title}; "
                "leave --io out"
            )
        usual = bool(computed) and library is not None and not single
        half = self.io is IoChoice.FP16 or (self.io is None and usual)
        found = {IO: IoChoice.FP16.value} if half else {}
        if eight_bits and self.io in (None, IoChoice.INT8):
            found = {IO: IoChoice.INT8.value}
        return found | ({INPUT: self.input_.value} if self.input_ is InputChoice.UINT8 else {})

    def refuse_engine_options(self) -> None:
        """Refuse what was said of engines, but for the batch, where none is built."""
        of_engines = (
            "for_",
            "workspace",
            "timing_cache",
            "version_compatible",
            "hardware_compatible",
        )
        given = [name for name in of_engines if getattr(self, name)]
        if given:
            wrong = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in given)
            raise typer.BadParameter(f"{wrong} go with TensorRT, not with {' or '.join(ON_HOST)}")
