"""What an NVIDIA Jetson is and how it is set, by jtop where it runs, else by files.

Not run on a Jetson yet. Files as NVIDIA's Jetson Linux developer guide has them for L4T 35 and 36
(JetPack 5 and 6). jtop (jetson-stats) is used where the user has it and its service runs, and is
never a dependency; its names are those of version 7.2.2, read in its source.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dyninfer.benchmarks.machine.cpu_state import read_cpu_state
from dyninfer.benchmarks.machine.host import matching, read_number, read_text

Jtop = Any
"""A connection to the service, which serves as a context.

Read of it: ``board["hardware"]``, ``nvpmodel.name`` and ``jetson_clocks.get_enable()`` (either may
be None), ``power["tot"]`` with ``power`` in mW, and ``ok(spin=True)``, which raises what broke it.
"""
PATIENCE_S = 15.0
"""jtop waits without end for a service that hangs, and some seconds for the system's libraries."""
_MODELS = (Path("proc/device-tree/model"), Path("sys/firmware/devicetree/base/model"))
_RELEASE = Path("etc/nv_tegra_release")
_DEVFREQ = Path("sys/class/devfreq")
_MODE_NOW, _MODES = Path("var/lib/nvpmodel/status"), Path("etc/nvpmodel.conf")
# of Orin: ga10b until JetPack 5, gpu from 6; of Xavier: gv11b; of TX2: gp10b; of Thor: gpu-gpc-0
_GPU_NAME = re.compile(r"\.?(gpu|ga10b|gv11b|gp10b|gb10b)(-gpc-0)?$")
_HZ_PER_MHZ = 1e6


@dataclass(frozen=True)
class Jetson:
    """A Jetson module; None where it cannot be told.

    Attributes:
        model: as the device tree names it.
        l4t: release of Jetson Linux, such as ``36.4.3``.
        jetpack: the JetPack that it belongs to, as jtop knows it.
        power_mode: of nvpmodel: which cores are on, and how far clocks may go.
        clocks_locked: whether jetson_clocks holds the clocks at the mode's maximum.
        gpu_min_mhz, gpu_max_mhz: clocks that the GPU's governor may choose.
        source: what told power mode and clocks.
    """

    model: str
    l4t: str | None = None
    jetpack: str | None = None
    power_mode: str | None = None
    clocks_locked: bool | None = None
    gpu_min_mhz: float | None = None
    gpu_max_mhz: float | None = None
    source: str = "files"


def read_jetson(
    root: Path = Path("/"), open_jtop: Callable[[], Jtop] | None = None
) -> tuple[Jetson | None, dict[str, str]]:
    """The Jetson that this is, or None, and for what cannot be told the reason."""
    model = read_jetson_model(root)
    if model is None:
        return None, {}
    found = _from_files(root, model)
    missing = {}
    connect, version = (open_jtop, "") if open_jtop is not None else load_jtop()
    if connect is None:
        missing["jtop"] = f"{version}; power mode and clocks come from files"
    else:
        asked, why = within(PATIENCE_S, lambda: _ask_jtop(connect, found, version))
        if asked is not None:
            return asked, missing
        missing["jtop"] = f"{why}; power mode and clocks come from files"
    mode = power_mode_by_files(root)
    if mode is None:
        missing["power mode"] = (
            f"/{_MODE_NOW} is not visible (a container? ask on the host: nvpmodel -q)"
        )
    if found.clocks_locked is None:
        missing["jetson_clocks"] = "the clocks' limits cannot be read: sudo jetson_clocks --show"
    return replace(found, power_mode=mode), missing


def read_jetson_model(root: Path = Path("/")) -> str | None:
    """What the device tree calls this Jetson; None if it is none."""
    model = next((text for path in _MODELS if (text := read_text(root / path))), "")
    if "jetson" in model.lower():
        return model
    if (root / _RELEASE).exists():  # a container may show the release and no device tree
        return model or "Jetson of unknown model"
    return None


def l4t_release(text: str) -> str | None:
    """``36.4.3`` from the first line of ``/etc/nv_tegra_release``."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else None


def gpu_folder(root: Path) -> Path | None:
    """The devfreq folder of the GPU that shares the chip with the processor."""
    folders = matching(root / _DEVFREQ, "*")
    return next((folder for folder in folders if _GPU_NAME.search(folder.name)), None)


def power_mode_by_files(root: Path) -> str | None:
    """The mode that nvpmodel noted last (``pmode:0002``), by the name that its table has for it."""
    now = re.search(r"pmode:\s*(\d+)", read_text(root / _MODE_NOW))
    if now is None:
        return None
    names = re.findall(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)", read_text(root / _MODES))
    known: dict[int, str] = {int(number): name for number, name in names}
    return known.get(int(now[1]), f"mode {int(now[1])}")


def _from_files(root: Path, model: str) -> Jetson:
    """Clocks count as locked by jtop's rule: every governor has one clock to choose from."""
    gpu = gpu_folder(root)
    low = None if gpu is None else read_number(gpu / "min_freq")
    high = None if gpu is None else read_number(gpu / "max_freq")
    cpu_locked = read_cpu_state(root)[0].locked
    known = low is not None and high is not None and cpu_locked is not None
    return Jetson(
        model=model,
        l4t=l4t_release(read_text(root / _RELEASE)),
        clocks_locked=bool(cpu_locked and low == high) if known else None,
        gpu_min_mhz=None if low is None else low / _HZ_PER_MHZ,
        gpu_max_mhz=None if high is None else high / _HZ_PER_MHZ,
    )


def _ask_jtop(connect: Callable[[], Jtop], found: Jetson, version: str) -> Jetson:
    """Never takes the serial number, which lies beside the model."""
    with connect() as jtop:
        hardware, mode, clocks = jtop.board["hardware"], jtop.nvpmodel, jtop.jetson_clocks
        return replace(
            found,
            model=hardware.get("Module") or hardware.get("Model") or found.model,
            l4t=hardware.get("L4T") or found.l4t,
            jetpack=hardware.get("Jetpack") or None,
            power_mode=None if mode is None else mode.name,
            clocks_locked=found.clocks_locked if clocks is None else clocks.get_enable(),
            source=f"jtop {version}".strip(),
        )


def load_jtop() -> tuple[Callable[[], Jtop] | None, str]:
    """What opens a connection, and the version; or None and why there is none."""
    try:
        module = importlib.import_module("jtop")
    except ImportError:
        return None, "jetson-stats is not installed"
    return module.jtop, str(getattr(module, "__version__", ""))


def within(seconds: float, act: Callable[[], Any]) -> tuple[Any, str]:
    """What an act in a thread of its own gives, or None and why it gave nothing in time.

    An exception is turned into its first line: jtop's say over several what to install.
    """
    found: list[Any] = []
    failed: list[str] = []

    def run() -> None:
        try:
            found.append(act())
        except Exception as error:  # whatever goes wrong in the service comes back as it was raised
            failed.append((str(error) or type(error).__name__).splitlines()[0])

    thread = threading.Thread(target=run, daemon=True, name="jtop")
    thread.start()
    thread.join(seconds)
    if found:
        return found[0], ""
    return None, failed[0] if failed else f"no answer within {seconds:g} s"
