from __future__ import annotations

import getpass
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

import pytest

from dyninfer.benchmarks.machine import describe as machine
from dyninfer.benchmarks.memory import peak_memory_mib, peak_of_status

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
    assert "/" not in text


def test_model_and_relevant_flags_are_read():
    assert machine.cpu_model(CPUINFO) == "Some CPU @ 2.00GHz"
    assert machine.cpu_flags(CPUINFO) == ("avx2", "avx512f", "avx512_vnni")


def test_arm_calls_its_flags_features():
    assert machine.cpu_flags("Features\t: fp asimd asimddp\n") == ("asimd", "asimddp")


def test_a_system_that_tells_nothing_gives_empty_answers():
    assert machine.cpu_model("") == ""
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
