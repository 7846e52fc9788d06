"""Work on foreign files in a child process, which may take only so much memory and time.

A file of a few kilobytes can make a library take all memory, never return, or crash. Both sides
write JSON lines. Where there is no Python interpreter to start (an application that was frozen),
the work is done in this process and nothing is limited; memory is limited on Linux alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dyninfer.errors
from dyninfer.errors import CheckpointError, DyninferError, ExportError
from dyninfer.foreign_errors import reason_of

Message = Mapping[str, Any]
Progress = Callable[[str], None]
Work = Callable[[Message, Progress], Message]
SILENCE_S = 300.0
"""A child that says nothing for so long hangs; one step of a large detector takes a minute."""


def run_limited(
    module: str, work: Work, request: Message, memory: int, what: str, progress: Progress
) -> Message:
    """What ``work`` makes of a request, from ``python -m module``, which calls :func:`serve`.

    Args:
        module: the child's.
        work: what that serves, for where no child can be started.
        request: as JSON has it, as is the answer.
        memory: bytes that the child may take.
        what: the work is on, for messages.
        progress: told what the child does next.

    Raises:
        DyninferError: what the child raised, under its own class.
        CheckpointError: the child took too much memory or time, or crashed.
        OSError: the child could not write a file.
    """
    if not sys.executable or getattr(sys, "frozen", False):
        return work(request, progress)
    modules = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    with tempfile.TemporaryFile() as errors:  # a pipe would fill up: nobody reads along
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": modules, "PYTHONSAFEPATH": "1"},
            start_new_session=True,  # Ctrl-C is this process's, which ends the child
        )
        hung = threading.Event()
        try:
            answer = _ask(process, {**request, "memory": memory}, progress, hung)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe is not None
                    pipe.close()
        if answer is None:
            raise CheckpointError(f"{what} {_why_it_ended(process, hung, errors)}; export it anew")
    if "error" in answer:
        raise _as_here(answer, what, memory)
    return answer


def _ask(
    process: subprocess.Popen[bytes], request: Message, progress: Progress, hung: threading.Event
) -> dict[str, Any] | None:
    """The child's answer, None where it ended without one."""

    def give_up() -> None:
        hung.set()
        process.kill()

    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    while True:
        timer = threading.Timer(SILENCE_S, give_up)
        timer.daemon = True
        timer.start()
        try:
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            return None
        answer: dict[str, Any] = json.loads(line)
        if "progress" not in answer:
            return answer
        progress(answer["progress"])


def _why_it_ended(process: subprocess.Popen[bytes], hung: threading.Event, errors: Any) -> str:
    if hung.is_set():
        return f"showed no progress for {SILENCE_S:g} s"
    errors.seek(0)
    said = errors.read()[-4000:].decode(errors="replace").strip().splitlines()
    end = f"status {process.returncode}" + (f": {said[-1][:200]}" if said else "")
    return f"ended the process that read it ({end})"


def _as_here(answer: Message, what: str, memory: int) -> Exception:
    """What the child raised, as an exception of this process."""
    kind, message = answer["error"], answer["message"]
    if kind == "MemoryError":
        return CheckpointError(
            f"{what} cannot be read and tried in {memory / 2**30:.0f} GB of memory ({message})"
        )
    if kind == "OSError":
        return OSError(answer["errno"], message)
    known = getattr(dyninfer.errors, kind, None)
    if isinstance(known, type) and issubclass(known, DyninferError):
        return known(message)
    unexpected = ExportError(f"{what} cannot be exported: {kind}: {message}")
    unexpected.__cause__ = RuntimeError(answer["traceback"])
    return unexpected


def serve(work: Work) -> None:
    """The child's side: limits itself, reads a request, answers it, and ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer

    def say(message: Message) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    request: dict[str, Any] = json.loads(sys.stdin.readline())
    _limit_memory(request.pop("memory"))
    try:
        say(work(request, lambda step: say({"progress": step})))
    except Exception as error:  # whatever it is, the parent tells it
        say(_described(error))


def _described(error: Exception) -> dict[str, Any]:
    told = {"error": type(error).__name__, "message": reason_of(error)}
    if isinstance(error, OSError):
        return {"error": "OSError", "errno": error.errno, "message": error.strerror or str(error)}
    if isinstance(error, DyninferError):
        return told
    return {**told, "traceback": "".join(traceback.format_exception(error))}


def _limit_memory(memory: int) -> None:
    """Private memory that can be written: what files map, and what is only reserved, is free."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
