"""A child process that answers commands: JSON lines in, JSON lines out.

It leads a session of its own, so that it can be ended together with whatever it has started, such
as a compiler.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar

from dyninfer.errors import DyninferError

END_TIMEOUT_S = 10.0
Message = Mapping[str, Any]
ChildT = TypeVar("ChildT", bound="Child")


class ChildError(DyninferError):
    """A child process could not do what it was asked for; the message is its reason."""


class Child:
    """The parent's side. A context manager: leaving it ends the process.

    After an exception, Ctrl-C included, the process and all that it started are killed at once;
    otherwise it may end by itself first.
    """

    def __init__(self, module: str) -> None:
        """Start ``python -m module``."""
        # a file, for nobody reads along: a pipe would fill up and block the child
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed by kill
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands, self._answers = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """The process's number, which is also its group's."""
        return self._process.pid

    def ask(self, command: Message) -> dict[str, Any]:
        """Send a command and wait for the answer.

        Raises:
            ChildError: the child refused, or ended.
        """
        try:
            self._commands.write(json.dumps(command) + "\n")
            self._commands.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ChildError(self._why_it_ended())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def _why_it_ended(self) -> str:
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "its process was killed, as happens when memory runs out"
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()
        return f"its process ended with status {status}" + (f": {said[-1]}" if said else "")

    def __enter__(self: ChildT) -> ChildT:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.kill()

    def close(self) -> None:
        """Let the process end; kill it where it does not."""
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill what is left of the process and of all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._commands.close()
        self._answers.close()
        self._errors.close()


def answer_all(handle: Callable[[Message], Message], commands: IO[str], answers: IO[str]) -> None:
    """Answer commands until there are no more; a failure is answered in one line."""
    for line in commands:
        try:
            answer = handle(json.loads(line))
        except Exception as error:  # whatever a contender fails with is for the parent to report
            answer = {"error": one_line(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def one_line(error: Exception) -> str:
    """What went wrong; our own messages need no type in front."""
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if isinstance(error, DyninferError) else f"{type(error).__name__}: {lines[0]}"


def serve(handle: Callable[[Message], Message]) -> None:
    """The child's side: standard input and output; what libraries print goes to its errors."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    answer_all(handle, sys.stdin, answers)
