"""``dyninfer export drnet``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dyninfer.bundle.folder import Bundle
from tests.dyninfer.cli.run import run
from tests.exporters.drnet.narrow import random_state, write_pair
from tests.exporters.test_mindspore_file import mindspore_file


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    return write_pair(tmp_path, random_state(None, classes=2, seed=1), random_state(2, seed=2))


def test_two_checkpoints_become_a_bundle_that_equals_them(tmp_path, sources, capsys) -> None:
    target = tmp_path / "x.dyn"
    sizes = ("--resolutions", "64,48", "--image-size", "64", "--predictor-size", "32")
    arguments = ("export", "drnet", *map(str, sources), "-o", str(target), *sizes)
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "classifier: a ResNet of 1-1 basic blocks with 2 sets of batch norm" in out
    assert "verification passed" in out
    assert "0 of 2 routing decisions flip" in out
    assert (
        "settings: resolutions 64/48, predictor size 32, resize half-pixel, shortcut bn "
        "per_resolution"
    ) in " ".join(out.split())
    status, out, _ = run(capsys, "verify", str(target), "--source", str(sources[1].parent))
    assert status == 0
    assert "predictor" in out


def test_mindspore_s_own_files_are_read_and_resized_as_it_does(tmp_path, sources, capsys) -> None:
    paths = [path.with_suffix(".ckpt") for path in sources]
    for path, source in zip(paths, sources, strict=True):
        path.write_bytes(mindspore_file(torch.load(source, weights_only=True)))
    target = tmp_path / "x.dyn"
    sizes = ("--resolutions", "64,48", "--image-size", "64", "--predictor-size", "32")
    status, out, _ = run(capsys, "export", "drnet", *map(str, paths), "-o", str(target), *sizes)
    assert status == 0
    assert "resize: asymmetric, as in MindSpore, which wrote the file (--resize)" in out
    assert "verification passed" in out
    assert Bundle.open(target).manifest.settings["resize"] == "asymmetric"


def test_wrong_usage_is_said_before_anything_is_read(tmp_path, capsys) -> None:
    for options, status, part in (
        (("a.pt", "b.pt", "--resolutions", "224;112"), 2, "'224;112'"),
        (("a.pt", "b.pt", "--resize", "bicubic"), 2, "bicubic"),
        (("a.pt", "b.pt"), 1, "a.pt does not exist"),
    ):
        found, _, err = run(capsys, "export", "drnet", *options, "-o", str(tmp_path / "x.dyn"))
        assert found == status
        assert part in err
    status, _, err = run(capsys, "export", "predictor.ckpt", "classifier.ckpt")
    assert status == 2
    assert "dyninfer export drnet predictor.ckpt classifier.ckpt" in " ".join(err.split())
