"""README from top to bottom, as a reader types it, in one folder."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx
import pytest

from dyninfer.demo import ASSETS
from dyninfer.exporters.dynamicdet import export
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from tests import support
from tests.documented import Block, blocks, lines
from tests.dyninfer.cli.run import run, write_picture
from tests.exporters.router import cascades

NOT_RUN = {
    "make demo": "installs from nothing for minutes; what it runs is tested by test_demo.py",
    "dyninfer export efficientdet tf_efficientdet_d0_34-f153e0cf.pth -o d0.dyn": "others' weights",
    "dyninfer export cascade tf_efficientdet_d0_34-f153e0cf.pth "
    "tf_efficientdet_d3_47-0b525f35.pth": "others' weights",
    "dyninfer export drnet predictor.pt classifier.pt -o drnet.dyn": "others' weights",
    "dyninfer export detnas faster_rcnn_r50_fpn_1x_coco.pth -o r50.dyn": "others' weights",
    "dyninfer slim base.pt --structure base.txt --data train/ --target-latency 0.53 "
    "-o student.pt": "a detector and pictures of the user's own, and half an hour",
}
NO_COMMANDS = ("dy-yolov7.dyn/",)
"""How an indented block begins that shows something else: here, what is in a bundle."""
NEEDS = {"pip install": "hatchling", "--backend tensorrt-rtx": "tensorrt_rtx"}
"""Packages without which a command cannot run; make installs them."""
SMALLER = {
    "export dynamicdet": ["--image-size=128"],
    "bench --blocks": ["--image-size=128", "--quick"],
    "search backbone": ["--evaluations=50"],
    "export zendet": ["--image-size=64"],
    "fit-router": ["--augment=1", "--seeds=2"],
    "calibrate": ["--time-images=4"],
    "bench dy-yolov7.dyn": [
        *("--quick", "--seconds=0.05", "--rounds=2", "--min-calls=2"),
        *("--batch=1", "--hard=0,100%"),
    ],
}
"""What is added to a command, so that it takes seconds."""
UNCLEAR, SLOWER = 4, 1  # exit statuses of bench --compare, which no test may decide


def bring(folder: Path) -> None:
    """What README says that a reader has: weights, a structure, detectors, pictures, labels."""
    shutil.copytree(ASSETS / "photos", folder / "my-photos")
    shutil.copy(support.checkpoint_of("dy-yolov7"), folder / "dy-yolov7.pt")
    shutil.copy(support.VECTORS / "zendet-narrow.txt", folder / "maedet_s.txt")
    for name, scores in (("small", cascades.FIRST), ("large", cascades.LAST)):
        model = cascades.body("images", scores)
        onnx.helper.set_model_props(model, {"names": "{0: 'class_0', 1: 'class_1'}"})
        onnx.save(model, str(folder / f"{name}.onnx"))
    pictures = cascades.write_pictures(folder / "photos", 20)
    labels = (pictures / "labels.json").read_text().replace("left", "class_0")
    (folder / "labels.json").write_text(labels.replace("right", "class_1"))
    (pictures / "labels.json").unlink()
    for name in ("street.jpg", "yard.jpg"):
        write_picture(folder / name, 120, 160)


class Reader:
    """Types one block after the other; ``cd`` changes where the next one is typed."""

    def __init__(
        self,
        capsys: pytest.CaptureFixture[str],
        folder: Path,
        small: Callable[[Path, Path | None], DynamicDetector],
    ) -> None:
        self.capsys, self.small = capsys, small
        self.ran: list[str] = []
        self.python: dict[str, Any] = {}
        venv.create(folder / "env", with_pip=False)
        (site,) = (folder / "env").glob("lib/python3*/site-packages")
        others = [path for path in sys.path if path.endswith("site-packages")]
        (site / "others.pth").write_text("\n".join(others))
        # pip then installs the checkout alone, into an environment that has all others
        command = f'"{sys.executable}" -m pip --python "{folder}/env/bin/python" "$@"'
        (folder / "env/bin/pip").write_text(f"#!/bin/sh\nexec {command}\n")
        (folder / "env/bin/pip").chmod(0o755)
        self.shell = {
            **os.environ,
            "PATH": f"{folder}/env/bin{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which means that there is none
        }
        self.shell.pop("PYTHONPATH", None)

    def type(self, block: Block) -> None:
        if block.is_python:
            # a snippet's export is of a small model: the first command has exported the large one
            with redirect_stdout(io.StringIO()), patch.object(export, "load_model", self.small):
                exec(compile(block.text, "README.md", "exec"), self.python)  # noqa: S102  # our own
            self.ran.append("python")
        elif not block.text.strip().startswith(NO_COMMANDS):
            for line in lines(block):
                self._type(line)

    def _type(self, line: str) -> None:
        needed = next((name for part, name in NEEDS.items() if part in line), None)
        if line in NOT_RUN or (needed and find_spec(needed) is None):
            return
        program, *arguments = shlex.split(line)
        if program == "dyninfer":
            more = next((more for how, more in SMALLER.items() if how in line), [])
            status, out, err = run(self.capsys, *arguments, *more)
        else:
            status, out, err = self.run(line.replace("REPOSITORY", shlex.quote(str(support.ROOT))))
        undecided = {SLOWER, UNCLEAR} if "--compare" in arguments else set()
        assert status in {0, *undecided}, f"{line}\n{out}\n{err}"
        self.ran.append(program)

    def run(self, line: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", "-c", f"{line} && pwd"],
            env=self.shell,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            os.chdir(done.stdout.splitlines()[-1])
        return done.returncode, done.stdout, done.stderr


@pytest.mark.slow
def test_readme_runs_as_written_from_top_to_bottom(
    capsys: pytest.CaptureFixture[str],
    small_checkpoint: Path,
    small_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not (support.ROOT / ".git").exists():
        pytest.skip("this is no clone, of which another could be made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load = export.load_model
    reader = Reader(capsys, tmp_path, lambda *_: load(small_checkpoint, small_yaml))
    page = [*blocks(support.ROOT / "README.md")]
    install = next(n for n, block in enumerate(page) if "pip install" in block.text)
    for block in page[: install + 1]:
        reader.type(block)
    folder = Path.cwd()
    assert folder == tmp_path / "dyninfer"
    if "pip" in reader.ran:
        status, out, err = reader.run("dyninfer --version")
        assert (status, err) == (0, "")
        assert out.startswith("dyninfer 0")
    bring(folder)
    for block in page[install + 1 :]:
        reader.type(block)
    assert reader.ran.count("dyninfer") >= 15
    assert reader.ran.count("python") == 3
    made = {path.name for path in folder.glob("*.dyn")}
    assert made == {
        "dy-yolov7.dyn",
        "small.dyn",
        "pair.dyn",
        "pair-routed.dyn",
        "wide.dyn",
        "found.dyn",
    }
    for number, pictures in enumerate((4, 22, 20), 1):
        results = folder / ("predictions" if number == 1 else f"predictions-{number}")
        found = (results / "predictions.jsonl").read_text().splitlines()
        assert len(found) == pictures
    assert (folder / "report.html").stat().st_size > 100_000


def test_what_is_not_run_is_in_readme() -> None:
    text = [line for block in blocks(support.ROOT / "README.md") for line in lines(block)]
    assert set(NOT_RUN) <= set(text)
