"""What a file and its runs say of tensors, beside what the manifest says of them."""

from __future__ import annotations

import numpy as np
import pytest

from dyninfer import EngineBuildError, EngineRunError
from dyninfer.bundle.manifest import Stage, TensorSpec
from dyninfer.engines.signature import FileTensor, check_made, check_signature
from tests import support

MAX_ROW = 2**40
SHAPE = ("batch", 3, "found")


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape or SHAPE)


@pytest.mark.parametrize(
    ("dtype", "shape", "fits"),
    [
        ("float32", (None, 3, None), True),
        ("float32", (7, 3, 9), True),  # a fixed size of an axis that the manifest leaves open
        ("float32", (None, None, None), True),
        ("float32", None, True),
        ("float32", (None, 4, None), False),
        ("float32", (None, 2, None), False),
        ("float32", (None, 3), False),
        ("float32", (None, 3, None, None), False),
        ("float16", (None, 3, None), False),
        ("float16", None, False),
        ("int64", None, False),
    ],
)
def test_a_file_may_say_less_than_the_manifest_but_nothing_else(dtype, shape, fits) -> None:
    assert FileTensor("x", dtype, shape).may_be(spec("x")) is fits


def test_a_tensor_of_a_file_is_shown_with_what_is_known() -> None:
    assert str(FileTensor("x", "float32", (None, 3))) == "x float32 (?, 3)"
    assert str(FileTensor("x", "float32", None)) == "x float32"


def stage(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Stage:
    return Stage(
        file="x.onnx", sha256="0" * 64, inputs=inputs, outputs=outputs, parameters=0, macs=0
    )


def declared(*specs: TensorSpec) -> list[FileTensor]:
    return [FileTensor(s.name, s.dtype, (None,) * len(s.shape)) for s in specs]


def check(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> None:
    check_signature("a file", stage(inputs, outputs), declared(*inputs), declared(*outputs))


@pytest.mark.parametrize(
    "shape", [("batch",), ("batch", 0), ("batch", "n", 2), ("batch", 1, MAX_ROW)]
)
def test_stages_whose_rows_can_be_found_are_taken(shape) -> None:
    check((spec("x", *shape),), (spec("y", *shape),))


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3),
        ("n", 3),
        ("a", 3),
        (3, "batch"),
        ("batch", "batch"),
        ("batch", -1),
        ("batch", MAX_ROW + 1),
        ("batch", 2**20, 2**21),
        ("batch", 0, MAX_ROW + 1),
    ],
)
def test_stages_whose_rows_cannot_be_found_are_refused(shape) -> None:
    for inputs, outputs in (((spec("x", *shape),), ()), ((spec("x"),), (spec("y", *shape),))):
        with support.refuses(EngineBuildError, "a file", "'batch' as the first axis"):
            check(inputs, outputs)


def test_names_stand_for_one_tensor_each_on_their_side() -> None:
    x, y = spec("x"), spec("y")
    check((x,), ())
    with support.refuses(EngineBuildError, "two inputs or outputs called 'x'"):
        check((x,), (y, x))
    with support.refuses(EngineBuildError, "has no input"):
        check((), (y,))
    both = stage((x,), (y,))
    check_signature("a file", both, declared(x), declared(y))
    for inputs, outputs in (([y], [x]), ([x], []), ([x], [y, spec("z")])):
        names = [sorted(each.name for each in side) for side in (inputs, outputs)]
        told = f"a file has inputs {names[0]} and outputs {names[1]}"
        with support.refuses(EngineBuildError, told, "manifest says ['x'] and ['y']", "say so"):
            check_signature("a file", both, declared(*inputs), declared(*outputs), "say so")
    with support.refuses(EngineBuildError, "a file has y float32 (?, ?), the manifest says y"):
        check_signature("a file", both, declared(x), declared(spec("y", "batch", 3)))


@pytest.mark.parametrize(
    ("shape", "other", "fits"),
    [
        ((2, 3, 5), (2, 5), True),
        ((2, 3, 0), (2, 0), True),
        ((2, 3, 5), (2, 4), False),  # two axes of one name
        ((1, 3, 5), (1, 5), False),
        ((2, 4, 5), (2, 5), False),
        ((2, 3), (2, 5), False),
        ((2, 3, 5, 1), (2, 5), False),
    ],
)
def test_what_a_run_made_has_the_sizes_of_the_manifest(shape, other, fits) -> None:
    specs = [spec("y"), spec("z", "batch", "found")]
    made = {"y": np.zeros(shape, np.float32), "z": np.zeros(other, np.float32)}
    if fits:
        check_made("second", specs, made, 2)
        with support.refuses(EngineRunError, "stage 'second' made y float32", "of 3 images"):
            check_made("second", specs, made, 3)
        for dtype in (np.float16, np.float64):
            with support.refuses(EngineRunError, f"made y {np.dtype(dtype)}"):
                check_made("second", specs, made | {"y": np.zeros(shape, dtype)}, 2)
    else:
        with support.refuses(EngineRunError, "stage 'second' made "):
            check_made("second", specs, made, 2)
