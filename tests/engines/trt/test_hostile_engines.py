"""Engines that are not what the manifest says: the stand-in knows of every byte beside a buffer."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings

import dyninfer
from dyninfer import AlwaysEasy, AlwaysHard, EngineBuildError, EngineRunError, Threshold
from tests import support
from tests.engines import hostile
from tests.engines.hostile import Hostile, Lie
from tests.engines.hostile_child import Reference, coded, compare
from tests.engines.test_hostile_bundles import ANY_SIZE, HOSTILE
from tests.engines.trt.rig import Rig, make_rig

TOO_LARGE = Lie("boxes_xyxy", "axes of any size", "head")


def use(rig: Rig, path: Path, **options) -> None:
    """Compare answers with plain ONNX Runtime's, then look whether all was freed."""
    try:
        with rig.detector(path, max_batch=8, **options) as detector:
            for batch in (1, 4, 2):
                images = coded(batch)
                for policy in (AlwaysEasy(), AlwaysHard(), Threshold(0.5)):
                    found = detector.infer({"images": images}, policy=policy)
                    compare(found, Reference(path).answers(images, policy))
    finally:
        gc.collect()  # errors keep what they have seen
        assert not rig.machine.violations


@pytest.mark.parametrize("lies", [[], ANY_SIZE])
@pytest.mark.parametrize("version", ["8.6", "10.13", "rtx"])
def test_an_honest_engine_gives_what_its_file_makes(tmp_path, lies, version) -> None:
    path = hostile.write(tmp_path / "a.dyn", Hostile(lies=lies))
    if lies:  # TensorRT is told the sizes of all inputs
        with support.refuses(EngineRunError, "expected fixed axes"):
            use(make_rig(version), path)
    else:
        use(make_rig(version), path)


@pytest.mark.parametrize(
    ("twists", "lies", "error", "parts"),
    [
        ({("head", "boxes_xyxy"): ("uint8", "truth")}, [], EngineBuildError, ("uint8", "float32")),
        ({("head", "boxes_xyxy"): ("float16", "truth")}, [], EngineBuildError, ("float16",)),
        ({("first", "value"): ("wider", "axes")}, [], EngineRunError, ("(1, 6)", "(batch, 3)")),
        ({("first", "value"): ("narrower", "axes")}, [], EngineRunError, ("(1, 1)",)),
        ({("first", "value"): ("one axis more", "nothing")}, [], EngineBuildError, ("value",)),
        ({("first", "value"): ("one row", "axes")}, [], EngineRunError, ("(1, 3)", "4 images")),
        ({("first", "value"): ("twice as many rows", "nothing")}, [], EngineBuildError, ("value",)),
        ({("head", "boxes_xyxy"): ("turned", "axes")}, [TOO_LARGE], EngineRunError, ("(4, 2, 1)",)),
        ({}, [Lie("value", "a batch of one")], EngineBuildError, ("(1, 3)",)),
        ({}, [Lie("value", "twice")], EngineBuildError, ("'value'",)),
        ({}, [Lie("easiness", "one more")], EngineBuildError, ("'another'",)),
    ],
)
def test_an_engine_that_makes_something_else_is_refused(
    tmp_path, twists, lies, error, parts
) -> None:
    path = hostile.write(tmp_path / "a.dyn", Hostile(twists, lies=lies))
    with support.refuses(error, *parts):
        use(make_rig(), path)


def test_an_engine_that_takes_no_image_is_refused(tmp_path) -> None:
    path = hostile.write(tmp_path / "a.dyn", Hostile())
    with support.refuses(EngineBuildError, "'first'", "from 0 up to 0"):
        use(make_rig(), path, all={"profiles": [[0, 0, 0]]})


def test_a_layout_that_is_not_the_linear_one_is_refused(tmp_path) -> None:
    path = hostile.write(tmp_path / "a.dyn", Hostile())
    with support.refuses(EngineBuildError, "'first'", "images", "CHW32"):
        use(make_rig(), path, first={"packed_tensors": ["images"]})


@pytest.mark.parametrize("version", ["8.6", "10.13"])
def test_a_shape_that_is_told_after_a_run_must_fit_its_memory(tmp_path, version) -> None:
    twists = {("head", "boxes_xyxy"): ("the first column, found by looking", "axes")}
    path = hostile.write(tmp_path / "a.dyn", Hostile(twists, lies=[TOO_LARGE]))
    rig = make_rig(version)
    use(rig, path)
    rig.fake.tells_more_than_it_made = True
    with support.refuses(EngineRunError, "boxes_xyxy (1, 2, 1000)", "too small"):
        use(rig, path)


def test_a_size_that_depends_on_the_data_where_the_manifest_says_one_is_refused(tmp_path) -> None:
    twists = {("first", "value"): ("the first column, found by looking", "axes")}
    path = hostile.write(tmp_path / "a.dyn", Hostile(twists))
    with support.refuses(EngineRunError, "(1, -1)", "(batch, 3)"):
        use(make_rig(), path)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(HOSTILE)
@pytest.mark.slow
def test_whatever_is_wrong_no_byte_beside_a_buffer_is_touched(wrong) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = hostile.write(Path(folder) / "a.dyn", wrong)
        try:
            use(make_rig(), path)
        except dyninfer.DyninferError as error:
            lines = str(error).splitlines()
        else:
            lines = ["an answer"]
    assert len(lines) == 1
