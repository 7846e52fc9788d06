from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from dyninfer.benchmarks.machine import (
    Machine,
    MachineLog,
    describe_machine,
    machine_rows,
    warnings_of,
)
from dyninfer.benchmarks.machine.cpu_state import CpuState
from dyninfer.benchmarks.machine.gpu import Gpu
from dyninfer.benchmarks.machine.host import Host
from dyninfer.benchmarks.machine.jetson import Jetson
from dyninfer.benchmarks.machine.recorder import Range
from tests.benchmarks.machine.machine_trees import orin_nano, workstation, write_tree
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml

QUIET = Machine(
    cpu="Some CPU",
    usable_cores=4,
    cpu_flags=(),
    memory_gib=16.0,
    system="Linux",
    python="CPython",
    versions={},
    load_average_1min=0.0,
    cpu_state=CpuState(
        governor="performance", driver="acpi-cpufreq", min_mhz=2000, max_mhz=2000, locked=True
    ),
    host=Host(power="mains"),
)
V100 = Gpu(name="V100", persistence=True, power_limit_w=300, default_power_limit_w=300, mig=False)


def log_of(**readings: tuple[float, float, float]) -> MachineLog:
    return MachineLog(60, 120, {name: Range(*values) for name, values in readings.items()})


def test_a_quiet_locked_machine_has_no_warning():
    calm = log_of(
        cpu_mhz=(2000, 2000, 2000), other_load_cores=(0, 0.02, 0.2), steal_cores=(0, 0, 0)
    )
    assert warnings_of(QUIET, calm) == []


def test_a_record_of_before_has_no_warning_either():
    before = replace(QUIET, cpu_state=None, host=None)
    assert warnings_of(before, MachineLog(0, 0, {})) == []


@pytest.mark.parametrize(
    ("machine", "log", "words"),
    [
        ({}, log_of(other_load_cores=(0, 0.5, 1.0)), ("other processes used 0.5 cores", "stop")),
        ({}, log_of(other_load_cores=(0, 0.01, 2.0)), ("up to 2 cores", "tail")),
        ({}, log_of(steal_cores=(0, 0.0, 0.4)), ("hypervisor took up to 0.4", "dedicated")),
        ({}, log_of(gpu_other_share=(0, 0, 0.5)), ("kept the GPU busy up to 50%",)),
        ({"host": Host(cpu_quota_cores=1.5)}, log_of(), ("allows 1.5 of 4 cores", "--cpuset")),
        ({"host": Host(power="battery")}, log_of(), ("battery", "plug")),
        ({"host": Host(virtual_machine="KVM")}, log_of(), ("virtual machine (KVM)", "ratios")),
        (
            {"cpu_state": CpuState(governor="ondemand", locked=None)},
            log_of(),
            ("governor is ondemand", "cpupower"),
        ),
        (
            {
                "cpu_state": CpuState(
                    governor="powersave", driver="intel_pstate", energy_preference="power"
                )
            },
            log_of(),
            ("energy preference is power",),
        ),
        ({"cpu_state": CpuState(platform_profile="quiet")}, log_of(), ("profile is quiet",)),
        (
            {"cpu_state": CpuState(min_mhz=800, max_mhz=4800, locked=False)},
            log_of(cpu_mhz=(900, 3000, 4700)),
            ("not locked (800 to 4800 MHz allowed, seen 900 to 4700 MHz)",),
        ),
        (
            {"jetson": Jetson("Orin", clocks_locked=False)},
            log_of(gpu_sm_mhz=(306, 800, 1020)),
            ("sudo jetson_clocks",),
        ),
        (
            {"gpus": (V100,)},
            log_of(gpu_sm_mhz=(1200, 1380, 1530)),
            ("GPU's clock moved (1200 to 1530 MHz)", "-lgc"),
        ),
        (
            {"gpus": (replace(V100, persistence=False),)},
            log_of(gpu_sm_mhz=(1380, 1380, 1380)),
            ("persistence mode is off", "-pm 1"),
        ),
        (
            {"gpus": (replace(V100, power_limit_w=150),)},
            log_of(gpu_sm_mhz=(1380, 1380, 1380)),
            ("150 of 300 W", "-pl 300"),
        ),
        (
            {"gpus": (replace(V100, mig=True, pcie_width=8, max_pcie_width=16),)},
            log_of(gpu_sm_mhz=(1380, 1380, 1380)),
            ("MIG",),
        ),
        ({}, replace(log_of(), throttled=("GPU: board limit",)), ("slowed down", "board limit")),
        (
            {},
            replace(log_of(), drift={"cpu_temperature_c": 12.0}),
            ("processor grew 12 degrees warmer", "warm"),
        ),
        ({}, replace(log_of(), missing={"sampling": "ended early: x"}), ("ended early",)),
    ],
)
def test_every_doubt_is_one_line_that_says_what_to_do(machine, log, words):
    doubts = warnings_of(replace(QUIET, **machine), log)
    assert doubts
    assert all("\n" not in doubt for doubt in doubts)
    for word in words:
        assert any(word in doubt for doubt in doubts), doubts


