from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import dyninfer.benchmarks.machine as package
from dyninfer.benchmarks.machine.gpu import THROTTLE_REASONS
from dyninfer.benchmarks.machine.nvml import find_handle, load_nvml, start_nvml
from tests.benchmarks.machine import nvml_standin
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml

SOURCES = sorted(Path(package.__file__).resolve().parent.glob("*.py"))
FUNCTIONS = sorted(name for name in vars(FakeNvml) if name.startswith("nvml"))


def parameters(function: object) -> list[str]:
    assert callable(function)
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_every_name_that_the_code_uses_is_one_of_the_stand_in():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used = set(re.findall(r"\bnvml(?:Device|System|Init|Shutdown)\w*", text))
    assert used == set(FUNCTIONS)
    assert len(FUNCTIONS) > 25


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_real_package_has_the_functions_of_the_stand_in(name):
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    real = inspect.signature(getattr(pynvml, name)).parameters.values()
    required = [p.name for p in real if p.default is inspect.Parameter.empty]
    assert parameters(getattr(FakeNvml, name)) == required


def test_constants_of_the_real_package():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert issubclass(pynvml.NVMLError, Exception)
    for name in ("NVML_CLOCK_SM", "NVML_CLOCK_MEM", "NVML_TEMPERATURE_GPU"):
        assert getattr(pynvml, name) == getattr(FakeNvml, name)


def test_reasons_have_the_bits_of_the_real_package():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    all_reasons = pynvml.nvmlClocksEventReasonAll | pynvml.nvmlClocksThrottleReasonAll
    chosen = (
        pynvml.nvmlClocksEventReasonGpuIdle
        | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
        | pynvml.nvmlClocksEventReasonDisplayClockSetting
    )
    newer = 0 if hasattr(pynvml, "nvmlClocksThrottleReasonBoardLimit") else 0x600
    assert sum(THROTTLE_REASONS) == all_reasons & ~chosen | newer
    assert "power limit" in THROTTLE_REASONS[pynvml.nvmlClocksEventReasonSwPowerCap]
    assert "(hardware)" in THROTTLE_REASONS[pynvml.nvmlClocksEventReasonHwThermalSlowdown]


def test_errors_read_as_in_the_real_package():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for text, code in (
        (nvml_standin.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED),
        (nvml_standin.NOT_FOUND, pynvml.NVML_ERROR_NOT_FOUND),
        (nvml_standin.LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
    ):
        assert str(pynvml.NVMLError(code)) == text


def test_results_have_the_fields_that_are_read():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    fields = {name for name, *_ in pynvml.c_nvmlProcessUtilizationSample_t._fields_}
    assert {"pid", "timeStamp", "smUtil"} <= fields
    assert "total" in {name for name, *_ in pynvml.c_nvmlMemory_t._fields_}
    assert "pid" in {name for name, *_ in pynvml.c_nvmlProcessInfo_v3_t._fields_}


def test_an_absent_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    nvml, why = load_nvml()
    assert nvml is None
    assert "[report]" in why


def test_an_absent_driver_is_told_in_nvmls_words():
    nvml, why = start_nvml(FakeNvml(broken=nvml_standin.LIBRARY_NOT_FOUND))
    assert nvml is None
    assert "NVML Shared Library Not Found" in why


def open_fake(*gpus: FakeGpu) -> FakeNvml:
    fake = FakeNvml(*gpus)
    fake.nvmlInit()
    return fake


def test_the_only_gpu_is_the_first():
    gpu = FakeGpu()
    assert find_handle(open_fake(gpu), "cuda:0", {}) == (gpu, "")
    assert find_handle(open_fake(gpu), "cuda", {"CUDA_VISIBLE_DEVICES": "0"}) == (gpu, "")


@pytest.mark.parametrize(
    ("gpus", "device", "environment"),
    [
        ((), "cuda:0", {}),
        ((FakeGpu(),), "cuda:1", {}),
        ((FakeGpu(), FakeGpu()), "cuda:0", {}),
        ((FakeGpu(),), "cuda:0", {"CUDA_VISIBLE_DEVICES": "-1"}),
        (
            (FakeGpu(), FakeGpu()),
            "cuda:1",
            {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "1"},
        ),
        ((FakeGpu(),), "cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-of-somebody"}),
    ],
)
def test_a_gpu_is_never_guessed(gpus, device, environment):
    handle, why = find_handle(open_fake(*gpus), device, environment)
    assert handle is None
    assert device in why


def test_of_several_gpus_the_environment_tells():
    first, second = FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b")
    nvml, by_bus = open_fake(first, second), {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert find_handle(nvml, "cuda:1", by_bus)[0] is second
    assert find_handle(nvml, "cuda:1", by_bus | {"CUDA_VISIBLE_DEVICES": "1,0"})[0] is first
    assert find_handle(nvml, "cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-b"})[0] is second
