"""Which tests call which function, so that those which may notice a change are run first."""

from __future__ import annotations

import ast
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

MOST = 40  # tests that are run alone
ENOUGH = 200_000  # calls of a test that are looked at: to look takes longer than most calls
SHARED = ""  # in the place of a test: a fixture of several
ANY = ("", 0)  # in the place of a function: whatever a test called after that


class Watcher:
    """A plugin of pytest that writes, for each function called, which tests call it.

    The file holds ``{path: {line: [[seconds, test], ...]}}``, where a line is the first of a
    function, decorators included, and the test is :data:`SHARED` for what a fixture calls that
    several tests have in common.
    """

    def __init__(self, checkout: Path, report: Path) -> None:
        self._package, self._report = f"{checkout / 'dyninfer'}/", report
        self._now: set[tuple[str, int]] = set()
        self._calls = 0
        self._found: dict[str, dict[int, list[tuple[float, str]]]] = defaultdict(dict)

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        self._calls += 1
        if self._calls > ENOUGH:
            sys.settrace(None)
            self._now.add(ANY)
        code = frame.f_code
        if code.co_filename.startswith(self._package):
            self._now.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note what a test calls."""
        self._now.clear()
        self._calls = 0
        begun = time.process_time()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)
            self._note(time.process_time() - begun, item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """Note what a fixture calls that does not belong to one test."""
        before, self._now = self._now, set()
        try:
            return (yield)
        finally:
            if fixturedef.scope != "function":
                self._note(0.0, SHARED)
            self._now |= before

    def _note(self, spent: float, test: str) -> None:
        for name, line in tuple(self._now):  # a thread may still add to it
            self._found[name].setdefault(line, []).append((spent, test))

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        found = {name and str(Path(name).resolve()): lines for name, lines in self._found.items()}
        self._report.write_text(json.dumps(found), encoding="utf-8")


def tests_of(report: Path, path: Path, line: int) -> tuple[tuple[str, ...], float, bool]:
    """The quickest tests that call the function of a line of a file, their seconds, and if no more.

    None, where a line is in no function.
    """
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    if not functions:
        return (), 0.0, False
    inner = max(functions, key=lambda node: node.lineno)
    first = min([inner.lineno, *(part.lineno for part in inner.decorator_list)])
    found = json.loads(report.read_text(encoding="utf-8"))
    called = [
        found.get(name, {}).get(str(n), []) for name, n in ((str(path.resolve()), first), ANY)
    ]
    callers = sorted({(seconds, test) for each in called for seconds, test in each})
    own = [caller for caller in callers if caller[1] != SHARED]
    chosen = own[:MOST]
    tests = tuple(test for _, test in chosen)
    are_all = bool(called[0]) and len(callers) == len(chosen)
    return tests, sum(seconds for seconds, _ in chosen), are_all
