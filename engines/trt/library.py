"""TensorRT's two flavours: importing them, what a version can do, and what it says at work."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
from collections import deque
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, cast

from dyninfer.engines.trt.api import Module
from dyninfer.errors import BackendUnavailable, EngineBuildError
from dyninfer.installing import pip_install
from dyninfer.plain_text import plain

logger = logging.getLogger("dyninfer.tensorrt")


class Flavour(str, Enum):
    """NVIDIA's two inference libraries with nearly one interface; values are backend names."""

    TENSORRT = "tensorrt"
    RTX = "tensorrt-rtx"

    @property
    def module(self) -> str:
        """The name to import."""
        return self.value.replace("-", "_")

    @property
    def product(self) -> str:
        """The product's name."""
        return "TensorRT-RTX" if self is Flavour.RTX else "TensorRT"


@dataclass(frozen=True)
class Library:
    """An imported TensorRT and what its version can do.

    Everything here is found by looking for the member that is needed, never by the version.
    """

    flavour: Flavour
    module: Module
    version: str

    @property
    def title(self) -> str:
        """Name and version, for messages."""
        return f"{self.flavour.product} {self.version}"

    def has(self, name: str) -> bool:
        """Whether there is a class, or a "Class.member", that some versions or flavours lack."""
        owner: Any = self.module
        for part in name.split("."):
            owner = getattr(owner, part, None)
        return owner is not None

    @property
    def network_flags(self) -> int:
        """Flags of ``create_network``: explicit batch and the file's own types, where not fixed.

        TensorRT 8 must be told the first and does not know the second; 11 and RTX always do both.
        """
        known = self.module.NetworkDefinitionCreationFlag
        names = ("EXPLICIT_BATCH", "STRONGLY_TYPED")
        return sum(1 << int(getattr(known, name)) for name in names if hasattr(known, name))

    @property
    def keeps_types(self) -> bool:
        """Whether networks compute in the types that their ONNX files say; TensorRT 8 may not."""
        return self.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED")

    @property
    def must_share_profiles(self) -> bool:
        """Whether an engine allows a second context only where it was built for that.

        So does TensorRT 8.6; later versions always share (``PROFILE_SHARING_0806``).
        """
        return not self.keeps_types and self.has("PreviewFeature.PROFILE_SHARING_0806")

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """What it builds for without having such a GPU, for example ("7.5", "8.6"); or nothing."""
        if not self.has("ComputeCapability"):
            return ()
        names = (re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(self.module.ComputeCapability))
        found = [(int(match[1]), int(match[2])) for match in names if match]
        return tuple(f"{major}.{minor}" for major, minor in sorted(found))

    def compute_capability(self, dotted: str) -> Any:
        """The library's own constant for "8.6"."""
        return getattr(self.module.ComputeCapability, f"SM{dotted.replace('.', '')}")


def installed_flavour() -> Flavour:
    """The flavour to use where nobody said which: TensorRT, but where only the other is found."""
    for flavour in Flavour:
        spec = importlib.util.find_spec(flavour.module)
        if spec is not None and spec.origin:  # no folder, such as type stubs leave behind
            return flavour
    return Flavour.TENSORRT


@lru_cache(maxsize=2)
def load_library(flavour: Flavour) -> Library:
    """Import a flavour.

    Raises:
        BackendUnavailable: it is not installed, lacks its shared libraries, or is too old; the
            message says what to install.
    """
    install = pip_install(flavour.value)
    try:
        module: Any = importlib.import_module(flavour.module)
    except ModuleNotFoundError as error:
        if error.name != flavour.module:
            raise _lacks_libraries(flavour, error) from error
        raise BackendUnavailable(
            f"{flavour.product} is not installed; install it with {install}"
        ) from None
    except (ImportError, OSError) as error:
        raise _lacks_libraries(flavour, error) from error
    if not hasattr(module, "Builder"):  # a folder of that name, such as type stubs leave behind
        raise BackendUnavailable(
            f"{flavour.product} is not installed (a package {flavour.module!r} was found that has "
            f"no code); install it with {install}"
        )
    version = str(module.__version__)
    if not hasattr(module, "HardwareCompatibilityLevel"):  # came with 8.6
        raise BackendUnavailable(
            f"{flavour.product} {version} is too old, expected 8.6 or later; upgrade it with "
            f"{install}"
        )
    return Library(flavour, cast(Module, module), version)


def _lacks_libraries(flavour: Flavour, error: Exception) -> BackendUnavailable:
    """The error for a Python package that is there but lacks something that it loads."""
    reason = " ".join(str(error).split())
    missing = re.search(r"(lib[\w.+-]*\.so[\w.]*|\w+\.dll)", reason)
    what = missing[1] if missing else "a library that it needs"
    if what.startswith(("libcuda.", "nvcuda.")):
        hint = "install the NVIDIA driver, which brings it"
    elif flavour is Flavour.RTX:
        hint = f"reinstall it with {pip_install(flavour.value, options='--force-reinstall')}"
    else:
        hint = (
            "install the libraries with pip install tensorrt-cu12-libs (for CUDA 12) or "
            "tensorrt-cu13-libs, or add the folder that holds them to LD_LIBRARY_PATH"
        )
    return BackendUnavailable(
        f"{flavour.product}'s Python package is installed but {what} cannot be loaded ({reason}); "
        f"{hint}"
    )


class LogCollector:
    """The library's latest errors in the order they came; several threads may append to them."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=100)

    def reason(self) -> str:
        """The last error, which is the only place where a failed build says why."""
        return self.errors[-1] if self.errors else "the library gave no reason"


def make_logger(library: Library) -> tuple[Any, LogCollector]:
    """An ``ILogger`` of this library, and where it collects.

    The logger must stay alive as long as anything that was made with it.
    """
    base: Any = library.module.ILogger
    collector = LogCollector()

    class Logger(base):  # type: ignore[misc]  # the base class is known only at run time
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (base.INTERNAL_ERROR, base.ERROR):
                collector.errors.append(" ".join(msg.split()))
            elif severity != base.WARNING:
                return
            logger.debug("%s", plain(msg))

    return Logger(), collector


def start(library: Library, kind: str, logger: Any, messages: LogCollector) -> Any:
    """The library's "Builder" or "Runtime", which must not be null.

    Without a usable driver some versions return an object around a null pointer, whose first call
    ends the process; then only the log says so.

    Raises:
        EngineBuildError: there is none; the message has the library's reason.
    """
    messages.errors.clear()
    try:
        made = getattr(library.module, kind)(logger)
    except (TypeError, RuntimeError) as error:  # how a null pointer from C++ arrives
        raise _no(library, kind, messages, str(error)) from error
    if messages.errors:
        raise _no(library, kind, messages, "")
    return made


def _no(library: Library, kind: str, messages: LogCollector, otherwise: str) -> EngineBuildError:
    reason = messages.errors[-1] if messages.errors else otherwise
    return EngineBuildError(
        f"{library.title} cannot start a {kind.lower()}: {' '.join(reason.split())}; check the "
        "NVIDIA driver with nvidia-smi"
    )
