from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dyninfer.benchmarks.machine import MachineLog, MachineRecorder
from dyninfer.benchmarks.machine.recorder import Range, drift_of, ranges_of
from tests.benchmarks.machine.machine_trees import (
    cgroup_v2,
    orin_nano,
    proc_of,
    workstation,
    write_tree,
)
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml


def test_ranges_of_none_one_and_mixed_samples():
    assert ranges_of([]) == {}
    assert ranges_of([{"a": 2.0}]) == {"a": Range(2, 2, 2)}
    assert ranges_of([{"a": 1.0}, {"b": 5.0}, {"a": 9.0}, {"a": 2.0}]) == {
        "a": Range(1, 2, 9),
        "b": Range(5, 5, 5),
    }


def test_drift_is_the_last_quarter_against_the_first():
    assert drift_of([{"a": float(n)} for n in range(7)]) == {}
    assert drift_of([{"a": float(n)} for n in range(8)]) == {"a": 6}
    assert drift_of([{"a": 1.0, "b": 2.0}] * 8 + [{"a": 1.0}] * 2) == {"a": 0, "b": 0}


def test_this_machine_is_recorded():
    with MachineRecorder(0.02) as recorder:
        time.sleep(0.3)
        running = recorder.log()
    log = recorder.log()
    assert 0 < running.samples <= log.samples
    assert log.samples >= 3
    assert 0.3 <= log.seconds < 30
    assert log.readings["sampler_cpu_ms"].low > 0
    assert TypeAdapter(MachineLog).validate_json(json.dumps(asdict(log))) == log


def test_own_work_is_no_load_of_others(tmp_path):
    write_tree(tmp_path, {**workstation(), **proc_of(0, 0)})
    with MachineRecorder(60, root=tmp_path) as recorder:
        time.sleep(0.12)
        write_tree(tmp_path, proc_of(100, 100))
    assert recorder.log().readings["other_load_cores"] == Range(0, 0, 0)


def test_a_log_before_anything_was_recorded_is_empty():
    log = MachineRecorder().log()
    assert (log.samples, log.seconds, log.readings) == (0, 0, {})


def test_a_recorder_that_ends_before_its_first_interval_has_both_ends(tmp_path):
    write_tree(tmp_path, workstation())
    with MachineRecorder(60, root=tmp_path) as recorder:
        pass
    log = recorder.log()
    assert log.samples == 2
    assert log.readings["cpu_temperature_c"] == Range(61, 61, 61)


def test_a_quota_that_stopped_threads_is_in_the_log(tmp_path):
    write_tree(tmp_path, cgroup_v2("50000 100000", throttled=1))
    with MachineRecorder(60, root=tmp_path) as recorder:
        write_tree(tmp_path, cgroup_v2("50000 100000", throttled=30))
    assert recorder.log().throttled == ("CPU: quota of the control group",)


def test_a_gpu_is_recorded_and_let_go(tmp_path):
    nvml = FakeNvml(FakeGpu(reasons=0x20))
    with MachineRecorder(60, device="cuda:0", root=tmp_path, load_nvml=nvml.load) as recorder:
        assert nvml.users == 1
    log = recorder.log()
    assert nvml.users == 0
    assert log.readings["gpu_watts"] == Range(250, 250, 250)
    assert log.throttled == ("GPU: temperature (software)",)


def test_a_gpu_is_not_asked_for_what_runs_on_the_processor(tmp_path):
    nvml = FakeNvml(FakeGpu())
    with MachineRecorder(60, device="cpu", root=tmp_path, load_nvml=nvml.load) as recorder:
        assert nvml.users == 0
    assert not [name for name in recorder.log().missing if name.startswith("gpu")]


def test_an_absent_driver_is_in_the_log(tmp_path):
    nvml = FakeNvml(broken="NVML Shared Library Not Found")
    with MachineRecorder(60, device="cuda:0", root=tmp_path, load_nvml=nvml.load) as recorder:
        pass
    assert "Library Not Found" in recorder.log().missing["gpu"]


def test_which_of_two_gpus_is_not_guessed(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml(FakeGpu(), FakeGpu())
    with MachineRecorder(60, device="cuda:1", root=tmp_path, load_nvml=nvml.load) as recorder:
        pass
    assert "CUDA_DEVICE_ORDER" in recorder.log().missing["gpu"]
    assert nvml.users == 0


def test_a_jetsons_gpu_is_read_from_files(tmp_path):
    write_tree(tmp_path, orin_nano())
    with MachineRecorder(60, device="cuda:0", root=tmp_path, load_nvml=never) as recorder:
        pass
    assert recorder.log().readings["gpu_sm_mhz"] == Range(306, 306, 306)


def never() -> tuple[None, str]:
    raise AssertionError("NVML was asked on a Jetson")


def test_a_reading_that_breaks_is_told_and_ends_no_benchmark(tmp_path: Path):
    nvml = FakeNvml(FakeGpu())
    read = nvml.nvmlDeviceGetTemperature

    def gone(*_: object) -> int:
        nvml.nvmlDeviceGetTemperature = read  # the last sample, at the end, is taken again
        raise OSError("gone")

    with MachineRecorder(0.01, device="cuda:0", root=tmp_path, load_nvml=nvml.load) as recorder:
        nvml.nvmlDeviceGetTemperature = gone
        end = time.monotonic() + 30
        while "sampling" not in recorder.log().missing and time.monotonic() < end:
            time.sleep(0.01)
    assert recorder.log().missing["sampling"] == "ended early: OSError: gone"


def test_a_recorder_is_entered_once(tmp_path):
    recorder = MachineRecorder(60, root=tmp_path)
    with recorder:
        pass
    with pytest.raises(RuntimeError), recorder:
        pass
