"""A bundle's files and manifest may say anything: what comes out is theirs, or a clear refusal."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import Bundle, EngineBuildError, EngineRunError
from dyninfer.engines.ort.runtime import PlainStages
from tests import support
from tests.engines import hostile
from tests.engines.hostile import BOXES, LIES, SHAPES, STAGES, TOLD, TWISTS, Hostile, Lie


class Server:
    """Uses bundles with a backend, each in a process of its own."""

    def __init__(self, backend: str) -> None:
        command = [sys.executable, "-m", "tests.engines.hostile_child", backend]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=support.ROOT
        )

    def use(self, bundle: Path) -> dict[str, str]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{bundle}\n")
        self._process.stdin.flush()
        found: dict[str, str] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    opened = Server("onnxruntime")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def openvino() -> Iterator[Server]:
    pytest.importorskip("openvino")
    opened = Server("openvino")
    yield opened
    opened.close()


ANY_SIZE = [Lie(name, "axes of any size") for name in ("value", *BOXES)]


@pytest.mark.parametrize("vague", [False, True])
@pytest.mark.parametrize("lies", [[], ANY_SIZE])
@pytest.mark.parametrize("alone", [(), ("first", "router")])
def test_an_honest_bundle_gives_what_its_files_make(tmp_path, server, vague, lies, alone) -> None:
    bundle = hostile.write(tmp_path / "a.dyn", Hostile({}, vague, lies, alone))
    found = server.use(bundle)
    if lies and alone:
        assert (found["verdict"], found["error"]) == ("refused", "EngineBuildError")
    else:
        assert found == {"verdict": "right", "why": "21 images"}


@pytest.mark.parametrize(
    ("output", "twist", "error", "parts"),
    [
        (("first", "value"), "uint8", "EngineBuildError", ("value uint8", "float32")),
        (("head", "boxes_xyxy"), "float64", "EngineBuildError", ("tensor(double)", "boxes_xyxy")),
        (("router", "easiness"), "string", "EngineBuildError", ("it has text",)),
        (("first", "value"), "a sequence", "EngineBuildError", ("seq(tensor(float))",)),
        (("head", "class_scores"), "optional", "EngineBuildError", ("optional(",)),
        (("first", "value"), "one row", "EngineRunError", ("(1, 3)", "4 images")),
        (("first", "value"), "the mean row", "EngineRunError", ("(1, 3)", "4 images")),
        (("first", "value"), "turned", "EngineRunError", ("(3, 1)", "1 image,")),
        (("second", "boxes_xyxy"), "no row", "EngineRunError", ("(0, 2, 4)",)),
        (("first", "value"), "a scalar", "EngineRunError", ("'first'", "value float32 ()")),
    ],
)
def test_an_output_of_another_type_or_size_is_refused(
    tmp_path, server, output, twist, error, parts
) -> None:
    lying = Hostile({output: (twist, "nothing")}, True, ANY_SIZE)
    found = server.use(hostile.write(tmp_path / "a.dyn", lying))
    assert (found["verdict"], found["error"]) == ("refused", error), found
    for part in parts:
        assert part in found["why"]


@pytest.mark.parametrize(
    ("lie", "part"),
    [
        (Lie("value", "float16"), "value float32 (?, 3)"),
        (Lie("value", "wider"), "(batch, 5)"),
        (Lie("value", "one axis more"), "(batch, 3, 1)"),
        (Lie("boxes_xyxy", "a batch of one"), "(1, 2, 4)"),
        (Lie("value", "no batch"), "(any, 3)"),
        (Lie("value", "as wide as the batch"), "(batch, batch)"),
        (Lie("value", "negative"), "(batch, -1)"),
        (Lie("value", "twice"), "two inputs or outputs called 'value'"),
        (Lie("images", "gone", "first"), "no input"),
        (Lie("images", "gone", "second"), "has inputs ['images', 'value']"),
        (Lie("easiness", "one more"), "['another', 'easiness']"),
    ],
)
def test_a_manifest_that_says_something_else_than_the_file_is_refused(
    tmp_path, server, lie, part
) -> None:
    found = server.use(hostile.write(tmp_path / "a.dyn", Hostile(lies=[lie])))
    assert (found["verdict"], found["error"]) == ("refused", "EngineBuildError"), found
    assert part in found["why"]


def test_an_output_that_is_an_input_is_refused(tmp_path, server) -> None:
    """ONNX Runtime leaves the memory for it as it was, whatever size it is said to have."""
    found = server.use(hostile.write_passing_on(tmp_path / "a.dyn"))
    assert (found["verdict"], found["error"]) == ("refused", "EngineBuildError"), found
    assert "'boxes_xyxy'" in found["why"]


def test_names_that_are_no_text_are_refused(tmp_path, server) -> None:
    bundle = hostile.write(tmp_path / "a.dyn", Hostile(noise=b"\xff\xfe"))
    found = server.use(bundle)
    assert (found["verdict"], found["error"]) == ("refused", "EngineBuildError"), found


@pytest.mark.parametrize(
    ("twist", "error", "part"),
    [
        ("uint8", EngineBuildError, "value uint8"),
        ("one axis more", EngineBuildError, "(?, 3, 1)"),
        ("one row", EngineRunError, "(1, 3)"),
        ("wider", EngineBuildError, "(?, 6)"),
    ],
)
def test_stages_on_arrays_are_compared_as_engines_are(tmp_path, twist, error, part) -> None:
    path = hostile.write(tmp_path / "a.dyn", Hostile({("first", "value"): (twist, "nothing")}))
    stages = PlainStages(Bundle.open(path))
    with support.refuses(error, "first", part):
        stages.run("first", {"images": np.ones((2, 3, 4, 4), np.float32)})
    with support.refuses(EngineRunError, "'head'", "ONNX Runtime"):
        stages.run("head", {"value": np.ones((2, 4), np.float32)})


def outputs() -> st.SearchStrategy[tuple[str, str]]:
    return st.sampled_from([(stage, name) for stage, (_, made) in STAGES.items() for name in made])


def lies() -> st.SearchStrategy[Lie]:
    return st.builds(
        Lie,
        st.sampled_from(list(SHAPES)),
        st.sampled_from(list(LIES)),
        st.one_of(st.none(), st.sampled_from(list(STAGES))),
    )


HOSTILE = st.builds(
    Hostile,
    st.dictionaries(
        outputs(), st.tuples(st.sampled_from(list(TWISTS)), st.sampled_from(TOLD)), max_size=2
    ),
    st.booleans(),
    st.lists(st.one_of(st.sampled_from(ANY_SIZE), lies()), max_size=4),
    st.lists(st.sampled_from(list(STAGES)), max_size=2, unique=True),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(HOSTILE)
def test_whatever_is_wrong_nothing_foreign_comes_out(server, wrong) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = server.use(hostile.write(Path(folder) / "a.dyn", wrong))
    assert found["verdict"] in ("right", "refused"), found


@pytest.mark.parametrize(
    ("output", "twist", "error", "part"),
    [
        (("first", "value"), "as it is", None, "21 images"),
        (("first", "value"), "uint8", "EngineBuildError", "value uint8 (?, ?)"),
        (("router", "easiness"), "string", "EngineBuildError", "router.onnx"),
        (("first", "value"), "twice as many rows", "EngineRunError", "'first'"),
        (("second", "boxes_xyxy"), "no row", "EngineRunError", "'second'"),
        (("first", "value"), "turned", "EngineRunError", "'first'"),
    ],
)
def test_openvino_is_not_believed_either(tmp_path, openvino, output, twist, error, part) -> None:
    for lies in ([], ANY_SIZE):  # outputs that are bound, and those that lie where OpenVINO wants
        bundle = hostile.write(
            tmp_path / f"{len(lies)}.dyn", Hostile({output: (twist, "nothing")}, True, lies)
        )
        found = openvino.use(bundle)
        assert (found["verdict"], found.get("error")) == ("refused" if error else "right", error)
        assert part in found["why"], found


@settings(max_examples=25, deadline=None, derandomize=True)
@given(HOSTILE)
def test_nothing_foreign_comes_out_of_openvino(openvino, wrong) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = openvino.use(hostile.write(Path(folder) / "a.dyn", wrong))
    assert found["verdict"] in ("right", "refused"), found
