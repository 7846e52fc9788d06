from __future__ import annotations

import pytest

from dyninfer.benchmarks.machine.host import (
    Host,
    container,
    power_source,
    read_host,
    virtual_machine,
)
from tests.benchmarks.machine.machine_trees import cgroup_v1, cgroup_v2, workstation, write_tree

IN_A_MACHINE = {"proc/cpuinfo": "flags\t\t: fpu hypervisor avx2"}


def test_nothing_is_known_of_an_empty_system(tmp_path):
    assert read_host(tmp_path) == Host()


def test_a_workstation_is_on_mains_and_nothing_limits_it(tmp_path):
    assert read_host(write_tree(tmp_path, workstation())) == Host(power="mains")


@pytest.mark.parametrize(
    ("files", "maker"),
    [
        ({}, "unknown hypervisor"),
        ({"sys/class/dmi/id/sys_vendor": "QEMU"}, "QEMU"),
        ({"sys/class/dmi/id/product_name": "Virtual Machine"}, "Hyper-V"),
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "Amazon EC2"),
        ({"sys/hypervisor/type": "xen"}, "Xen"),
    ],
)
def test_a_virtual_machine_is_named_by_its_firmware(tmp_path, files, maker):
    assert virtual_machine(write_tree(tmp_path, {**IN_A_MACHINE, **files})) == maker


def test_a_vendor_of_real_machines_is_no_virtual_machine(tmp_path):
    files = {"sys/class/dmi/id/sys_vendor": "Google", "proc/cpuinfo": "flags : fpu avx2"}
    assert virtual_machine(write_tree(tmp_path, files)) is None


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, None),
        ({".dockerenv": ""}, "Docker"),
        ({"run/.containerenv": ""}, "Podman"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1"}, "kubepods"),
        ({"proc/1/cgroup": "0::/init.scope"}, None),
    ],
)
def test_containers(tmp_path, files, kind):
    assert container(write_tree(tmp_path, files)) == kind


def test_a_group_without_a_quota_limits_memory_alone(tmp_path):
    host = read_host(write_tree(tmp_path, cgroup_v2()))
    assert (host.cpu_quota_cores, host.memory_limit_gib) == (None, 2)


def test_a_quota_of_version_2(tmp_path):
    assert read_host(write_tree(tmp_path, cgroup_v2("150000 100000"))).cpu_quota_cores == 1.5


def test_the_tightest_quota_on_the_way_up_counts(tmp_path):
    files = {**cgroup_v2("400000 100000"), "sys/fs/cgroup/system.slice/cpu.max": "50000 100000"}
    assert read_host(write_tree(tmp_path, files)).cpu_quota_cores == 0.5


def test_a_quota_of_version_1_in_a_container(tmp_path):
    host = read_host(write_tree(tmp_path, cgroup_v1(250_000)))
    assert (host.cpu_quota_cores, host.memory_limit_gib) == (2.5, None)


def test_version_1_without_a_quota(tmp_path):
    assert read_host(write_tree(tmp_path, cgroup_v1())).cpu_quota_cores is None


def test_a_battery_that_is_being_emptied(tmp_path):
    files = workstation() | {
        "sys/class/power_supply/AC/online": 0,
        "sys/class/power_supply/BAT0/status": "Discharging",
    }
    assert power_source(write_tree(tmp_path, files)) == "battery"
