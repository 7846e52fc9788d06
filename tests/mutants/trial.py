"""Whether the tests of a module notice a change of it."""

from __future__ import annotations

import compileall
import contextlib
import gc
import importlib
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

from tests.mutants.callers import Watcher, tests_of
from tests.mutants.draw import Mutant
from tests.mutants.modules import MODULES

ROOT = Path(__file__).parents[2]
SPEEDS = ("not slow", "slow")
OURS = ("tests", "dyninfer")
PACKAGES = ("dyninfer", "engines", "exporters", "benchmarks")
# Imported once, and not anew for every change: each trial is a fork of this process.
FOREIGN = ("cv2", "hypothesis", "onnx", "onnx_ir", "onnxruntime", "pydantic", "sympy", "torch")
PASSED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
Tests = tuple[str, ...]


@dataclass(frozen=True)
class Unchanged:
    """What tests take without any change: seconds of the processor and of the clock."""

    processor_s: float
    wall_s: float
    callers: Path


class Checkout:
    """A copy of the files that git knows or would, in which one module at a time is another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.output = folder, folder / "checkout", folder / "output.txt"
        self._unchanged: dict[tuple[Tests, str], Unchanged] = {}
        for name in FOREIGN:
            importlib.import_module(name)
        gc.freeze()  # forks need not look at what was imported
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target, follow_symlinks=False)
        for package in PACKAGES:
            mode = PycInvalidationMode.CHECKED_HASH
            compileall.compile_dir(self.root / package, quiet=2, invalidation_mode=mode)

    def notices(self, mutant: Mutant) -> bool:
        """Whether a test fails, or nothing comes back in time: fast tests first, then slow ones.

        Those come first that call the function which was changed; all others too where a fixture of
        several tests calls it, or none in this process.

        Raises:
            RuntimeError: a test fails without any change.
        """
        tests, path = MODULES[mutant.module], self.root / mutant.module
        original = path.read_bytes()
        for speed in SPEEDS:
            before = self._without_change(tests, speed)
            callers, callers_s, are_all = tests_of(before.callers, path, mutant.line)
            path.write_text(mutant.text, encoding="utf-8")
            try:
                # the name of a test may be one that pytest does not find again
                found = self._status(callers, speed, 5 + 2 * callers_s, 60 + 10 * before.wall_s)
                if found is pytest.ExitCode.USAGE_ERROR or (found in PASSED and not are_all):
                    limits = 5 + 2 * before.processor_s, 60 + 10 * before.wall_s
                    found = self._status(tests, speed, *limits)
            finally:
                path.write_bytes(original)
            if found not in PASSED:
                return True
        return False

    def _without_change(self, tests: Tests, speed: str) -> Unchanged:
        if (tests, speed) not in self._unchanged:
            report = self.folder / f"callers-{len(self._unchanged)}.json"
            begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            if self._status(tests, speed, 1200, 3600, report) not in PASSED:
                told = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
                failed = [line for line in told if line.startswith(("FAILED", "ERROR"))]
                raise RuntimeError(f"a test fails without any change: {failed or told[-3:]}")
            spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
            found = Unchanged(spent, time.monotonic() - begun, report)
            self._unchanged[tests, speed] = found
        return self._unchanged[tests, speed]

    def _status(
        self,
        tests: Tests,
        speed: str,
        processor_s: float,
        wall_s: float,
        report: Path | None = None,
    ) -> pytest.ExitCode | None:
        """How pytest ended, or None: not in time, or not by itself. Other load lengthens one time.

        Which tests call which function is written into ``report``. No tests pass.
        """
        if not tests:
            return pytest.ExitCode.OK
        process = os.fork()
        if not process:
            self._become_pytest(tests, speed, int(processor_s), report)
        deadline = time.monotonic() + wall_s
        ended, status = 0, 0
        try:
            while not ended and time.monotonic() < deadline:
                time.sleep(0.02)
                ended, status = os.waitpid(process, os.WNOHANG)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, 9)  # itself, or what it has left
            if not ended:
                os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status) if ended else None
        return next((known for known in pytest.ExitCode if known == code), None)

    def _become_pytest(
        self, tests: Tests, speed: str, processor_s: int, report: Path | None
    ) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (processor_s, processor_s + 5))
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(output, stream)
            os.chdir(self.root)
            os.environ.setdefault("DYNINFER_SHARED", str(ROOT.parent / "shared"))
            os.environ["PYTHONPATH"] = str(self.root)
            # bytecode of another change, of the same second and size, would pass for this one's
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True
            sys.path[:] = [str(self.root), *(p for p in sys.path if Path(p).resolve() != ROOT)]
            for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
                del sys.modules[name]
            flags = ["-x", "-q", "-p", "no:cacheprovider", "-m", speed]
            plugins = [] if report is None else [Watcher(self.root, report)]
            place = ["--basetemp", str(self.folder / "basetemp")]
            status = int(pytest.main([*flags, *place, *tests], plugins))
        finally:
            os._exit(status)
