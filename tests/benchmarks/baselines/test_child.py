from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dyninfer.benchmarks.baselines.child import Child, ChildError, answer_all
from dyninfer.errors import InputError

GRAPH = "dyninfer.benchmarks.baselines.single_graph"
WORKER = "dyninfer.benchmarks.baselines.worker"


def is_running(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_failures_are_answered_in_one_line_and_the_child_goes_on() -> None:
    def handle(command):
        if "ours" in command:
            raise InputError("ours, in one line")
        if "theirs" in command:
            raise RuntimeError("theirs\nwith a second line")
        return {"got": command["x"]}

    commands = io.StringIO('{"ours": 1}\n{"theirs": 1}\n{"x": 3}\n')
    answers = io.StringIO()
    answer_all(handle, commands, answers)
    assert [json.loads(line) for line in answers.getvalue().splitlines()] == [
        {"error": "ours, in one line"},
        {"error": "RuntimeError: theirs"},
        {"got": 3},
    ]


def test_a_refusal_is_raised_and_leaving_ends_the_process(tmp_path) -> None:
    with Child(GRAPH) as child:
        with pytest.raises(ChildError, match=r"none\.dyn"):
            child.ask({"bundle": str(tmp_path / "none.dyn"), "output": "x", "files": {}})
        assert is_running(child.pid)
    assert not is_running(child.pid)


def test_a_module_that_does_not_start_tells_why() -> None:
    with Child("dyninfer.no_such_module") as child, pytest.raises(ChildError) as caught:
        child.ask({})
    assert "no_such_module" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_process_that_is_killed_says_so() -> None:
    with Child(WORKER) as child:
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(ChildError, match="killed, as happens when memory runs out"):
            child.ask({"memory": True})


@pytest.mark.parametrize("error", [KeyboardInterrupt, ChildError])
def test_an_exception_kills_the_process_at_once(error) -> None:
    child = Child(WORKER)
    start = time.monotonic()
    with pytest.raises(error), child:
        raise error
    assert not is_running(child.pid)
    assert time.monotonic() - start < 5  # not after its own time


INTERRUPTED = """
import sys, time
from dyninfer.benchmarks.baselines.child import Child
with Child("dyninfer.benchmarks.baselines.worker") as child:
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_ctrl_c_leaves_nothing_running() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert is_running(pid)
    parent.send_signal(signal.SIGINT)
    parent.wait(10)
    parent.stdout.close()
    assert not is_running(pid)
