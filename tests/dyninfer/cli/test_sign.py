from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.signature import SIGNATURE_FILE, sign_bundle
from tests import support
from tests.dyninfer.builds.test_builder import convert_head
from tests.dyninfer.cli.run import run, write_picture
from tests.dyninfer.keys import write_keys


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def test_a_bundle_is_signed_and_then_predicts_for_who_trusts_the_key(
    capsys, tmp_path, bundle
) -> None:
    private, public = write_keys(tmp_path)
    write_picture(tmp_path / "a.png", 8, 8)
    spec = convert_head(Bundle.open(bundle), bundle / "onnx" / "head.onnx")
    predict = ("predict", str(bundle), str(tmp_path / "a.png"), "--output", str(tmp_path / "out"))
    trusting = (*predict, "--trusted-key", str(public))

    status, _, err = run(capsys, *trusting)
    assert (status, err.count("\n")) == (1, 1)
    assert "is not signed" in err
    assert not (tmp_path / "out").exists()

    status, out, err = run(capsys, "sign", str(bundle), "--key", str(private))
    assert (status, err) == (0, "")
    assert f"wrote {SIGNATURE_FILE} of {bundle} and of 1 build\n" in out
    assert (bundle / "engines" / spec.folder_name / SIGNATURE_FILE).exists()
    assert run(capsys, *trusting, "--precision", "head=fp16")[0] == 0

    _, another = write_keys(tmp_path, "another")
    status, _, err = run(capsys, *predict, "--overwrite", "--trusted-key", str(another))
    assert (status, err.count("\n")) == (1, 1)
    assert "signed by another key" in err


@pytest.mark.parametrize(
    "command",
    [
        "info {}",
        "info {} --json",
        "info {} --bom",
        "verify {}",
        "build {} --backend onnxruntime -p head=fp16",
        "build {} --backend onnxruntime -p head=fp16 --no-build",
        "fit-router {} --images {images}",
        "calibrate {} --images {images}",
        "eval {} --images {images}",
        "predict {} {images}",
        "bench {} --quick --seconds 0.05 --rounds 2 --min-calls 2 --batch 1 --hard 0",
    ],
)
def test_no_command_opens_what_is_not_signed_by_the_key_that_is_trusted(
    capsys, tmp_path, bundle, command
) -> None:
    private, public = write_keys(tmp_path)
    (tmp_path / "images").mkdir()
    for index in range(2):
        write_picture(tmp_path / "images" / f"{index}.png", 8, 8)
    words = command.format(bundle, images=tmp_path / "images").split()
    sign_bundle(Bundle.open(bundle), write_keys(tmp_path, "another")[0])
    files = sorted(tmp_path.rglob("*"))
    status, out, err = run(capsys, *words, "--trusted-key", str(public))
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "signed by another key" in err
    assert sorted(tmp_path.rglob("*")) == files
    sign_bundle(Bundle.open(bundle), private)
    assert "signed" not in run(capsys, *words, "--trusted-key", str(public))[2]


def test_builds_that_are_not_signed_are_named_and_not_used(capsys, tmp_path, bundle) -> None:
    private, public = write_keys(tmp_path)
    spec = convert_head(Bundle.open(bundle), bundle / "onnx" / "head.onnx")
    sign_bundle(Bundle.open(bundle), private)
    trusting = ("--trusted-key", str(public))
    status, out, err = run(capsys, "info", str(bundle), *trusting)
    assert (status, err.count("\n")) == (0, 1)
    assert f"{spec.folder_name} is not signed" in err
    assert "first" in out
    built = ("build", str(bundle), "--backend", "onnxruntime", "-p", "head=fp16")
    for more in ((), ("--no-build",)):
        status, out, err = run(capsys, *built, *more, *trusting)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert f"{spec.folder_name} is not signed" in err


def test_a_damaged_bundle_is_not_signed(capsys, tmp_path, bundle) -> None:
    with (bundle / "onnx" / "head.onnx").open("ab") as file:
        file.write(b"\0")
    status, _, err = run(capsys, "sign", str(bundle), "--key", str(write_keys(tmp_path)[0]))
    assert status == 1
    assert "head.onnx was changed" in err
    assert not (bundle / SIGNATURE_FILE).exists()


def test_a_missing_key_is_told_in_one_line(capsys, tmp_path, bundle) -> None:
    status, _, err = run(capsys, "sign", str(bundle), "--key", str(tmp_path / "none.pem"))
    assert (status, err.count("\n")) == (1, 1)
    assert "none.pem cannot be read" in err
    assert "openssl ecparam" in err
