"""``make test-gpu`` and ``make test-cuda``: find the GPU, install what fits it, test, tell.

``python -m tests.gpu tensorrt`` installs the TensorRT that fits into a folder of its own and runs
:mod:`tests.gpu` on it; ``python -m tests.gpu cuda`` puts PyTorch in TensorRT's place. Either ends
within eight minutes, and what was found by then is in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dyninfer.benchmarks.lab.image_report import compare
from dyninfer.benchmarks.machine.describe import Machine, describe_machine
from dyninfer.errors import InputError
from tests.gpu.choosing import Choice, Found, NoTensorRTError, choose
from tests.gpu.report import REPORT, table

ROOT = Path(__file__).parents[2]
OVERLAY = ROOT / ".gpu-packages"
LIMIT_S, INSTALL_S, PYCUDA_S = 480, 200, 90
JETSONS = {"Xavier": "7.2", "Orin": "8.7", "Thor": "11.0"}
SUITES = {
    "tensorrt": ("-m", "gpu", "-k", "tensorrt or provider"),
    "cuda": ("-m", "gpu", "-k", "pytorch"),
}
"""By name, which tests pytest is told to run."""
PYCUDA = ("--no-deps", "pycuda", "pytools", "siphash24")
"""What else it needs is in requirements.lock; another NumPy must not come before that one's."""
CUDA_PYTHON = {12: "cuda-python>=12.6,<13", 13: "cuda-python>=13,<14"}


def find(machine: Machine) -> Found:
    """The first GPU of a machine.

    Raises:
        NoTensorRTError: there is none.
    """
    python = (sys.version_info.major, sys.version_info.minor)
    cuda = _parts(machine.cuda_driver or machine.cuda_toolkit)
    if machine.jetson is not None:
        names = (capability for name, capability in JETSONS.items() if name in machine.jetson.model)
        capability = next(names, None)
        if capability is None:
            raise NoTensorRTError(f"{machine.jetson.model} is a Jetson that is not known here")
        return Found(capability, cuda, python, jetson=True)
    capability = machine.gpus[0].compute_capability if machine.gpus else None
    if capability is None:
        raise NoTensorRTError(machine.missing.get("NVIDIA GPUs", "the driver tells of no GPU"))
    return Found(capability, cuda, python)


def _parts(version: str | None) -> tuple[int, int] | None:
    if version is None:
        return None
    major, _, minor = version.partition(".")
    return int(major), int(minor.partition(".")[0] or 0)


def chosen_for(suite: str, found: Found) -> Choice:
    """What a suite needs to be installed.

    Raises:
        NoTensorRTError: there is no TensorRT, and the suite is that of TensorRT.
    """
    if suite == "tensorrt":
        return choose(found)
    major = (
        13 if found.cuda is not None and found.cuda[0] >= 13 and found.capability != "7.0" else 12
    )
    return Choice((CUDA_PYTHON[major],), "PyTorch stands in for TensorRT")


def install(choice: Choice, folder: Path) -> str | None:
    """Put the packages into a folder of their own, once; why that failed, if it did."""
    done = folder / "installed.txt"
    wanted = "\n".join(choice.packages)
    if not (done.exists() and done.read_text("utf-8") == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        failed = _pip(folder, choice.packages, INSTALL_S)
        if failed is not None:
            return failed
        for module in choice.of_the_system:
            link_to_system(module, folder)
        done.write_text(wanted, "utf-8")
    if "pycuda" not in {path.name for path in folder.iterdir()}:
        failed = (
            _pip(folder, PYCUDA, PYCUDA_S)
            if shutil.which("nvcc")
            else "it is built with nvcc, which is not on the PATH"
        )
        print(f"without PyCUDA: {failed}" if failed else "with PyCUDA")
    return None


def _pip(folder: Path, arguments: tuple[str, ...], limit_s: float) -> str | None:
    """Install into a folder; why that failed, if it did."""
    asked = f"pip install {' '.join(arguments)}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--target", str(folder), *arguments]
    environment = os.environ | {"CFLAGS": "-O0 -w"}  # what is compiled only calls CUDA
    try:
        status, said = run_limited(command, limit_s, env=environment, stderr=subprocess.PIPE)
    except subprocess.TimeoutExpired:
        return f"{asked} took more than {limit_s:.0f} s; run it again"
    reason = (said or "it said nothing").strip().splitlines()[-1]
    return f"{asked} failed ({reason}); run it by itself to see all of it" if status else None


def run_limited(command: list[str], limit_s: float, **how: Any) -> tuple[int, str | None]:
    """Status and stderr of a command, which is ended with all that it has started.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **how) as process:
        try:
            _, said = process.communicate(timeout=limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, said


def link_to_system(module: str, folder: Path) -> None:
    """Make one module of the system's own Python visible, and nothing else of it."""
    for packages in (f"python3.{sys.version_info.minor}", "python3"):
        found = Path("/usr/lib") / packages / "dist-packages" / module
        if found.is_dir():
            (folder / module).symlink_to(found)
            return


def run_suite(suite: str, report: Path, limit_s: float) -> int:
    """Run pytest for so long at most; its status, or 1 where it had to be stopped."""
    report.unlink(missing_ok=True)
    path = os.pathsep.join(
        part for part in (str(OVERLAY), str(ROOT), os.environ.get("PYTHONPATH", "")) if part
    )
    environment = os.environ | {"PYTHONPATH": path, REPORT: str(report)}
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += [*SUITES[suite], "tests/gpu"]
    try:
        return run_limited(command, limit_s, cwd=ROOT, env=environment)[0]
    except subprocess.TimeoutExpired:
        print(f"stopped after {limit_s:.0f} s, before all tests had run")
        return 1


def tell(report: Path) -> int:
    """Print what a report says, and the model's assumptions beside it; the tests that passed.

    The same is written beside the report, as text.
    """
    if not report.exists():
        print("no test came to an end")
        return 0
    found: dict[str, Any] = json.loads(report.read_text("utf-8"))
    try:
        compared = compare(found)
    except InputError as error:
        compared = str(error)
    text = f"{table(found)}\n\n{compared}\n"
    report.with_suffix(".txt").write_text(text, "utf-8")
    print(f"\n{text}\n{report} and {report.with_suffix('.txt').name} hold all of it.")
    return int(found["passed"])


def main(arguments: list[str] | None = None) -> int:
    """0 if everything that could be tested passed, and something did."""
    begun = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--report", type=Path, default=Path("gpu-report.json"))
    parser.add_argument("--no-install", action="store_true", help="test with what is there")
    asked = parser.parse_args(arguments)
    try:
        found = find(describe_machine())
        choice = chosen_for(asked.suite, found)
    except NoTensorRTError as error:
        print(f"nothing can be tested on a GPU here: {error}", file=sys.stderr)
        return 1
    print(f"compute capability {found.capability}: {', '.join(choice.packages)} ({choice.why})")
    failed = None if asked.no_install else install(choice, OVERLAY)
    if failed is not None:
        print(f"nothing can be tested: {failed}", file=sys.stderr)
        return 1
    status = run_suite(asked.suite, asked.report.resolve(), LIMIT_S - (time.monotonic() - begun))
    passed = tell(asked.report)
    return status if passed else status or 1


if __name__ == "__main__":
    sys.exit(main())
