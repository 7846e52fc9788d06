"""ONNX Runtime's telemetry stays off: no look-up of a host, no file outside the bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support

SCRIPT = """
import sys, time
import numpy as np
import dyninfer

with dyninfer.load(sys.argv[1]) as detector:
    detector(np.zeros((8, 8, 3), np.uint8))
    time.sleep(1)
"""


def predict(tmp_path: Path, *before: str, **environment: str) -> list[Path]:
    """Files that a first prediction leaves below the home and temporary folders."""
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    folders = {name: tmp_path / name for name in ("home", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    subprocess.run(
        [*before, sys.executable, "-c", SCRIPT, str(bundle)],
        env={
            **inherited,
            "HOME": str(folders["home"]),
            "TMPDIR": str(folders["temporary"]),
            **environment,
        },
        check=True,
        timeout=60,
    )
    return [path for folder in folders.values() for path in folder.rglob("*") if path.is_file()]


def test_a_prediction_leaves_no_file_behind(tmp_path) -> None:
    assert not predict(tmp_path)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_prediction_opens_no_connection(tmp_path) -> None:
    log = tmp_path / "calls.txt"
    predict(tmp_path, "strace", "-f", "-o", str(log), "-e", "trace=connect,sendto,sendmmsg")
    calls = log.read_text()
    assert "exited" in calls
    assert "AF_INET" not in calls