@pytest.mark.parametrize(
    "machine",
    [
        {"host": Host(cpu_quota_cores=4)},
        {
            "cpu_state": CpuState(
                governor="powersave", driver="intel_pstate", energy_preference="performance"
            )
        },
        {"cpu_state": CpuState(governor="ondemand", min_mhz=1, max_mhz=1, locked=True)},
        {"gpus": (replace(V100, persistence=False),)},  # not watched: not in use
    ],
)
def test_what_does_no_harm_is_not_told(machine):
    assert warnings_of(replace(QUIET, **machine), log_of()) == []


def test_small_moves_of_the_gpus_clock_and_of_temperature_are_not_told():
    log = replace(log_of(gpu_sm_mhz=(1365, 1380, 1380)), drift={"gpu_temperature_c": 10.0})
    assert warnings_of(replace(QUIET, gpus=(V100,)), log) == []


def test_a_workstation_with_a_gpu(tmp_path):
    nvml = FakeNvml(FakeGpu(refuses={"mig"}))
    rows = dict(machine_rows(describe_machine(write_tree(tmp_path, workstation()), nvml.load)))
    assert rows["processor"] == "Intel(R) Core(TM)"
    assert rows["  governor"] == "powersave (intel_pstate)"
    assert rows["  clocks allowed"] == "800 to 4800 MHz, not locked"
    assert rows["GPU"] == "Tesla V100-SXM2-16GB (7.0)"
    assert rows["  power limit"] == "300 W (300 W as shipped)"
    assert rows["  SM clock"] == "1380 of 1530 MHz"
    assert rows["CUDA of the driver"] == "12.6"
    assert "  MIG" not in rows
    assert nvml.users == 0


def test_a_jetson(tmp_path):
    nvml = FakeNvml(FakeGpu(name="Orin (nvgpu)", refuses={"clock", "power", "temperature"}))
    rows = dict(machine_rows(describe_machine(write_tree(tmp_path, orin_nano()), nvml.load)))
    assert rows["Jetson"].startswith("NVIDIA Jetson Orin Nano")
    assert rows["  clocks locked"] == "no"
    assert rows["  GPU clocks allowed"] == "306 to 1020 MHz"
    assert "1424124000001" not in str(rows)


def test_a_record_of_before_still_makes_a_table():
    bare = Machine("CPU", 2, (), None, "Linux", "CPython 3.11", {}, None)
    assert machine_rows(bare) == [
        ("processor", "CPU"),
        ("usable cores", "2"),
        ("system", "Linux"),
        ("Python", "CPython 3.11"),
    ]


def test_two_gpus_are_numbered(tmp_path):
    nvml = FakeNvml(FakeGpu(), FakeGpu(name="T4"))
    rows = machine_rows(replace(describe_machine(tmp_path, nvml.load), versions={}))
    assert [value for name, value in rows if name in ("GPU 0", "GPU 1")] == [
        "Tesla V100-SXM2-16GB (7.0)",
        "T4 (7.0)",
    ]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dyninfer.benchmarks.machine", "--seconds", "0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_prints_tables():
    done = run_command()
    assert done.returncode == 0, done.stderr
    assert "processor" in done.stdout
    assert "energy: " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_command_prints_json():
    found = json.loads(run_command("--json").stdout)
    assert set(found) == {"machine", "log", "energy", "warnings"}
    assert found["log"]["samples"] == 2


def test_the_command_knows_no_other_option():
    assert run_command("--sample").returncode == 2
