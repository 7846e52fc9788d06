"""How many threads stages compute with, and which stages are too small for a second one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dyninfer
from dyninfer.bundle.manifest import Stage, TensorSpec
from dyninfer.engines import open_backend
from dyninfer.engines.threads import is_tiny
from dyninfer.errors import InputError
from dyninfer.runtime.detector import Detector
from tests import support


def stage(macs: int, *shape: int | str) -> Stage:
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", *shape)),)
    file = {"file": "onnx/x.onnx", "sha256": "0" * 64}
    return Stage(**file, inputs=inputs, outputs=inputs, parameters=0, macs=macs)


@pytest.mark.parametrize(
    ("described", "tiny"),
    [
        (stage(1_000_000, 65_536), True),
        (stage(1_000_001, 4), False),
        (stage(0, 65_537), False),  # it may sort, or compare each with each
        (stage(0, 3, "height", "width"), False),
        (stage(0, 25_200, 80), False),
    ],
)
def test_a_stage_is_tiny_by_what_it_reads_and_multiplies(described: Stage, tiny: bool) -> None:
    assert is_tiny(described) is tiny


def threads_of(detector: Detector) -> dict[str, int]:
    return {
        name: engine._session.get_session_options().intra_op_num_threads
        for name, engine in detector.engines.items()
    }


def test_a_router_has_one_thread_and_other_stages_one_on_every_core() -> None:
    with dyninfer.load("digits") as detector:
        assert threads_of(detector) == {"first": 0, "router": 1, "head": 0, "second": 0}


@pytest.mark.parametrize("threads", [1, 2])
def test_answers_are_the_same_by_any_number_of_threads(tmp_path: Path, threads) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    images = {"images": np.random.default_rng(0).random((5, 3, 8, 8), np.float32)}
    with dyninfer.load(path) as usual, dyninfer.load(path, threads=threads) as detector:
        assert set(threads_of(detector).values()) <= {1, threads}
        for one, other in zip(usual.infer(images), detector.infer(images), strict=True):
            assert one.exit_index == other.exit_index
            for name, values in one.outputs.items():
                np.testing.assert_array_equal(values, other.outputs[name])


@pytest.mark.parametrize("threads", [0, -1, 257, 1.0, True, "2", "all"])
def test_what_is_no_number_of_threads_is_refused(tmp_path: Path, threads) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with pytest.raises(InputError, match=r"threads is .*, expected a whole number from 1 to 256"):
        dyninfer.load(path, threads=threads)


@pytest.mark.parametrize("threads", [2, "shared"])
def test_threads_are_for_stages_on_a_processor(threads) -> None:
    with pytest.raises(InputError, match="for stages on a CPU; leave it out with backend"):
        open_backend("tensorrt-rtx", threads=threads)


def test_times_are_those_of_so_many_threads(tmp_path: Path) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    with dyninfer.load(path) as usual, dyninfer.load(path, threads=1) as detector:
        mine, theirs = detector.engine_record(), usual.engine_record()
        assert mine.differences(theirs, times=False) == []
        (difference,) = mine.differences(theirs, times=True)
        assert difference == f"device name {mine.device_name}, not {theirs.device_name}"
        assert mine.device_name == f"{theirs.device_name}, 1 thread"
        assert detector.opening_options() == " --threads 1"
        assert usual.opening_options() == ""
