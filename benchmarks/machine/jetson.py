"""What an NVIDIA Jetson is and how it is set, by jtop where it runs, else by files and nvpmodel.

Not run on a Jetson yet. Files as NVIDIA's Jetson Linux developer guide has them for L4T 35 and 36
(JetPack 5 and 6); jtop as in the source of jetson-stats 7.2.2.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dyninfer.benchmarks.machine.cpu_state import read_cpu_state
from dyninfer.benchmarks.machine.files import matching, read_number, read_text
from dyninfer.benchmarks.machine.jtop_api import PATIENCE_S, Jtop, load_jtop, within

_MODELS = (Path("proc/device-tree/model"), Path("sys/firmware/devicetree/base/model"))
_RELEASE = Path("etc/nv_tegra_release")
_DEVFREQ = Path("sys/class/devfreq")
_MODE_NOW, _MODES = Path("var/lib/nvpmodel/status"), Path("etc/nvpmodel.conf")
# of Orin: ga10b until JetPack 5, gpu from 6; of Xavier: gv11b; of TX2: gp10b; of Thor: gpu-gpc-0
_GPU_NAME = re.compile(r"\.?(gpu|ga10b|gv11b|gp10b|gb10b)(-gpc-0)?$")
_HZ_PER_MHZ = 1e6
_COMMAND_PATIENCE_S = 5


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
    mode, why = power_mode_by_files(root), ""
    if mode is None:
        mode, why = power_mode_by_command()
    if mode is None:
        missing["power mode"] = why
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


def power_mode_by_command() -> tuple[str | None, str]:
    """What ``nvpmodel -q`` calls the mode, or None and why it does not say."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None, "nvpmodel is not on the path (a container? ask on the host: nvpmodel -q)"
    try:
        done = subprocess.run(
            [tool, "-q"],
            capture_output=True,
            text=True,
            timeout=_COMMAND_PATIENCE_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"nvpmodel -q: {type(error).__name__}"
    match = re.search(r"NV Power Mode: (\S+)", done.stdout)
    if match is None:
        return None, f"nvpmodel -q names no mode (exit status {done.returncode}); try sudo"
    return match[1], ""


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
