"""A machine in words, line by line."""

from __future__ import annotations

from collections.abc import Iterator

from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.describe import Machine
from dyninfer.benchmarks.machine.gpu import Gpu
from dyninfer.benchmarks.machine.host import Host
from dyninfer.benchmarks.machine.jetson import Jetson

Fact = tuple[str, str]


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
