from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from dyninfer.engines.trt.builder import EngineOptions, build_engine, check_options
from dyninfer.engines.trt.file_types import StageFile
from dyninfer.engines.trt.library import Flavour, Library, load_library
from dyninfer.engines.trt.progress import POLL_SECONDS
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import EngineBuildError
from tests import support
from tests.engines.trt.onnx_files import relu, write_stage

tensorrt_rtx = pytest.importorskip("tensorrt_rtx", reason="pip install dyninfer[tensorrt-rtx]")
TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
OPTIONS = EngineOptions(BatchProfile(minimum=1, optimum=4, maximum=16), TARGETS)


@pytest.fixture
def library() -> Library:
    return load_library(Flavour.RTX)


def test_a_stage_becomes_an_engine_and_reports_its_progress(
    library: Library, tmp_path: Path
) -> None:
    shares: list[float] = []

    engine = build_engine(
        library,
        write_stage(tmp_path / "body.onnx", relu()),
        OPTIONS,
        lambda share, _: shares.append(share),
    )

    assert len(engine) > 10_000
    assert len(shares) > 10
    assert shares == sorted(shares)
    assert shares[-1] == 1


@pytest.mark.parametrize("target", TARGETS)
def test_each_generation_of_gpus_can_be_a_target_alone(
    library: Library, tmp_path: Path, target: str
) -> None:
    options = EngineOptions(OPTIONS.batch, (target,))

    assert build_engine(library, write_stage(tmp_path / "body.onnx", relu()), options)


def test_no_target_is_needed_and_a_workspace_may_be_given(library: Library, tmp_path: Path) -> None:
    options = EngineOptions(OPTIONS.batch, workspace_bytes=1 << 28)

    assert build_engine(library, write_stage(tmp_path / "body.onnx", relu()), options)


def test_a_file_of_fixed_shape_needs_no_range(library: Library, tmp_path: Path) -> None:
    stage = write_stage(tmp_path / "body.onnx", relu(), (1, 3, 8, 8), rows_per_run=1)

    assert build_engine(library, stage, OPTIONS)


def test_a_file_that_keeps_weights_elsewhere_is_not_parsed(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "other.data").write_bytes(bytes(12))
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[3, 1, 1])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="other.data")
    nodes = [helper.make_node("Add", ["images", "weight"], ["y"])]
    stage = write_stage(tmp_path / "body.onnx", nodes, initializers=[weight])
    with support.refuses(EngineBuildError, "'body'", "body.onnx", "outside of the file"):
        build_engine(library, stage, OPTIONS)


def test_an_operator_that_is_unknown_is_named_with_its_node(
    library: Library, tmp_path: Path
) -> None:
    nodes = [helper.make_node("Frob", ["images"], ["y"], name="a frob", domain="odd")]
    stage = write_stage(tmp_path / "body.onnx", nodes)

    with support.refuses(
        EngineBuildError, "'body'", "node 'a frob' (Frob)", "--backend onnxruntime", library.title
    ):
        build_engine(library, stage, OPTIONS)


def test_an_operator_that_is_not_supported_is_named_with_its_node(
    library: Library, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("NonZero", ["images"], ["found"], name="where"),
        helper.make_node("Cast", ["found"], ["y"], to=TensorProto.FLOAT),
    ]

    with support.refuses(EngineBuildError, "node 'where' (NonZero)"):
        build_engine(library, write_stage(tmp_path / "body.onnx", nodes), OPTIONS)


def test_weights_that_do_not_fit_are_named_with_their_node(
    library: Library, tmp_path: Path
) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 5, 1, 1], [0.0] * 20)
    nodes = [helper.make_node("Conv", ["images", "w"], ["y"], name="first conv")]
    stage = write_stage(tmp_path / "body.onnx", nodes, initializers=[weights])

    with support.refuses(EngineBuildError, "node 'first conv' (Conv)"):
        build_engine(library, stage, OPTIONS)


