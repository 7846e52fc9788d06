from __future__ import annotations

import pytest

from dyninfer.benchmarks.machine import find_energy_meter, measure_idle_watts
from dyninfer.benchmarks.machine.energy import PowerIntegrator
from dyninfer.errors import DyninferError, InputError
from tests.benchmarks.machine.jtop_standin import FakeJtop
from tests.benchmarks.machine.machine_trees import (
    agx_orin_rails,
    orin_nano,
    rapl,
    workstation,
    write_tree,
)
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Meter:
    source = "a meter"

    def __init__(self, clock: Clock, watts: float) -> None:
        self._clock, self._watts = clock, watts

    def joules(self) -> float:
        return 500 + self._watts * self._clock.now

    def close(self) -> None:
        pass


def test_idle_power_is_energy_over_time():
    clock = Clock()
    watts = measure_idle_watts(Meter(clock, 7.5), 4, sleep=clock.sleep, clock=clock)
    assert watts == pytest.approx(7.5)


def test_idle_power_takes_time():
    with pytest.raises(InputError, match="above 0"):
        measure_idle_watts(Meter(Clock(), 1), 0)


def test_power_is_integrated_by_the_trapezoidal_rule():
    clock, watts = Clock(), iter([10.0, 20.0, None, 40.0])
    meter = PowerIntegrator("a sensor", lambda: next(watts), interval_s=3600, clock=clock)
    clock.now = 2
    assert meter.joules() == pytest.approx(30)
    clock.now = 3
    assert meter.joules() == pytest.approx(30)  # refused
    clock.now = 4
    assert meter.joules() == pytest.approx(30 + 60)
    meter.close()


def test_a_sensor_that_falls_silent_is_an_error():
    clock = Clock()
    meter = PowerIntegrator("a sensor", lambda: None, interval_s=3600, clock=clock)
    assert meter.joules() == 0
    clock.now = 6
    with pytest.raises(DyninferError, match=r"a sensor.* has not answered for 6 s"):
        meter.joules()
    meter.close()


def test_the_sensor_is_sampled_in_between():
    import time

    meter = PowerIntegrator("a sensor", lambda: 5.0, interval_s=0.005)
    time.sleep(0.05)
    first = meter.joules()
    assert first > 0
    assert meter.joules() >= first
    meter.close()
    meter.close()


def test_a_machine_without_a_meter_says_why(tmp_path):
    meter, why = find_energy_meter("cpu", root=write_tree(tmp_path, workstation()))
    assert meter is None
    assert why.startswith("RAPL: /sys/class/powercap shows no processor package")


def test_a_processor_is_measured_by_rapl_even_beside_a_gpu(tmp_path):
    nvml = FakeNvml(FakeGpu())
    meter, name = find_energy_meter("cpu", root=write_tree(tmp_path, rapl()), load_nvml=nvml.load)
    assert meter is not None
    assert name == meter.source == "RAPL package-0, package-1 (without main memory)"
    assert nvml.users == 0


def test_a_gpu_is_measured_by_its_own_counter(tmp_path):
    gpu = FakeGpu(joules=5000.0)
    nvml = FakeNvml(gpu)
    meter, name = find_energy_meter(
        "cuda:0", root=write_tree(tmp_path, rapl()), load_nvml=nvml.load
    )
    assert meter is not None
    assert "energy counter" in name
    gpu.joules += 12.5
    assert meter.joules() == pytest.approx(12.5)
    gpu.refuses.add("energy")
    with pytest.raises(DyninferError, match="Not Supported"):
        meter.joules()
    meter.close()
    meter.close()
    assert nvml.users == 0


def test_an_older_gpus_power_is_integrated(tmp_path):
    nvml = FakeNvml(FakeGpu(refuses={"energy"}))
    meter, name = find_energy_meter("cuda:0", root=tmp_path, load_nvml=nvml.load)
    assert meter is not None
    assert "power of the GPU" in name
    meter.close()
    assert nvml.users == 0


@pytest.mark.parametrize(
    ("nvml", "words"),
    [
        (FakeNvml(broken="NVML Shared Library Not Found"), "Library Not Found"),
        (FakeNvml(FakeGpu(refuses={"energy", "power"})), "neither energy nor power"),
        (FakeNvml(), "not among the 0 GPUs"),
    ],
)
def test_a_gpu_without_a_meter_is_not_measured_by_the_processors(
    tmp_path, monkeypatch, nvml, words
):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    write_tree(tmp_path, rapl())
    meter, why = find_energy_meter("cuda:0", root=tmp_path, load_nvml=nvml.load)
    assert meter is None
    assert words in why
    assert nvml.users == 0


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_jetson_is_measured_by_its_rails_on_either_device(tmp_path, device):
    meter, name = find_energy_meter(device, root=write_tree(tmp_path, orin_nano()))
    assert meter is not None
    assert name == "Jetson rail VDD_IN, sampled every 50 ms"
    meter.close()


def test_a_jetson_without_a_total_adds_its_rails(tmp_path):
    files = {"proc/device-tree/model": "NVIDIA Jetson AGX Orin\0", **agx_orin_rails()}
    meter, name = find_energy_meter("cpu", root=write_tree(tmp_path, files))
    assert meter is not None
    assert "VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0, VDDQ_VDD2_1V8AO, added up" in name
    meter.close()


def test_jtop_measures_where_the_rails_are_out_of_sight(tmp_path):
    files = {"proc/device-tree/model": "NVIDIA Jetson Nano\0"}
    jtop = FakeJtop()
    meter, name = find_energy_meter("cpu", root=write_tree(tmp_path, files), open_jtop=jtop)
    assert meter is not None
    assert name == "jtop, VDD_IN, sampled every 500 ms"
    meter.close()
    assert jtop.closed


def test_a_jetson_with_neither_says_both_reasons(tmp_path):
    files = {"proc/device-tree/model": "NVIDIA Jetson Nano\0"}
    off = FakeJtop(failure="The jtop.service is not active")
    meter, why = find_energy_meter("cpu", root=write_tree(tmp_path, files), open_jtop=off)
    assert meter is None
    assert "no ina3221" in why
    assert "jtop.service is not active" in why
