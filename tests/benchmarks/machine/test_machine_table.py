from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

from dyninfer.benchmarks.machine import describe_machine, machine_rows
from dyninfer.benchmarks.machine.describe import Machine
from tests.benchmarks.machine.machine_trees import orin_nano, workstation, write_tree
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml


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
