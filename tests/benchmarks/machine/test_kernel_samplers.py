from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dyninfer.benchmarks.machine.kernel_samplers import (
    Family,
    LoadSampler,
    clock_sampler,
    jetson_sampler,
    temperature_files,
)
from tests.benchmarks.machine.machine_trees import (
    CPU,
    orin_nano,
    proc_of,
    stat_line,
    workstation,
    write_tree,
    xavier_nx,
)


def test_an_empty_system_gives_no_reading_and_says_why(tmp_path):
    clocks, load = clock_sampler(tmp_path), LoadSampler(tmp_path)
    assert (clocks.sample(), load.sample()) == ({}, {})
    assert set(clocks.missing) == {"cpu_mhz", "cpu_temperature_c"}
    assert set(load.missing) == {"other_load_cores"}


def test_clocks_of_some_cores_and_the_hottest_sensor(tmp_path):
    readings = clock_sampler(write_tree(tmp_path, workstation())).sample()
    assert 800 <= readings["cpu_mhz"] <= 1900
    assert readings["cpu_temperature_c"] == 61


def test_at_most_eight_cores_are_woken(tmp_path):
    write_tree(tmp_path, workstation())
    sampler = clock_sampler(tmp_path)
    for core in range(0, 12, 2):
        (tmp_path / CPU / f"cpufreq/policy{core}/scaling_cur_freq").unlink()
    assert "cpu_mhz" not in sampler.sample()


@pytest.mark.parametrize("tree", [orin_nano, xavier_nx])
def test_a_jetsons_processor_has_a_thermal_zone(tmp_path, tree):
    (sensor,) = temperature_files(write_tree(tmp_path, tree()))
    assert sensor.parent.name == "thermal_zone0"


def test_a_jetsons_gpu(tmp_path):
    sampler = jetson_sampler(write_tree(tmp_path, orin_nano()))
    assert sampler.sample() == {"gpu_sm_mhz": 306, "gpu_temperature_c": 47.25}
    assert not sampler.missing
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").unlink()  # asleep
    assert sampler.sample() == {"gpu_sm_mhz": 306}


def test_a_jetson_without_a_gpu_to_see(tmp_path):
    sampler = jetson_sampler(tmp_path)
    assert sampler.sample() == {}
    assert set(sampler.missing) == {"gpu_sm_mhz", "gpu_temperature_c"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_load_of_others_is_what_this_process_and_its_children_did_not_use(tmp_path):
    clock = Clock()
    write_tree(tmp_path, proc_of(1000, 200, steal=10, children={77: 50}))
    sampler = LoadSampler(tmp_path, clock, ticks_per_s=100)
    clock.now += 2
    write_tree(tmp_path, proc_of(1500, 300, steal=60, children={77: 150}))
    readings = sampler.sample()
    assert readings["other_load_cores"] == pytest.approx((500 - 100 - 100) / 100 / 2)
    assert readings["steal_cores"] == pytest.approx(0.25)


def test_a_child_that_ended_is_in_its_parents_count(tmp_path):
    clock = Clock()
    write_tree(tmp_path, proc_of(1000, 0, children={77: 400}))
    sampler = LoadSampler(tmp_path, clock, ticks_per_s=100)
    clock.now += 1
    ended = proc_of(1000, 0)
    ended["proc/self/stat"] = stat_line(1, 0).replace(" 0 0 0 20 0 ", " 0 400 0 20 0 ")
    for file in (tmp_path / "proc/77").rglob("*"):
        if file.is_file():
            file.unlink()
    write_tree(tmp_path, ended)
    assert sampler.sample()["other_load_cores"] == 0


def test_samples_that_follow_at_once_count_no_load(tmp_path):
    clock = Clock()
    write_tree(tmp_path, proc_of(1000, 0))
    sampler = LoadSampler(tmp_path, clock, ticks_per_s=100)
    clock.now += 0.01
    write_tree(tmp_path, proc_of(1001, 0))
    assert "other_load_cores" not in sampler.sample()
    clock.now += 0.99
    assert sampler.sample()["other_load_cores"] == pytest.approx(0.01)


def test_a_kernel_that_lists_no_children_is_said_so(tmp_path):
    write_tree(tmp_path, proc_of(1000, 0))
    (tmp_path / "proc/self/task/1/children").unlink()
    assert "other_load_cores without own children" in LoadSampler(tmp_path).missing


def test_memory_that_is_available(tmp_path):
    assert LoadSampler(write_tree(tmp_path, workstation())).sample() == {"memory_available_gib": 16}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_this_process_and_a_child_are_found_in_the_real_proc():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        family = Family(Path("/proc"))
        if not family.sees_children:
            pytest.skip("this kernel lists no children")
        before = family.ticks()
        assert child.pid in family.pids()
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        assert family.ticks() > before
        child.communicate(b"\n")
