from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from tests import support
from tests.dyninfer.cli.run import run, write_picture


@pytest.fixture
def copied(small_bundle: Path, tmp_path: Path) -> Path:
    target = tmp_path / "copy.dyn"
    shutil.copytree(small_bundle, target)
    return target


def scale_weights(bundle: Path, stage: str, factor: float) -> None:
    """Change what a stage computes, in a bundle that is otherwise in order."""
    path = bundle / "onnx" / f"{stage}.onnx"
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 4:
            tensor.CopyFrom(numpy_helper.from_array(values * np.float32(factor), tensor.name))
    path.write_bytes(model.SerializeToString())

    def change(manifest: dict[str, Any]) -> None:
        manifest["stages"][stage]["sha256"] = file_sha256(path)

    support.reseal(bundle, change)


def arguments(bundle: Path, checkpoint: Path, config: Path, *more: str) -> list[str]:
    return ["verify", str(bundle), "--source", str(checkpoint), "--config", str(config), *more]


def test_parity_is_written_and_shown(
    capsys: pytest.CaptureFixture[str], copied: Path, small_checkpoint: Path, small_yaml: Path
) -> None:
    status, out, _ = run(capsys, *arguments(copied, small_checkpoint, small_yaml))
    assert status == 0
    assert "verification passed: 4 photos and 4 noise tensors" in out
    parity = Bundle.open(copied).parity()
    assert parity is not None
    decisions = parity["decisions"]
    of_what = f"0 of {decisions} routing decisions flip, 8 images at {decisions // 8} thresholds"
    assert of_what in " ".join(out.split())
    assert of_what in " ".join(run(capsys, "info", str(copied))[1].split())
    assert parity["flips"] == 0
    assert parity["decisions"] > 0
    checked = {(check["where"], check["tensor"]) for check in parity["checks"]}
    for name in ("head", "second", "exit 0", "exit 1"):
        assert (name, "boxes_xyxy") in checked
    assert ("router", "easiness") in checked
    assert ("decision 0", "easiness") in checked
    assert parity["by_decider"] == {
        "router": {k: parity[k] for k in parity["by_decider"]["router"]}
    }


def test_a_command_that_lacks_pytorch_calls_itself_by_name(
    capsys: pytest.CaptureFixture[str], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dyninfer.exporters.extras.find_spec", lambda _: None)
    for command in (("verify",), ("fit-router", "--images", ".")):
        status, _, err = run(capsys, command[0], str(copied), *command[1:])
        assert status == 1
        assert f"error: dyninfer {command[0]} needs torch" in err


def test_json_on_pictures_of_ones_own(
    capsys: pytest.CaptureFixture[str],
    copied: Path,
    small_checkpoint: Path,
    small_yaml: Path,
    tmp_path: Path,
) -> None:
    write_picture(tmp_path / "one.png", 40, 60)
    more = ("--images", str(tmp_path / "one.png"), "--random", "0", "--json")
    status, out, _ = run(capsys, *arguments(copied, small_checkpoint, small_yaml, *more))
    document = json.loads(out)
    assert status == 0
    assert (document["photos"], document["random_tensors"]) == (1, 0)


def test_a_stage_that_computes_something_else_fails_and_is_recorded(
    capsys: pytest.CaptureFixture[str], copied: Path, small_checkpoint: Path, small_yaml: Path
) -> None:
    scale_weights(copied, "second", 1.001)
    status, out, err = run(
        capsys, *arguments(copied, small_checkpoint, small_yaml, "--random", "1")
    )
    assert status == 1
    assert "second boxes_xyxy" in err
    assert "verification failed" in out
    parity = Bundle.open(copied).parity()
    assert parity is not None
    assert parity["passed"] is False
    failed = {check["where"] for check in parity["checks"] if not check["passed"]}
    assert failed == {"second", "exit 1"}


def test_another_checkpoint_is_refused(
    capsys: pytest.CaptureFixture[str], copied: Path, small_yaml: Path
) -> None:
    other = support.checkpoint_of("dy-yolov7")
    status, _, err = run(capsys, *arguments(copied, other, small_yaml))
    assert status == 1
    assert "is not what the bundle was exported from" in err
    assert not (copied / "parity.json").exists()


def test_the_source_is_found_beside_the_bundle(
    capsys: pytest.CaptureFixture[str],
    copied: Path,
    small_checkpoint: Path,
    small_yaml: Path,
) -> None:
    shutil.copy(small_checkpoint, copied.parent)
    status, out, _ = run(
        capsys, "verify", str(copied), "--config", str(small_yaml), "--random", "1"
    )
    assert status == 0
    assert "passed" in out


def test_a_source_that_is_nowhere_is_asked_for(
    capsys: pytest.CaptureFixture[str], copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied)
    status, _, err = run(capsys, "verify", str(copied))
    assert status == 1
    assert "--source" in err


def test_a_family_without_a_source_is_refused_before_files_are_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bundle = support.write_select_classifiers(tmp_path / "select.dyn")
    status, _, err = run(capsys, "verify", str(bundle))
    assert status == 1
    assert "family 'tiny' cannot be verified" in err
    assert "dynamicdet, cascade" in err
    assert not (bundle / "parity.json").exists()
