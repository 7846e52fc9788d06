"""As a user for whom another has installed: bundle, working folder and home are read-only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.dyninfer.cli.run import write_picture

NOBODY = 65534
USER = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def a_user_can_run_this_python() -> bool:
    """Where root runs the tests: its Python may lie in a home that is closed to others."""
    if shutil.which("setpriv") is None:
        return False
    done = subprocess.run([*USER, sys.executable, "-c", ""], capture_output=True, check=False)
    return done.returncode == 0


pytestmark = pytest.mark.skipif(
    os.name == "nt" or (os.geteuid() == 0 and not a_user_can_run_this_python()),
    reason="needs a user who may not write everywhere and can run this Python",
)

# all in one process, since most of the time goes into imports
CHILD = """
import contextlib, io, json, os, sys
import dyninfer
from dyninfer.cli import build_auto, build_run, calibrate, main

def too_early(*_, **__):
    raise AssertionError("it has begun to work")

calibrate.run_calibration = build_run._convert = build_auto._measure = too_early
answers = []
for arguments in json.loads(sys.argv[1]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as stopped:
            status = stopped.code or 0
    answers.append([status, out.getvalue(), err.getvalue()])
with dyninfer.load("a.dyn") as detector:
    boxes = len(detector("photos/40.png").boxes_xyxy)
print(json.dumps([answers, boxes, os.access("a.dyn", os.W_OK)]))
"""


@pytest.fixture
def installed(small_bundle: Path, small_checkpoint: Path, small_yaml: Path) -> Iterator[Path]:
    """A bundle, what it was made from and pictures, where nothing may be written but in ``own``."""
    with tempfile.TemporaryDirectory() as made:  # pytest's own folders are closed to others
        folder = Path(made)
        shutil.copytree(small_bundle, folder / "a.dyn")
        shutil.copy(small_checkpoint, folder / "a.pt")
        shutil.copy(small_yaml, folder / "a.yaml")
        (folder / "photos").mkdir()
        for height in (40, 50):
            write_picture(folder / "photos" / f"{height}.png", height, 60)
        closed = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
        (folder / "own").mkdir()
        (folder / "own").chmod(0o777)
        for path in closed:
            path.chmod(0o555)
        yield folder
        for path in closed:
            path.chmod(0o755)


def test_a_read_only_bundle_that_is_replaced_leaves_nothing() -> None:
    """As its owner, who may change its mode."""
    program = (
        "import os, sys; from pathlib import Path; from dyninfer.bundle.unfinished import remove\n"
        "old = Path('a.dyn/onnx'); old.mkdir(parents=True); (old / 'x.onnx').write_bytes(b'x')\n"
        "old.chmod(0o555); old.parent.chmod(0o555)\n"
        "remove(old.parent); sys.exit(old.parent.exists())"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        user = USER if os.geteuid() == 0 else []
        environment = {**os.environ, "PYTHONPATH": str(support.ROOT)}
        done = subprocess.run(
            [*user, sys.executable, "-c", program],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_nothing_but_what_writes_needs_to_write(installed: Path) -> None:
    """What only shows works; what writes says where, before it works, and leaves nothing."""
    verify = ["verify", "a.dyn", "-s", "a.pt", "--config", "a.yaml", "-i", "photos", "--random=0"]
    photos = ["--images", "photos"]
    works = {
        "info": ["info", "a.dyn"],
        "predict": ["predict", "a.dyn", "photos", "-o", "own/results"],
        "verify": verify,
        "verify as JSON": [*verify, "--json"],
    }
    copy = "copy the bundle to a folder that you may write to"
    refused = {
        "predictions: Permission denied; no result was written; choose another folder with "
        "--output": ["predict", "a.dyn", "photos"],
        f"calibration.json cannot be written: a.dyn is read-only; {copy}": [
            *("calibrate", "a.dyn", *photos)
        ],
        f"a.dyn cannot be written: Permission denied; {copy}": [
            *("build", "a.dyn", "--backend", "onnxruntime", "-p", "int8", *photos)
        ],
        "a.dyn cannot be written: Permission denied": [
            *("build", "a.dyn", "--backend", "auto", *photos)
        ],
        "b.dyn cannot be written": ["export", "dynamicdet", "a.pt", "-o", "b.dyn"],
        "record.json cannot be written": ["bench", "a.dyn", *photos, "--output", "record.json"],
        "demo-output cannot be made: Permission denied; choose another place with --output": [
            "demo"
        ],
    }
    before = support.files_below(installed)
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONPATH": str(support.ROOT)}
    done = subprocess.run(
        [
            *(USER if os.geteuid() == 0 else []),
            *(sys.executable, "-c", CHILD, json.dumps([*works.values(), *refused.values()])),
        ],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers, boxes, writable = json.loads(done.stdout)
    assert not writable
    assert boxes >= 0
    shown = dict(zip(works, answers, strict=False))
    for status, _, err in shown.values():
        assert status == 0, err
    assert (installed / "own" / "results" / "predictions.jsonl").read_text().count("\n") == 2
    for name in ("verify", "verify as JSON"):
        assert "parity.json cannot be written: Permission denied" in shown[name][2]
        assert "shown, but not kept" in shown[name][2]
    assert "verification passed: 2 photos" in shown["verify"][1]
    assert json.loads(shown["verify as JSON"][1])["passed"] is True
    for said, (status, _, err) in zip(refused, answers[len(works) :], strict=True):
        assert status == 1
        assert said in err
        assert err.count("\n") == 1, err
    shutil.rmtree(installed / "own" / "results")
    assert support.files_below(installed) == before
