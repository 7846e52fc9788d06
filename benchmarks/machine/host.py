"""What a system runs in and on: virtual machine, container, processor quota, battery.

All of it is in small text files below ``/proc`` and ``/sys``, which other modules read as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_GIB = 1 << 30
_CONTAINER_WORDS = ("docker", "kubepods", "containerd", "libpod", "lxc")
_DMI = Path("sys/class/dmi/id")
# vendor or product name as the firmware tells it -> who makes the virtual machine
_HYPERVISORS = {
    "qemu": "QEMU",
    "kvm": "KVM",
    "vmware": "VMware",
    "virtualbox": "VirtualBox",
    "innotek": "VirtualBox",
    "xen": "Xen",
    "virtual machine": "Hyper-V",
    "google": "Google Compute Engine",
    "amazon": "Amazon EC2",
    "openstack": "OpenStack",
    "bochs": "Bochs",
    "cloud hypervisor": "Cloud Hypervisor",
    "firecracker": "Firecracker",
}


@dataclass(frozen=True)
class Host:
    """Where a system runs; None where nothing hints at it.

    Attributes:
        virtual_machine: whose, or ``unknown hypervisor``.
        container: which kind.
        cpu_quota_cores: processor time that a control group allows in a second, in cores.
        memory_limit_gib: main memory that a control group allows.
        power: ``battery``, or ``mains`` where a power supply says so.
    """

    virtual_machine: str | None = None
    container: str | None = None
    cpu_quota_cores: float | None = None
    memory_limit_gib: float | None = None
    power: str | None = None


def read_host(root: Path = Path("/")) -> Host:
    """What hints at a virtual machine or container, what limits it, and what powers it."""
    groups = group_folders(root)
    quotas = [quota for group in groups if (quota := cpu_quota(group)) is not None]
    limits = [limit for group in groups if (limit := memory_limit(group)) is not None]
    return Host(
        virtual_machine=virtual_machine(root),
        container=container(root),
        cpu_quota_cores=min(quotas, default=None),
        memory_limit_gib=min(limits, default=None),
        power=power_source(root),
    )


def virtual_machine(root: Path) -> str | None:
    """The hypervisor by the firmware's names, then by the processor's ``hypervisor`` flag."""
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", read_text(root / "proc/cpuinfo"), re.MULTILINE)
    names = " ".join(
        read_text(root / _DMI / name) for name in ("sys_vendor", "product_name")
    ).lower()
    for word, maker in _HYPERVISORS.items():
        if word in names and (flags or word not in ("google", "amazon")):  # both sell machines too
            return maker
    kind = read_text(root / "sys/hypervisor/type")
    if kind:
        return kind.capitalize()
    return "unknown hypervisor" if flags else None


def container(root: Path) -> str | None:
    """The container by the files that runtimes leave, then by the first process's groups."""
    if (root / ".dockerenv").exists():
        return "Docker"
    if (root / "run/.containerenv").exists():
        return "Podman"
    groups = read_text(root / "proc/1/cgroup")
    return next((word for word in _CONTAINER_WORDS if word in groups), None)


def group_folders(root: Path) -> list[Path]:
    """The control group's folders, of both versions, from its own up to the outermost.

    A quota holds for everything below, so each on the way up counts. In a container the path in
    ``/proc/self/cgroup`` may be one that only the host knows; what is mounted is then the group
    itself.
    """
    top = root / "sys/fs/cgroup"
    folders = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for mounted in _mounts(top, controllers):
            folder = mounted / path.strip("/")
            chain = [folder, *folder.parents]
            folders += chain[: chain.index(mounted) + 1]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _mounts(top: Path, controllers: str) -> list[Path]:
    if not controllers:  # version 2, alone or beside version 1
        return [top, top / "unified"]
    return [top / name for name in {controllers, *controllers.split(",")} if "=" not in name]


def cpu_quota(group: Path) -> float | None:
    """Cores that a control group may use; None without a limit.

    Version 2 says ``max 100000`` or ``150000 100000`` in ``cpu.max``, version 1 has a file for the
    quota (-1 for none) and one for the period.
    """
    words = read_text(group / "cpu.max").split()
    if len(words) == 2 and words[0].isdigit():
        return int(words[0]) / int(words[1])
    quota = read_number(group / "cpu.cfs_quota_us")
    period = read_number(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def memory_limit(group: Path) -> float | None:
    """GiB that a control group may use; None without a limit."""
    limit = read_number(group / "memory.max")
    if limit is None:
        limit = read_number(group / "memory.limit_in_bytes")
    # version 1 says "none" as the largest number of pages
    return None if limit is None or limit >= 1 << 60 else round(limit / _GIB, 2)


def power_source(root: Path) -> str | None:
    """``battery`` where one is being emptied, ``mains`` where a supply is online."""
    supplies = matching(root / "sys/class/power_supply", "*")
    if any(read_text(supply / "status") == "Discharging" for supply in supplies):
        return "battery"
    mains = (supply for supply in supplies if read_text(supply / "type") in ("Mains", "USB"))
    return "mains" if any(read_number(supply / "online") == 1 for supply in mains) else None


def read_text(path: Path) -> str:
    """What a file says, without blanks and zero bytes around it; nothing if it cannot be read.

    A device may refuse to be read although its file is there (a sensor that is switched off).
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def read_number(path: Path) -> float | None:
    """The number that a file holds; None if it cannot be read or holds anything else."""
    try:
        return float(read_text(path))
    except ValueError:
        return None


def why_unreadable(path: Path) -> str:
    """The reason in the system's words, such as ``Permission denied``; empty if it can be read."""
    try:
        path.read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
    return ""


def matching(folder: Path, pattern: str) -> list[Path]:
    """What lies in a folder by a glob pattern, in a fixed order with 2 before 10."""
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
