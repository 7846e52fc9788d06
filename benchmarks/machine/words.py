"""A machine in words, and what a careful reader must be told of it, with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.describe import Machine
from dyninfer.benchmarks.machine.gpu import Gpu
from dyninfer.benchmarks.machine.host import Host
from dyninfer.benchmarks.machine.jetson import Jetson
from dyninfer.benchmarks.machine.recorder import MachineLog

Fact = tuple[str, str]
MOST_OTHER_LOAD = 0.1
"""Cores: what others may use before a reader must know of it."""
MOST_RISE_C = 10.0
MOST_CLOCK_SPREAD = 0.02
MOST_GPU_SHARE = 0.02
_SLOW_GOVERNORS = ("powersave", "conservative", "ondemand")
# with these drivers, powersave is no fixed low clock but the processor's own choice
_OWN_CHOICE_DRIVERS = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")


def machine_rows(machine: Machine) -> list[Fact]:
    """What is known, as pairs of name and value; nothing that is not known."""
    rows: list[Fact] = [
        ("processor", machine.cpu),
        ("usable cores", str(machine.usable_cores)),
        ("instruction sets", " ".join(machine.cpu_flags)),
        *(_cpu_rows(machine.cpu_state) if machine.cpu_state is not None else ()),
        ("memory", _said("{:g} GiB", machine.memory_gib)),
        *(_host_rows(machine.host) if machine.host is not None else ()),
        *(_jetson_rows(machine.jetson) if machine.jetson is not None else ()),
        ("NVIDIA driver", machine.nvidia_driver or ""),
        ("CUDA of the driver", machine.cuda_driver or ""),
        ("CUDA toolkit", machine.cuda_toolkit or ""),
    ]
    for index, gpu in enumerate(machine.gpus):
        rows += _gpu_rows(f"GPU {index}" if len(machine.gpus) > 1 else "GPU", gpu)
    rows += [
        ("system", machine.system),
        ("Python", machine.python),
        *((f"  {name}", version) for name, version in machine.versions.items()),
    ]
    rows.append(("load average", _said("{:g} over one minute", machine.load_average_1min)))
    return [(name, value) for name, value in rows if value]


def _cpu_rows(state: CpuState) -> Iterator[Fact]:
    yield "  governor", " ".join(filter(None, (state.governor, _said("({})", state.driver))))
    if state.min_mhz is not None and state.max_mhz is not None:
        locked = {True: ", locked", False: ", not locked", None: ""}[state.locked]
        yield "  clocks allowed", f"{state.min_mhz:.0f} to {state.max_mhz:.0f} MHz{locked}"
    yield "  clock now", _said("{:.0f} MHz", state.current_mhz)
    yield "  highest clock", _said("{:.0f} MHz", state.hardware_max_mhz)
    yield "  boost", _on(state.boost)
    yield "  threads share cores", _yes(state.smt)
    yield "  energy preference", state.energy_preference or ""
    yield "  platform profile", state.platform_profile or ""


def _host_rows(host: Host) -> Iterator[Fact]:
    yield "virtual machine", host.virtual_machine or ""
    yield "container", host.container or ""
    yield "processor quota", _said("{:g} cores", host.cpu_quota_cores)
    yield "memory limit", _said("{:g} GiB", host.memory_limit_gib)
    yield "power", host.power or ""


def _jetson_rows(jetson: Jetson) -> Iterator[Fact]:
    yield "Jetson", jetson.model
    yield "  L4T", " ".join(filter(None, (jetson.l4t, _said("(JetPack {})", jetson.jetpack))))
    yield "  power mode", jetson.power_mode or ""
    yield "  clocks locked", _yes(jetson.clocks_locked)
    if jetson.gpu_min_mhz is not None and jetson.gpu_max_mhz is not None:
        yield "  GPU clocks allowed", f"{jetson.gpu_min_mhz:.0f} to {jetson.gpu_max_mhz:.0f} MHz"
    yield "  told by", jetson.source


def _gpu_rows(label: str, gpu: Gpu) -> Iterator[Fact]:
    capability = _said("({})", gpu.compute_capability)
    yield label, " ".join(filter(None, (gpu.name, capability)))
    yield "  memory", _said("{:g} GiB", gpu.memory_gib)
    if gpu.power_limit_w is not None:
        of = _said(" ({:.0f} W as shipped)", gpu.default_power_limit_w)
        yield "  power limit", f"{gpu.power_limit_w:.0f} W{of}"
    yield "  persistence mode", _on(gpu.persistence)
    yield "  compute mode", gpu.compute_mode or ""
    yield "  SM clock", _of_most(gpu.sm_mhz, gpu.max_sm_mhz, " MHz")
    yield "  memory clock", _of_most(gpu.memory_mhz, gpu.max_memory_mhz, " MHz")
    yield "  application clock", _said("{:.0f} MHz", gpu.application_sm_mhz)
    yield "  ECC", _on(gpu.ecc)
    yield "  MIG", _on(gpu.mig)
    yield "  PCIe generation", _of_most(gpu.pcie_generation, gpu.max_pcie_generation, "")
    yield "  PCIe lanes", _of_most(gpu.pcie_width, gpu.max_pcie_width, "")


def _said(form: str, value: float | str | None) -> str:
    return form.format(value) if value is not None else ""


def _on(value: bool | None) -> str:
    return {True: "on", False: "off", None: ""}[value]


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def _of_most(now: float | None, most: float | None, unit: str) -> str:
    if now is None:
        return ""
    return f"{now:.0f}{unit}" if most is None else f"{now:.0f} of {most:.0f}{unit}"


def warnings_of(machine: Machine, log: MachineLog) -> list[str]:
    """One line for every doubt about times that were measured on this machine, gravest first."""
    return [
        *disturbances_of(log),
        *_limits(machine),
        *_clocks(machine, log),
        *_gpus(machine, log),
        *_drifting(log),
        *([f"the recorder {log.missing['sampling']}"] if "sampling" in log.missing else ()),
    ]


def disturbances_of(log: MachineLog) -> list[str]:
    """What slowed the machine down while it was watched: its own limits, and other work."""
    return [*_held_back(log), *_others(log)]


def _held_back(log: MachineLog) -> Iterator[str]:
    for reason in log.throttled:
        yield (
            f"slowed down while measuring ({reason}): cool it, raise the limit or lock lower "
            "clocks, and measure again"
        )


def _others(log: MachineLog) -> Iterator[str]:
    load = log.readings.get("other_load_cores")
    if load is not None and load.median > MOST_OTHER_LOAD:
        yield (
            f"other processes used {load.median:.2g} cores (median, up to {load.high:.2g}): stop "
            "them and measure again; ratios within the run suffer less than times"
        )
    elif load is not None and load.high > 1:
        yield f"other processes used up to {load.high:.2g} cores for a while: distrust the tail"
    steal = log.readings.get("steal_cores")
    if steal is not None and steal.high > MOST_OTHER_LOAD:
        yield (
            f"the hypervisor took up to {steal.high:.2g} cores away (steal): use a dedicated host"
        )
    share = log.readings.get("gpu_other_share")
    if share is not None and share.high > MOST_GPU_SHARE:
        yield f"other processes kept the GPU busy up to {share.high:.0%} of the time: stop them"


def _limits(machine: Machine) -> Iterator[str]:
    host = machine.host
    if host is None:
        return
    quota = host.cpu_quota_cores
    if quota is not None and quota < machine.usable_cores:
        yield (
            f"a control group allows {quota:g} of {machine.usable_cores} cores: threads are "
            "stopped in the middle of a run; lift the quota (docker run without --cpus) or pin "
            "to whole cores (--cpuset-cpus)"
        )
    if host.power == "battery":
        yield "runs on battery: plug it in, most machines slow down without mains"
    if host.virtual_machine is not None:
        yield (
            f"a virtual machine ({host.virtual_machine}): clocks and neighbours are out of "
            "sight; trust ratios within this run, not times"
        )


def _clocks(machine: Machine, log: MachineLog) -> Iterator[str]:
    state = machine.cpu_state
    if state is not None and state.governor is not None:
        slow = next((g for g in _SLOW_GOVERNORS if g in state.governor.split(", ")), None)
        own = slow == "powersave" and state.driver in _OWN_CHOICE_DRIVERS
        if slow is not None and not own and not state.locked:
            yield (
                f"the processor's governor is {slow}, which starts slow: sudo cpupower "
                "frequency-set -g performance"
            )
        preference = state.energy_preference or ""
        if own and preference not in ("", "performance"):
            yield (
                f"the processor's energy preference is {preference}: sudo cpupower "
                "frequency-set -g performance"
            )
    if state is not None and state.platform_profile in ("low-power", "quiet", "cool"):
        yield (
            f"the firmware's profile is {state.platform_profile}: echo performance | sudo tee "
            "/sys/firmware/acpi/platform_profile"
        )
    if state is not None and state.locked is False:
        clock = log.readings.get("cpu_mhz")
        spread = "" if clock is None else f", seen {clock.low:.0f} to {clock.high:.0f} MHz"
        yield (
            f"the processor's clocks are not locked ({state.min_mhz:.0f} to {state.max_mhz:.0f} "
            f"MHz allowed{spread}): sudo cpupower frequency-set -d F -u F, with one F it can hold"
        )
    jetson = machine.jetson
    if jetson is not None and jetson.clocks_locked is False:
        yield "the Jetson's clocks are not locked: sudo jetson_clocks, after nvpmodel -m"


def _gpus(machine: Machine, log: MachineLog) -> Iterator[str]:
    clock = log.readings.get("gpu_sm_mhz")
    if clock is not None and clock.high - clock.low > MOST_CLOCK_SPREAD * clock.high:
        lock = "sudo jetson_clocks" if machine.jetson else "sudo nvidia-smi -lgc F,F"
        yield f"the GPU's clock moved ({clock.low:.0f} to {clock.high:.0f} MHz): lock it ({lock})"
    watched = machine.gpus if clock is not None else ()
    for index, gpu in enumerate(watched):
        for doubt in _doubts_of(gpu):
            yield f"GPU {index}: {doubt}" if len(watched) > 1 else f"the GPU: {doubt}"


def _doubts_of(gpu: Gpu) -> Iterator[str]:
    if gpu.persistence is False:
        yield "persistence mode is off, clocks set are lost between processes: nvidia-smi -pm 1"
    limit, shipped = gpu.power_limit_w, gpu.default_power_limit_w
    if limit is not None and shipped is not None and limit < shipped:
        yield f"limited to {limit:.0f} of {shipped:.0f} W: nvidia-smi -pl {shipped:.0f}, or say so"
    if gpu.mig:
        yield "divided into instances (MIG): this is not the whole GPU"
    width, widest = gpu.pcie_width, gpu.max_pcie_width
    if width is not None and widest is not None and width < widest:
        yield f"{width} of {widest} PCIe lanes in use: copies are slower; try another slot"


def _drifting(log: MachineLog) -> Iterator[str]:
    for name, what in (("cpu_temperature_c", "processor"), ("gpu_temperature_c", "GPU")):
        rise = log.drift.get(name, 0.0)
        if rise > MOST_RISE_C:
            yield (
                f"the {what} grew {rise:.0f} degrees warmer while measuring: warm it up for some "
                "minutes first"
            )
