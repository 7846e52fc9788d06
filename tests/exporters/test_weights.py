"""Where weights are found in what trainings save, and what is said of files without any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dyninfer import CheckpointError
from dyninfer.exporters.weights import Naming, find_weights, load_strictly
from tests import support

NAMING = Naming("Net", "model_b.", re.compile(r"((?:module\.|_orig_mod\.)*)model_b\."), r"extra\d")
ONE = {"model_b.0": torch.arange(3.0), "model_b.1": torch.ones(2, 2)}
OTHER = {"model_b.0": torch.arange(3.0), "model_b.1": torch.zeros(2, 2)}


def found(folder: Path, content: Any, naming: Naming = NAMING):
    torch.save(content, folder / "it.pt")
    return find_weights(folder / "it.pt", naming)


def assert_is(state: dict[str, Any], expected: dict[str, torch.Tensor]) -> None:
    assert state.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    "places", [(), ("net",), ("model", "state_dict"), ("ema", "module", "weights")]
)
def test_weights_lie_up_to_three_names_deep(tmp_path: Path, places: tuple[str, ...]) -> None:
    content: Any = ONE
    for name in reversed(places):
        content = {"epoch": 3, name: content}
    assert_is(found(tmp_path, content).state, ONE)
    with support.refuses(CheckpointError, "it.pt is not a Net checkpoint"):
        found(tmp_path, {"model": {"net": {"network": {"weights": ONE}}}})
    with support.refuses(CheckpointError, "no parameter starts with 'model_b.' (it has elsewhere)"):
        found(tmp_path, {"elsewhere": ONE})


@pytest.mark.parametrize("name", ["ema", "ema_state_dict", "state_dict_ema", "model_ema"])
def test_an_average_goes_before_and_is_told_where_it_differs(tmp_path: Path, name: str) -> None:
    differs = found(tmp_path, {"model": OTHER, name: {"module": ONE}})
    assert_is(differs.state, ONE)
    (note,) = differs.notes
    assert note == (
        f"weights: '{name}.module' of it.pt, the training's moving average; the public scripts "
        "read 'model', which differs"
    )
    for content in (
        {"model": ONE, name: ONE},
        {name: ONE},
        {name: {"module": OTHER, "model": ONE}},
        {name: ONE, "model": {f"module.{key}": tensor for key, tensor in ONE.items()}},
    ):
        same = found(tmp_path, content)
        assert_is(same.state, ONE)
        assert same.notes == ()
    fewer = found(tmp_path, {name: ONE, "state_dict": {"model_b.0": ONE["model_b.0"]}})
    assert "read 'state_dict', which differs" in fewer.notes[0]
    more = found(tmp_path, {name: {"model_b.0": ONE["model_b.0"]}, "state_dict": ONE})
    assert "read 'state_dict', which differs" in more.notes[0]


def test_what_is_not_the_model_s_own_is_left_out(tmp_path: Path) -> None:
    wrapped = {f"_orig_mod.module.{name}": tensor for name, tensor in ONE.items()}
    counts = {"total_ops": ONE["model_b.0"], "model_b.3.total_params": ONE["model_b.0"]}
    counts |= {"module.n_averaged": torch.tensor(3), "extra7": torch.tensor(1)}
    assert_is(found(tmp_path, wrapped | counts).state, ONE)
    kept = ONE | {"extra77": torch.tensor(1), "total_ops_of": torch.tensor(2)}
    assert_is(found(tmp_path, kept | {"extra7": torch.tensor(1)}).state, kept)
    assert found(tmp_path, {"state_dict": ONE, "arch": "net_b7"}).arch == "net_b7"
    assert found(tmp_path, {"state_dict": ONE, "arch": 7}).arch is None
    assert found(tmp_path, ONE).arch is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": 1, "b": 2, "c": 3}, "starts with 'model_b.' (it has a, b, c)"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "(it has a, b, c, ...)"),
        ({"x" * 81: 1}, f"(it has {'x' * 80})"),
        ({"model": {"a": 1}, "d": 4}, "(it has a)"),
        ({"model": {}}, "it holds dict where a dict of tensors should be"),
        ({}, "it holds dict where"),
        ([ONE], "it holds list where"),
    ],
)
def test_a_file_without_weights_is_told_by_what_it_holds(tmp_path: Path, content, told) -> None:
    with support.refuses(CheckpointError, "is not a Net checkpoint", told):
        found(tmp_path, content)
    eye = Naming("EyeNet", "model_b.", NAMING.own)
    with support.refuses(CheckpointError, "is not an EyeNet checkpoint"):
        found(tmp_path, content, eye)


def test_what_is_no_plain_tensor_among_weights_is_named(tmp_path: Path) -> None:
    odd = {f"odd{number}": number for number in range(6)}
    with pytest.raises(CheckpointError, match=r"its weights: odd0, odd1, odd2, odd3, odd4$"):
        found(tmp_path, ONE | odd)
    lying = torch.ones(3).as_strided((4,), (0,))
    with support.refuses(CheckpointError, "model_b.9 has shape (4,), more values than"):
        found(tmp_path, ONE | {"model_b.9": lying})
    full = torch.ones(4).as_strided((2, 2), (2, 1))
    assert "model_b.9" in found(tmp_path, ONE | {"model_b.9": full}).state
    assert "model_b.9" in found(tmp_path, ONE | {"model_b.9": torch.ones(8)[:4]}).state


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(2, 2).to_sparse(), torch.ones(2, device="meta"), torch.ones(2).to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_what_is_not_dense_or_not_real_is_named(tmp_path: Path, tensor) -> None:
    with support.refuses(CheckpointError, "not tensors among its weights: model_b.9"):
        found(tmp_path, ONE | {"model_b.9": tensor})


def test_complex_numbers_of_a_safetensors_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    try:
        save_file(ONE | {"model_b.9": torch.ones(2, dtype=torch.complex64)}, path)
    except KeyError:
        pytest.skip("this version of safetensors knows no complex numbers")
    with support.refuses(CheckpointError, "model_b.9 is torch.complex64; expected real numbers"):
        find_weights(path, NAMING)


class Small(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ParameterList(nn.Parameter(torch.zeros(2)) for _ in range(layers))


def test_a_model_is_filled_with_all_of_its_weights_or_not_at_all() -> None:
    state = {f"layers.{number}": torch.full((2,), number + 0.5) for number in range(7)}
    with torch.device("meta"):
        model = Small(7)
    load_strictly(model, {name: t.half() for name, t in state.items()}, "it", "do that")
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert_is(model.state_dict(), state)
    for changed, told in (
        ({}, "7 missing: layers.0, layers.1, layers.2, layers.3, layers.4 and 2 more;"),
        (state | {"more": torch.ones(1)}, "parameters 1 unexpected: more; do that"),
        (state | {"layers.1": torch.ones(3)}, "layers.1 is (3,), expected (2,); do that"),
        (state | {"layers.1": torch.ones(1)}, "layers.1 is (1,), expected (2,); do that"),
        ({n: t for n, t in state.items() if n != "layers.2"}, "parameters 1 missing: layers.2;"),
    ):
        with torch.device("meta"):
            model = Small(7)
        with support.refuses(CheckpointError, "does not fit it: ", told):
            load_strictly(model, changed, "it", "do that")
    for value in (torch.nan, torch.inf):
        with support.refuses(CheckpointError, "NaN or infinity: layers.6; the training diverged"):
            load_strictly(Small(7), state | {"layers.6": torch.tensor([0, value])}, "it", "")
    broken = {name: torch.full((2,), torch.nan) for name in state}
    told = "infinity: layers.0, layers.1, layers.2, layers.3, layers.4 and 2 more; the"
    with support.refuses(CheckpointError, told):
        load_strictly(Small(7), broken, "it", "")
