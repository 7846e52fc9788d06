"""README's first use, run as written and in its order."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import onnx
import pytest

from tests import support
from tests.dyninfer.cli.run import run
from tests.exporters.router import cascades

SMALL = {"export dynamicdet": ["--image-size", "128"], "fit-router": ["--augment=1", "--seeds=2"]}
"""What is added to a command, so that it takes seconds."""
BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<why>[^\n]*) -->\n\n?)?"
    r"(?:^```(?P<kind>\w+)\n(?P<fenced>.*?)^```$|(?P<indented>(?:^    [^\n]*\n)+))",
    re.MULTILINE | re.DOTALL,
)


def bring(folder: Path) -> None:
    """What a reader has: a checkpoint, two ONNX detectors, labelled pictures."""
    shutil.copy(support.checkpoint_of("dy-yolov7"), folder / "dy-yolov7.pt")
    for name, scores in (("small", cascades.FIRST), ("large", cascades.LAST)):
        model = cascades.body("images", scores)
        onnx.helper.set_model_props(model, {"names": "{0: 'left', 1: 'right'}"})
        onnx.save(model, str(folder / f"{name}.onnx"))
    pictures = cascades.write_pictures(folder / "photos", 20)
    shutil.copy(pictures / "labels.json", folder)


@pytest.mark.slow
def test_the_first_use_runs_as_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (support.ROOT / "README.md").read_text("utf-8")
    use = text[text.index("## Use 1") : text.index("A bundle is a folder")]
    bring(tmp_path)
    monkeypatch.chdir(tmp_path)
    left_out, ran = [], 0
    for block in BLOCK.finditer(use):
        if block["why"]:
            left_out.append(block["why"])
        elif block["fenced"]:
            exec(compile(block["fenced"], "README.md", "exec"), {})  # noqa: S102  # our own text
            ran += 1
        else:
            for line in block["indented"].splitlines():
                program, *arguments = shlex.split(line)
                assert program == "dyninfer", line
                more = next((more for how, more in SMALL.items() if how in line), [])
                status, _, err = run(capsys, *arguments, *more)
                assert status == 0, f"{line}\n{err}"
                ran += 1
    assert ran == 7
    assert left_out == ["needs published weights"] * 2
    made = {path.name for path in tmp_path.glob("*.dyn")}
    assert made == {"dy-yolov7.dyn", "small.dyn", "pair.dyn", "pair-routed.dyn", "wide.dyn"}
