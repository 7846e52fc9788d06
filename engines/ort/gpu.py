"""What ONNX Runtime is told of a GPU: plugins, TensorRT's profiles and caches, pinned memory.

Option names are those of the packages onnxruntime-gpu 1.23 to 1.31; nothing here has run on a GPU.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Stage
from dyninfer.bundle.unpacking import user_cache
from dyninfer.engines.ort.library import ort
from dyninfer.engines.protobuf import fields, varint
from dyninfer.errors import EngineBuildError
from dyninfer.foreign_errors import reason_of

USUAL_BATCH = 4
_GRAPH, _INITIALIZER, _DATA_TYPE, _FLOAT16 = 7, 5, 2, 10  # numbers of onnx.proto
_NO_PROFILE = "dynamic shape inputs with associated profiles"
_OLD_CACHE = "could not deserialize engine from cache"


def available_providers() -> list[str]:
    """The providers that ONNX Runtime was built with, and those that plugins have registered.

    From 1.32 on the CUDA provider may be a plugin, which its package registers when it is imported.
    """
    devices = ort.get_ep_devices() if hasattr(ort, "get_ep_devices") else []
    return list(dict.fromkeys([*ort.get_available_providers(), *(d.ep_name for d in devices)]))


def why_not_loaded(provider: str) -> str:
    """What keeps the library of ``"cuda"`` or ``"tensorrt"`` from being loaded; "" if nothing does.

    Only for after ONNX Runtime itself has tried: loaded before that, the library finds no host.
    """
    name = f"onnxruntime_providers_{provider}"
    file = f"{name}.dll" if os.name == "nt" else f"lib{name}.so"
    path = Path(ort.__file__).parent / "capi" / file
    try:
        if path.exists():
            ctypes.CDLL(str(path))
    except OSError as error:
        return reason_of(error)
    return ""


def plugin_device(provider: str, number: int) -> Any | None:
    """A plugin's device of this number; None where the provider is built in, or is not there.

    It is the one that says so in its options, else that in this place among the plugin's devices.
    """
    if provider in ort.get_available_providers() or not hasattr(ort, "get_ep_devices"):
        return None
    found = [device for device in ort.get_ep_devices() if device.ep_name == provider]
    numbers = [device.ep_options.get("device_id") for device in found]
    if None in numbers:
        return found[number] if number < len(found) else None
    return dict(zip(numbers, found, strict=True)).get(str(number))


def add_providers(options: Any, providers: list[Any], number: int) -> list[Any] | None:
    """Providers as a session takes them; None where ``options`` has them now.

    A session finds a plugin's provider through the options alone, and those of the session itself
    would take its place.
    """
    named = [(p, {}) if isinstance(p, str) else p for p in providers]
    plugins = {name: plugin_device(name, number) for name, _ in named[:-1]}
    if not any(plugins.values()):
        return providers
    for name, chosen in named[:-1]:
        if (device := plugins[name]) is not None:
            own = {key: value for key, value in chosen.items() if key != "device_id"}
            options.add_provider_for_devices([device], own)
        else:
            options.add_provider(name, chosen)
    return None  # the CPU's comes last by itself


def pinned_zeros(count: int, dtype: np.dtype[Any], provider: str, number: int) -> Any:
    """Host memory of zeros that a GPU copies from and to without a stop on the way, or None.

    ONNX Runtime gives it through the device of a plugin; of a provider that is built in, its Python
    package gives none.
    """
    device = plugin_device(provider, number)
    info = device and device.memory_info(ort.OrtDeviceMemoryType.HOST_ACCESSIBLE)
    if not info:
        return None
    value = ort.OrtValue.ortvalue_from_shape_and_type([count], dtype, memory_info=info)
    memory: npt.NDArray[Any] = value.numpy()  # which keeps the value alive
    memory[:] = 0
    return memory


def tensorrt_options(stage: Stage, path: Path, batch: int, device_name: str) -> dict[str, str]:
    """What the TensorRT provider is told of a stage that gets at most ``batch`` images.

    One profile for all batches, or it would build an engine for every size it meets. TensorRT may
    use float16 or 8 bits only where the file does: it takes the flags for the whole stage, so that
    ``dyninfer verify`` should look at what it makes of layers that the file keeps in float32.
    Engines are kept in the user's cache, in a folder for everything that they depend on, for
    TensorRT's provider looks at the names of nodes and not at weights.
    """
    half, quantised = _precisions(path)
    options = {"trt_fp16_enable": half, "trt_int8_enable": quantised}
    chosen = {name: "True" for name, enabled in options.items() if enabled}
    if (folder := engine_cache(stage, path, device_name)) is not None:
        chosen |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(folder),
        }
    return chosen | _profile(stage, 1 if stage.rows_per_run is not None else batch)


def _profile(stage: Stage, batch: int) -> dict[str, str]:
    """Shapes of all inputs at one image, the usual batch and the largest; nothing if unknown."""
    sizes = {"min": 1, "opt": min(USUAL_BATCH, batch), "max": batch}
    profile = {}
    for which, size in sizes.items():
        shapes = [(spec.name, spec.shape_for(size)) for spec in stage.inputs]
        if any(shape is None or re.search("[:,]", name) for name, shape in shapes):
            return {}
        said = (f"{name}:{'x'.join(map(str, shape or ()))}" for name, shape in shapes)
        profile[f"trt_profile_{which}_shapes"] = ",".join(said)
    return profile


def _precisions(path: Path) -> tuple[bool, bool]:
    """Whether a file stores weights in float16, and whether it quantises anything."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(_half_weights(data)), data.find(b"QuantizeLinear") >= 0


def _half_weights(data: mmap.mmap) -> Iterator[bool]:
    for number, _, start, stop in fields(data, 0, len(data)):
        if number != _GRAPH:
            continue
        for inner, _, begin, end in fields(data, start, stop):
            if inner == _INITIALIZER:
                for key, _, a, b in fields(data, begin, end):
                    if key == _DATA_TYPE:
                        yield varint(data, a, b)[0] == _FLOAT16


def engine_cache(stage: Stage, path: Path, device_name: str) -> Path | None:
    """Where a stage's engines are kept; None where the user has no cache that can be written."""
    weights = stage.weights.sha256 if stage.weights else ""
    depends = [ort.__version__, device_name, file_sha256(path), weights]
    key = hashlib.sha256("\n".join(depends).encode()).hexdigest()[:16]
    try:
        folder = user_cache("onnxruntime-tensorrt") / key
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder


def open_with(open_session: Callable[[Mapping[str, str]], Any], options: Mapping[str, str]) -> Any:
    """A session with TensorRT's options, or without those that cannot be kept.

    A profile must name the inputs of every part that TensorRT runs: where it cannot run the whole
    stage these are not known, and its own profiles follow the shapes that come. Engines of another
    TensorRT are built again.
    """
    try:
        return open_session(options)
    except EngineBuildError as error:
        if _NO_PROFILE in str(error):
            options = {n: v for n, v in options.items() if not n.startswith("trt_profile")}
        elif _OLD_CACHE in str(error) and "trt_engine_cache_path" in options:
            folder = Path(options["trt_engine_cache_path"])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        else:
            raise
    return open_session(options)
