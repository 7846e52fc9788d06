from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dyninfer.cli import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    code = stopped.value.code
    out, err = capsys.readouterr()
    return (code if isinstance(code, int) else 0), out, err


def table_of(out: str) -> list[str]:
    """The rows of the first table: from the rule below its head to the next empty line."""
    lines = out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("─")) + 1
    return lines[start : lines.index("", start)]


def write_picture(path: Path, height: int, width: int) -> None:
    """A picture of noise, which any detector finds something to say about."""
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
