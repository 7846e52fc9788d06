"""Another's detector gets no more memory than a bundle of its size."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from dyninfer import EngineBuildError
from dyninfer.benchmarks.baselines.of_onnx import ForeignContender
from dyninfer.benchmarks.baselines.setup import Kind, Setup
from dyninfer.runtime.engine_choice import EngineChoice
from tests import support
from tests.engines.test_memory import asking, unbounded


def contender(tmp_path, model: onnx.ModelProto) -> ForeignContender:
    onnx.save(model, tmp_path / "other.onnx")
    np.savez(tmp_path / "inputs.npz", images=np.zeros((1, 3, 8, 8), np.float32))
    inputs, path = str(tmp_path / "inputs.npz"), str(tmp_path / "other.onnx")
    return ForeignContender(Setup(Kind.FOREIGN, inputs, path, EngineChoice("cpu"), 1))


def test_a_detector_that_asks_for_gigabytes_does_not_get_them(tmp_path) -> None:
    assert contender(tmp_path, support.means_of("images", 8, 8, "value")).outputs(0)
    swelling = contender(tmp_path, asking("Tile", known=False))
    # what ONNX Runtime raises has no public base class
    with pytest.raises(Exception, match="smaller than requested bytes"):
        swelling.outputs(0)


def test_a_detector_that_no_limit_reaches_is_refused(tmp_path) -> None:
    with support.refuses(EngineBuildError, "other.onnx", "sparse tensors"):
        contender(tmp_path, unbounded("sparse initializer"))
