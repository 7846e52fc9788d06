from __future__ import annotations

import os

from dyninfer.benchmarks.machine.gpu import Gpu, GpuSampler, read_nvidia_system, throttle_words
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml


def open_fake(*gpus: FakeGpu) -> FakeNvml:
    fake = FakeNvml(*gpus)
    fake.nvmlInit()
    return fake


def test_a_driver_without_gpus_says_so():
    found = read_nvidia_system(open_fake())
    assert (found.driver, found.cuda_driver, found.gpus) == ("560.35.03", "12.6", ())
    assert found.missing == {"NVIDIA GPUs": "the driver sees none"}


def test_a_gpu_is_described():
    found = read_nvidia_system(open_fake(FakeGpu(limit_w=250)))
    assert found.gpus == (
        Gpu(
            name="Tesla V100-SXM2-16GB",
            compute_capability="7.0",
            memory_gib=16,
            power_limit_w=250,
            default_power_limit_w=300,
            persistence=True,
            compute_mode="exclusive process",
            sm_mhz=1380,
            memory_mhz=877,
            max_sm_mhz=1530,
            max_memory_mhz=877,
            application_sm_mhz=1380,
            application_memory_mhz=877,
            default_application_sm_mhz=1312,
            ecc=True,
            mig=False,
            pcie_generation=1,
            max_pcie_generation=3,
            pcie_width=16,
            max_pcie_width=16,
        ),
    )
    assert set(found.missing) == {"gpu 0 locked clocks"}


def test_what_a_gpu_refuses_is_missing_with_the_reason():
    found = read_nvidia_system(open_fake(FakeGpu(), FakeGpu(refuses={"mig", "application clock"})))
    assert found.gpus[0].mig is False
    assert found.gpus[1].mig is None
    assert found.missing["gpu 1 MIG"] == "Not Supported"
    assert found.gpus[1].application_sm_mhz is None
    assert "gpu 0 MIG" not in found.missing


def test_clocks_that_somebody_chose_are_no_throttling():
    assert throttle_words(0) == ()
    assert throttle_words(0x1 | 0x2 | 0x100) == ()
    assert throttle_words(0x1 | 0x4 | 0x20) == (
        "GPU: power limit (software)",
        "GPU: temperature (software)",
    )


def test_a_gpu_is_sampled_and_its_throttling_remembered():
    gpu = FakeGpu(reasons=0x4)
    sampler = GpuSampler(open_fake(gpu), gpu)
    readings = sampler.sample()
    assert readings["gpu_sm_mhz"] == 1380
    assert readings["gpu_watts"] == 250
    assert readings["gpu_temperature_c"] == 55
    gpu.reasons = 0
    sampler.sample()
    assert sampler.throttled == ("GPU: power limit (software)",)


def test_an_older_driver_is_asked_by_the_older_name():
    gpu = FakeGpu(reasons=0x40, refuses={"event reasons"})
    sampler = GpuSampler(open_fake(gpu), gpu)
    sampler.sample()
    assert sampler.throttled == ("GPU: temperature (hardware)",)
    assert "gpu throttling" not in sampler.missing


def test_a_query_that_was_refused_is_not_asked_again():
    gpu = FakeGpu(refuses={"power", "temperature", "event reasons", "throttle reasons"})
    sampler = GpuSampler(open_fake(gpu), gpu)
    assert "gpu_watts" not in sampler.sample()
    gpu.refuses.clear()
    assert "gpu_watts" not in sampler.sample()
    assert sampler.missing["gpu_watts"] == "Not Supported"
    assert sampler.missing["gpu throttling"] == "Not Supported"


def test_others_on_the_gpu_are_told_from_this_process_and_its_children():
    own, child, other = os.getpid(), 4_000_001, 4_000_002
    gpu = FakeGpu(processes=[own, child, other], utilisation={own: 90, child: 50, other: 7})
    sampler = GpuSampler(open_fake(gpu), gpu, lambda: {child})
    assert sampler.sample()["gpu_other_share"] == 0.07
    assert sampler.sample()["gpu_other_share"] == 0  # nothing new since then


def test_where_this_process_cannot_be_found_nothing_is_said_of_others():
    gpu = FakeGpu(processes=[17], utilisation={17: 90})
    sampler = GpuSampler(open_fake(gpu), gpu)
    assert "gpu_other_share" not in sampler.sample()
    assert "not among those" in sampler.missing["gpu_other_share"]
    gpu.processes.append(os.getpid())
    assert sampler.sample()["gpu_other_share"] == 0.9
    assert "gpu_other_share" not in sampler.missing