def test_what_is_parsed_but_not_built_fails_with_the_library_s_own_words(
    library: Library, tmp_path: Path
) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, 48, 4])
    scores = helper.make_tensor("scores", TensorProto.FLOAT, [1, 1, 48], [0.0] * 48)
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["boxes"]),
        helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["kept"], name="nms"),
        helper.make_node("Cast", ["kept"], ["y"], to=TensorProto.FLOAT),
    ]
    stage = write_stage(tmp_path / "body.onnx", nodes, (1, 3, 8, 8), [shape, scores])

    with support.refuses(EngineBuildError, "the build of stage 'body' failed", "Error Code"):
        build_engine(library, stage, OPTIONS)


@pytest.mark.parametrize("content", [b"", b"this is not ONNX", None])
def test_a_file_that_is_no_onnx_is_refused(
    library: Library, tmp_path: Path, content: bytes | None
) -> None:
    stage = write_stage(tmp_path / "body.onnx", relu())
    stage.onnx.unlink()
    if content is not None:
        stage.onnx.write_bytes(content)

    with support.refuses(EngineBuildError, "'body'"):
        build_engine(library, stage, OPTIONS)


def test_a_second_dynamic_axis_is_refused_with_the_shape(library: Library, tmp_path: Path) -> None:
    stage = write_stage(tmp_path / "body.onnx", relu(), ("batch", 3, "height", "width"))

    with support.refuses(EngineBuildError, "'images'", "(-1, 3, -1, -1)", "fixed image size"):
        build_engine(library, stage, OPTIONS)


def test_options_that_tensorrt_rtx_lacks_are_refused_before_any_work(
    library: Library, tmp_path: Path
) -> None:
    check_options(library, OPTIONS)
    with support.refuses(EngineBuildError, "--timing-cache", library.title):
        check_options(library, EngineOptions(OPTIONS.batch, timing_cache=tmp_path / "cache"))
    for options in (
        EngineOptions(OPTIONS.batch, version_compatible=True),
        EngineOptions(OPTIONS.batch, hardware_compatible=True),
    ):
        with support.refuses(EngineBuildError, "compatibility", "--for"):
            check_options(library, options)


def chain(path: Path, length: int) -> StageFile:
    """Convolutions enough to keep the compiler busy."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3, 3, 3, 3], [0.1] * 81)
    names = ["images", *(f"x{index}" for index in range(length - 1)), "y"]
    nodes = [
        helper.make_node("Conv", [before, "w"], [after], pads=[1, 1, 1, 1])
        for before, after in pairwise(names)
    ]
    return write_stage(path, nodes, initializers=[weights])


def test_an_interrupt_cancels_the_compiler(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = chain(tmp_path / "body.onnx", 12)
    uncancelled: list[float] = []
    build_engine(library, stage, OPTIONS, lambda share, _: uncancelled.append(share))
    started = threading.Event()
    reported: list[float] = []
    waits = threading.Event.wait

    def report(share: float, _: str) -> None:
        reported.append(share)
        started.set()
        time.sleep(0.02)

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout == POLL_SECONDS and started.is_set() and len(reported) < 9:
            raise KeyboardInterrupt  # as a Ctrl-C while the main thread waits, several times
        return waits(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_engine(library, stage, OPTIONS, report)

    assert max(reported) < 1 == max(uncancelled)
    assert len(reported) < len(uncancelled) / 2
    finished = [thread for thread in threading.enumerate() if thread.name == "build body"]
    for thread in finished:
        thread.join(1)  # nothing is left for it to do
        assert not thread.is_alive()


def test_an_interrupt_while_the_thread_starts_builds_nothing(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, reported = threading.Thread.start, []

    def interrupted(thread: threading.Thread) -> None:
        starts(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    stage = write_stage(tmp_path / "body.onnx", relu())
    with pytest.raises(KeyboardInterrupt):
        build_engine(library, stage, OPTIONS, lambda *report: reported.append(report))

    for thread in threading.enumerate():
        if thread.name == "build body":
            thread.join(10)
            assert not thread.is_alive()
    assert not reported


def test_several_stages_may_be_built_at_once(library: Library, tmp_path: Path) -> None:
    engines: dict[int, bytes] = {}

    def work(index: int) -> None:
        stage = write_stage(tmp_path / f"{index}.onnx", relu())
        engines[index] = build_engine(library, stage, OPTIONS)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(len(engines[index]) > 10_000 for index in range(2))
