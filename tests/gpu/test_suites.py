"""What make test-gpu and make test-cuda do around the tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dyninfer.benchmarks.lab.image_cost import GPUS
from dyninfer.benchmarks.machine.describe import Machine, describe_machine
from dyninfer.benchmarks.machine.gpu import Gpu
from dyninfer.benchmarks.machine.jetson import Jetson
from tests import support
from tests.gpu import __main__ as suites
from tests.gpu.choosing import Choice, Found, NoTensorRTError

HERE = describe_machine()
V100 = replace(HERE, gpus=(Gpu(compute_capability="7.0"),), cuda_driver="12.4", jetson=None)


def test_the_first_gpu_is_found_with_its_driver() -> None:
    found = suites.find(V100)
    assert (found.capability, found.cuda, found.jetson) == ("7.0", (12, 4), False)
    assert suites.find(replace(V100, cuda_driver=None, cuda_toolkit=None)).cuda is None


@pytest.mark.parametrize(
    ("model", "capability"),
    [("NVIDIA Jetson AGX Orin", "8.7"), ("NVIDIA Jetson AGX Thor", "11.0")],
)
def test_a_jetson_is_known_by_its_model(model: str, capability: str) -> None:
    machine = replace(HERE, jetson=Jetson(model), cuda_driver=None, cuda_toolkit="12.6.68")
    found = suites.find(machine)
    assert (found.capability, found.cuda, found.jetson) == (capability, (12, 6), True)


def test_no_gpu_is_one_line_and_status_1(monkeypatch, capsys) -> None:
    none: Machine = replace(HERE, gpus=(), jetson=None, missing={"NVIDIA GPUs": "no driver"})
    monkeypatch.setattr(suites, "describe_machine", lambda: none)
    assert suites.main(["cuda"]) == 1
    assert capsys.readouterr().err == "nothing can be tested on a GPU here: no driver\n"
    nano = replace(HERE, jetson=Jetson("NVIDIA Jetson Nano"))
    with pytest.raises(NoTensorRTError, match="Nano is a Jetson that is not known"):
        suites.find(nano)


@pytest.mark.parametrize(
    ("capability", "cuda", "package"),
    [
        ("7.0", (13, 0), "<13"),
        ("8.6", (12, 8), "<13"),
        ("8.6", (13, 0), ">=13"),
        ("6.1", None, "<13"),
    ],
)
def test_pytorch_needs_bindings_of_the_driver_s_cuda(capability, cuda, package) -> None:
    (chosen,) = suites.chosen_for("cuda", Found(capability, cuda, (3, 12))).packages
    assert package in chosen


@pytest.fixture
def asked_for(monkeypatch) -> list[tuple[str, ...]]:
    """What pip is told to install; it makes the folder and nothing more."""
    asked: list[tuple[str, ...]] = []

    def pip(folder: Path, arguments: tuple[str, ...], _limit: int) -> None:
        folder.mkdir(exist_ok=True)
        asked.append(arguments)

    monkeypatch.setattr(suites, "_pip", pip)
    monkeypatch.setattr(suites.shutil, "which", lambda _name: None)
    return asked


def test_packages_are_installed_once_and_anew_where_others_are_wanted(
    tmp_path: Path, asked_for: list, capsys
) -> None:
    folder, choice = tmp_path / "packages", Choice(("tensorrt-cu12==10.4.0",), "why")
    for wanted in (choice, choice, Choice(("tensorrt-cu13",), "why")):
        assert suites.install(wanted, folder) is None
    assert asked_for == [("tensorrt-cu12==10.4.0",), ("tensorrt-cu13",)]
    assert "without PyCUDA: it is built with nvcc" in capsys.readouterr().out


def test_a_failed_installation_is_not_taken_for_one(
    tmp_path: Path, asked_for: list, monkeypatch
) -> None:
    pip, folder = suites._pip, tmp_path / "packages"
    monkeypatch.setattr(suites, "_pip", lambda *_asked: "no matching distribution")
    assert suites.install(Choice(("tensorrt",), ""), folder) == "no matching distribution"
    monkeypatch.setattr(suites, "_pip", pip)
    assert suites.install(Choice(("tensorrt",), ""), folder) is None
    assert asked_for == [("tensorrt",)]


def test_pip_says_in_one_line_why_it_failed(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.whl")
    said = suites._pip(tmp_path / "to", ("--no-index", missing), 60)
    assert said is not None
    assert "none.whl failed (ERROR: " in said
    assert "\n" not in said
    assert "more than 0 s; run it again" in str(suites._pip(tmp_path / "to", (missing,), 0))


def test_what_a_stopped_command_has_started_ends_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    child = f"import pathlib, time; time.sleep(1.5); pathlib.Path({str(mark)!r}).touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(subprocess.TimeoutExpired):
        suites.run_limited([sys.executable, "-c", parent], 0.7)
    time.sleep(1.5)
    assert not mark.exists()


@pytest.mark.slow
def test_a_suite_runs_is_reported_and_set_beside_the_model(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    """The whole way, with two quick tests on the simulated machine."""
    monkeypatch.setattr(suites, "describe_machine", lambda: V100)
    chosen = ("-m", "not gpu", "-k", "stand-in and (copies or memory)")
    monkeypatch.setitem(suites.SUITES, "cuda", chosen)
    monkeypatch.chdir(tmp_path)
    report = tmp_path / "report.json"

    assert suites.main(["cuda", "--no-install", "--report", str(report)]) == 0

    said = capsys.readouterr().out
    assert "compute capability 7.0: cuda-python>=12.6,<13" in said
    assert "2 passed, 0 failed, 0 skipped" in said
    assert "Too much memory is refused in one line (stand-in)" in said
    assert said.count("settled") == 2
    assert "| us a wait | - |" in said
    found = json.loads(report.read_text("utf-8"))
    assert set(found["figures"]) == {"bus_gb_s", "memory_gb_s", "call_us", "wait_us"}
    assert "reason" in next(iter(found["tests"].values()))


def test_a_suite_that_takes_too_long_is_stopped(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(suites, "describe_machine", lambda: V100)
    monkeypatch.setattr(suites, "LIMIT_S", 0.05)
    report = tmp_path / "report.json"
    report.write_text("of an earlier run", "utf-8")
    assert suites.main(["cuda", "--no-install", "--report", str(report)]) == 1
    said = capsys.readouterr().out
    assert "stopped after" in said
    assert "no test came to an end" in said


def test_a_table_says_what_broke_and_what_stays_open(tmp_path: Path, capsys) -> None:
    entry = {"settles": "Graphs.", "outcome": "passed", "seconds": 1.25, "reason": ""}
    tests = {
        "test_a[tensorrt]": entry,
        "test_b[tensorrt]": entry | {"outcome": "failed", "reason": "E   assert 1 == 2"},
        "test_c": entry | {"outcome": "skipped", "reason": "there is one GPU"},
    }
    machine = {"gpu": "Tesla V100", "compute_capability": "7.0"}
    figures = {"tflops": GPUS[0].coefficients.tflops}
    counts = {"passed": 1, "failed": 1, "skipped": 1}
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"machine": machine, "figures": figures, "tests": tests} | counts))
    assert suites.tell(report) == 1
    said = capsys.readouterr().out
    assert "on Tesla V100: 1 passed, 1 failed, 1 skipped" in said
    assert "settled     1.2 s  Graphs (tensorrt)\n" in said
    assert "BROKEN      1.2 s  Graphs (tensorrt): E   assert 1 == 2" in said
    assert "open        1.2 s  Graphs.: there is one GPU" in said
    assert "| TFLOP/s in fp16 | 55.41 | 55.41 | 1.00 |" in said
    assert (tmp_path / "report.txt").read_text("utf-8") in said


def test_make_runs_them_within_eight_minutes() -> None:
    assert suites.LIMIT_S <= 8 * 60
    assert suites.INSTALL_S + suites.PYCUDA_S < suites.LIMIT_S
    makefile = (support.ROOT / "Makefile").read_text("utf-8")
    for suite in suites.SUITES:
        assert f"-m tests.gpu {suite}" in makefile
    assert suites.OVERLAY.name in makefile
    assert f"{suites.OVERLAY.name}/" in (support.ROOT / ".gitignore").read_text("utf-8")
