from __future__ import annotations

from pathlib import Path

import pytest

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.signature import SIGNATURE_FILE
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
    assert f"wrote {SIGNATURE_FILE} of {bundle} and of 1 builds" in out
    assert (bundle / "engines" / spec.folder_name / SIGNATURE_FILE).exists()
    assert run(capsys, *trusting, "--precision", "head=fp16")[0] == 0

    _, another = write_keys(tmp_path, "another")
    status, _, err = run(capsys, *predict, "--trusted-key", str(another))
    assert (status, err.count("\n")) == (1, 1)
    assert "signed by another key" in err


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
