from __future__ import annotations

from pathlib import Path

import pytest

from tests.dyninfer.cli.run import run, write_picture
from tests.exporters.faster_rcnn import narrow


@pytest.mark.slow
def test_a_checkpoint_is_exported_checked_and_run(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    narrow.save(narrow.mmdetection(), Path("student.pth"))
    Path("names.txt").write_text("cat\ndog\nbird\n")
    options = ("--image-size", "64x96", "--proposals", "60", "--class-names", "names.txt")
    status, out, err = run(capsys, "export", "detnas", "student.pth", *options)
    assert (status, err) == (0, "")
    assert "weights: mmdetection's, blocks 1-2-1-3, channels 16-24-32-40" in out
    assert "style: pytorch" in out
    assert "verification passed" in out
    assert "next: dyninfer predict student.dyn IMAGE_OR_FOLDER" in out
    write_picture(Path("street.jpg"), 60, 80)
    status, out, err = run(capsys, "predict", "student.dyn", "street.jpg", "--confidence", "0.3")
    assert (status, err) == (0, "")
    assert any(name in out for name in ("cat", "dog", "bird"))


def test_a_file_of_another_kind_is_refused_in_a_line(capsys, tmp_path: Path) -> None:
    source = narrow.save({}, tmp_path / "student.pth")
    status, out, err = run(capsys, "export", "faster-rcnn", str(source))
    assert (status, out) == (1, "")
    assert "is not a Faster R-CNN checkpoint" in " ".join(err.split())
    assert "Traceback" not in err
