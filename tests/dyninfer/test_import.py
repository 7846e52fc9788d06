from __future__ import annotations

import subprocess
import sys

import pytest

import dyninfer


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_importing_loads_nothing_heavy() -> None:
    loaded = run("import sys, dyninfer; print(*sys.modules)").split()
    assert "dyninfer" in loaded
    assert not {"torch", "onnx", "onnxruntime", "onnxscript", "numpy", "cv2"} & set(loaded)


def test_a_detector_needs_no_torch_and_no_onnx() -> None:
    loaded = run("import sys, dyninfer; dyninfer.load; print(*sys.modules)").split()
    assert "dyninfer.runtime.detector" in loaded
    assert not {"torch", "onnx", "onnxscript", "onnxruntime"} & set(loaded)


def test_every_public_name_is_there_once() -> None:
    for name in dyninfer.__all__:
        assert getattr(dyninfer, name) == getattr(dyninfer, name)
    assert dir(dyninfer) == sorted(dyninfer.__all__)
    assert run("import dyninfer; print(dyninfer.__version__)") == dyninfer.__version__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = dyninfer.nothing_like_it


def test_all_errors_share_one_base_class() -> None:
    from dyninfer import errors

    found = [error for error in vars(errors).values() if isinstance(error, type)]
    assert len(found) > 8
    assert all(issubclass(error, dyninfer.DyninferError) for error in found)
