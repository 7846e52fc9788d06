from __future__ import annotations

import getpass
import json
import os
import platform
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from dyninfer.benchmarks.machine import describe as machine
from dyninfer.benchmarks.memory import peak_memory_mib, peak_of_status
from dyninfer.hardware import cpu_field
from tests.benchmarks.machine.machine_trees import orin_nano, write_tree
from tests.benchmarks.machine.nvml_standin import FakeGpu, FakeNvml

CPUINFO = """processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu vme avx2 avx512f avx512_vnni unrelated
processor\t: 1
model name\t: Some CPU @ 2.00GHz
"""


def test_this_machine_is_described():
    found = machine.describe_machine()
    assert found.cpu
    assert 1 <= found.usable_cores <= (os.cpu_count() or 1)
    assert found.python.endswith(platform.python_version())
    assert {"numpy", "onnxruntime", "dyninfer"} <= set(found.versions)


def test_the_description_names_neither_host_nor_paths():
    text = json.dumps(asdict(machine.describe_machine()))
    assert platform.node() not in text.split('"')
    assert str(Path.home()) not in text
    assert f"/{getpass.getuser()}" not in text
    paths = re.findall(r"/[^/\s\"]+", text)
    assert set(paths) <= {"/sys", "/devices", "/system", "/cpu", "/cpufreq"}


def test_a_machine_reads_back_as_it_was_written():
    found = machine.describe_machine()
    read = TypeAdapter(machine.Machine).validate_json(json.dumps(asdict(found)))
    assert read == found


NEW_FIELDS = (
    *("cpu_state", "host", "nvidia_driver", "cuda_driver", "cuda_toolkit", "gpus", "jetson"),
    "missing",
)


def test_a_machine_of_before_reads_back():
    old = asdict(machine.describe_machine())
    for name in NEW_FIELDS:
        del old[name]
    read = TypeAdapter(machine.Machine).validate_json(json.dumps(old))
    assert (read.cpu_state, read.gpus, read.missing) == (None, (), {})


def test_what_could_not_be_told_says_why(tmp_path):
    found = machine.describe_machine(tmp_path, lambda: (None, "no driver"))
    assert found.missing["NVIDIA GPUs"] == "no driver"
    assert "cpu clocks" in found.missing
    assert (found.memory_gib, found.cpu_flags) == (None, ())


def test_no_number_of_a_single_device_is_kept(tmp_path):
    nvml = FakeNvml(FakeGpu(uuid="GPU-1234-5678"))
    found = machine.describe_machine(write_tree(tmp_path, orin_nano()), nvml.load)
    assert "GPU-1234-5678" not in repr(found)
    assert "1424124000001" not in repr(found)


def test_model_and_relevant_flags_are_read():
    assert cpu_field(CPUINFO, "model name") == "Some CPU @ 2.00GHz"
    assert machine.cpu_flags(CPUINFO) == ("avx2", "avx512f", "avx512_vnni")


def test_arm_calls_its_flags_features():
    assert machine.cpu_flags("Features\t: fp asimd asimddp\n") == ("asimd", "asimddp")


def test_a_system_that_tells_nothing_gives_empty_answers():
    assert cpu_field("", "model name") == ""
    assert machine.cpu_flags("") == ()
    assert machine.memory_gib("") is None


def test_memory():
    assert machine.memory_gib("MemTotal:       24636428 kB\nMemFree: 1 kB\n") == 23.5


@pytest.mark.parametrize(
    ("release", "shown"),
    [("6.1.0-13-vendor", "Linux 6.1.0 x86_64"), ("", "Linux x86_64"), ("odd", "Linux x86_64")],
)
def test_a_release_is_shown_without_its_suffix(release, shown):
    assert machine.system_name("Linux", release, "x86_64") == shown


def test_only_installed_libraries_are_listed():
    assert set(machine.installed_versions(["numpy", "no-such-library"])) == {"numpy"}


def test_peak_memory_is_plausible():
    assert 10 < peak_memory_mib() < 100_000


def test_peak_memory_is_read_from_the_status():
    assert peak_of_status("VmPeak:\t 999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n") == 2
    with pytest.raises(OSError, match="VmHWM"):
        peak_of_status("Name:\tpython\n")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("", None),
        ("{}", None),
        ('{"cuda_cccl": {"version": "12.6.37"}}', None),
        (
            '{"cuda" : {\n "name" : "CUDA SDK",\n "version" : "12.6.11"\n },\n'
            ' "cuda_cccl" : {"version" : "12.6.37"}}',
            "12.6.11",
        ),
    ],
)
def test_the_toolkit_tells_its_version(text, version):
    assert machine.cuda_toolkit(text) == version
