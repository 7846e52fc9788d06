"""Which weights of a checkpoint count, and how strictly they must fit."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dyninfer import CheckpointError, ConfigError
from dyninfer.exporters.dynamicdet import layers
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.fold import fold
from dyninfer.exporters.dynamicdet.model import DynamicDetector, load_model
from dyninfer.exporters.dynamicdet.topology import recognise
from dyninfer.exporters.dynamicdet.weights import read_weights
from dyninfer.exporters.safe_load import load_checkpoint
from tests import support


@pytest.fixture
def state(small_model) -> dict[str, torch.Tensor]:
    return dict(small_model.state_dict())


def refused_without_a_trace(tmp_path, content, small_yaml, *parts: str) -> None:
    """An export of ``content`` fails naming ``parts``, and nothing new lies on disk."""
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    with support.refuses(CheckpointError, *parts):
        export_dynamicdet(path, tmp_path / "x.dyn", DynamicDetOptions(config=small_yaml))
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pt"]


def test_ema_is_preferred_to_model(tmp_path, state) -> None:
    path = tmp_path / "weights.pt"
    other = {name: tensor + 1 for name, tensor in state.items()}
    content = support.published_format(other)
    torch.save({**content, "ema": OrderedDict(state)}, path)
    assert all(
        torch.equal(tensor, state[name]) for name, tensor in read_weights(path).state.items()
    )


def test_model_is_taken_where_ema_is_none(tmp_path, state) -> None:
    path = tmp_path / "weights.pt"
    torch.save(support.published_format(state), path)
    assert list(read_weights(path).state) == list(state)


def test_ema_alone_and_a_bare_state_dict_are_read(tmp_path, state) -> None:
    for number, content in enumerate((support.published_format(state, ema=True), state)):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        assert list(read_weights(path).state) == list(state)


def test_the_prefix_of_parallel_training_is_taken_off(tmp_path, state) -> None:
    path = tmp_path / "weights.pt"
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(support.published_format(prefixed), path)
    assert list(read_weights(path).state) == list(state)


@pytest.mark.parametrize("before", ["_orig_mod.", "module._orig_mod.", "model.", "ema_model.net."])
@pytest.mark.parametrize("places", [(), ("state_dict",), ("model_state_dict",), ("ema", "module")])
def test_weights_are_found_behind_other_names(tmp_path, state, before, places) -> None:
    content = {f"{before}{name}": tensor for name, tensor in state.items()}
    for place in reversed(places):
        content = {"epoch": 3, place: content}
    path = tmp_path / "weights.pt"
    torch.save(content, path)
    assert list(read_weights(path).state) == list(state)


def test_an_average_that_differs_from_what_the_public_scripts_read_is_told(tmp_path, state) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"ema": state, "model": {**state, "model_b.0.bn.bias": torch.ones(8)}}, path)
    (note,) = read_weights(path).notes
    assert "'ema'" in note
    assert "public scripts read 'model'" in note
    torch.save({"ema": state, "model": state}, path)
    assert read_weights(path).notes == ()


def test_counts_of_profilers_and_averages_are_left_out(tmp_path, state, small_yaml) -> None:
    path = tmp_path / "weights.pt"
    counts = {"total_ops": torch.ones(1), "model_b.0.conv.total_params": torch.ones(1)}
    wrapped = {f"module.{name}": tensor for name, tensor in (state | counts).items()}
    torch.save({"n_averaged": torch.tensor(3), **wrapped}, path)
    assert set(load_model(path, small_yaml).state_dict()) == set(state)


def test_counts_of_batches_may_be_missing(tmp_path, state, small_yaml) -> None:
    path = tmp_path / "weights.pt"
    torch.save({n: t for n, t in state.items() if "num_batches" not in n}, path)
    assert set(load_model(path, small_yaml).state_dict()) == set(state)


def fused(model: DynamicDetector, implicit: bool) -> dict[str, torch.Tensor]:
    """What ``fuse()`` of the public code leaves: with implicit layers' entries, though folded."""
    folded, state = fold(model), {}
    for name, tensor in model.state_dict().items():
        if ".bn." not in name and (implicit or ".implicit" not in name):
            state[name] = tensor
    for name, module in model.named_modules():
        if isinstance(module, layers.ConvBnSiLU):
            merged = fuse_conv_bn_eval(module.conv, module.bn)
            state |= {f"{name}.conv.{of}": t for of, t in merged.state_dict().items()}
        elif isinstance(module, layers.RepConv):
            state = {n: t for n, t in state.items() if not n.startswith(f"{name}.")}
            merged = folded.get_submodule(name)[0]
            state |= {f"{name}.rbr_reparam.{of}": t for of, t in merged.state_dict().items()}
        elif isinstance(module, layers.Detect):
            convolutions = folded.get_submodule(f"{name}.m").state_dict()
            state |= {f"{name}.m.{of}": tensor for of, tensor in convolutions.items()}
    return state


@pytest.mark.parametrize("implicit", [True, False])
def test_a_fused_checkpoint_computes_what_it_did_before(
    tmp_path, small_model, small_yaml, implicit
) -> None:
    path = tmp_path / "fused.pt"
    torch.save(fused(small_model, implicit), path)
    found = load_model(path, small_yaml)
    assert ["fused" in note for note in found.notes] == [True]
    images = torch.from_numpy(support.random_images(1))
    for part in ("head", "second"):
        wanted = getattr(small_model, part)(small_model.first(images))
        for model in (found, fold(found)):
            made = getattr(model, part)(model.first(images))
            for one, other in zip(made, wanted, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_safetensors_are_read(tmp_path, state) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(state, path, {"format": "pt"})
    found = read_weights(path).state
    assert found.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    ("entry", "rest"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 2**40]}, b""),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, bytes(4)),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, bytes(9)),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, bytes(8)),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, bytes(12)),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, bytes(8)),
        ({"dtype": "F7", "shape": [8], "data_offsets": [0, 8]}, bytes(8)),
        ({"dtype": "F32", "shape": [0, *[2**31 - 1] * 60], "data_offsets": [0, 0]}, b""),
        ({"shape": [2]}, bytes(8)),
        ([], b""),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, entry, rest) -> None:
    path = tmp_path / "weights.safetensors"
    text = json.dumps({"x": entry}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + rest)
    with support.refuses(CheckpointError, "weights.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [[], {}, 3, {"model": None, "ema": None}, {"model": [1]}])
def test_files_without_weights_are_refused(tmp_path, small_yaml, content) -> None:
    refused_without_a_trace(tmp_path, content, small_yaml, "weights.pt")


def test_another_model_is_refused_with_what_it_holds(tmp_path, small_yaml) -> None:
    content = torch.nn.Linear(2, 2).state_dict()
    refused_without_a_trace(tmp_path, content, small_yaml, "not a DynamicDet", "weight, bias")


def test_entries_that_are_not_tensors_are_named(tmp_path, small_yaml, state) -> None:
    content = {**state, "model_b.0.note": "hello"}
    refused_without_a_trace(tmp_path, content, small_yaml, "model_b.0.note")


def test_missing_keys_are_named(tmp_path, small_yaml, state) -> None:
    gone = ("model_b.0.bn.weight", "model_h.0.cv3.conv.weight", "router.layer2.bias")
    content = {name: tensor for name, tensor in state.items() if name not in gone}
    refused_without_a_trace(tmp_path, content, small_yaml, "3 missing", *gone)


def test_missing_keys_that_fix_a_width_are_named(tmp_path, small_yaml, state) -> None:
    gone = ("model_b.3.conv.weight", "model_h2.2.anchors", "model_b2.2.conv.weight")
    content = {name: tensor for name, tensor in state.items() if name not in gone}
    refused_without_a_trace(tmp_path, content, small_yaml, *gone)


def test_extra_keys_are_named(tmp_path, small_yaml, state) -> None:
    extra = {"model_b.99.conv.weight": torch.ones(1), "something.else": torch.ones(1)}
    refused_without_a_trace(tmp_path, {**state, **extra}, small_yaml, "2 unexpected", *extra)


def test_wrong_shapes_are_named_with_both(tmp_path, small_yaml, state) -> None:
    name = "model_b.4.conv.weight"
    content = {**state, name: torch.ones(16, 9, 1, 1)}
    refused_without_a_trace(tmp_path, content, small_yaml, name, "(16, 9, 1, 1)", "(16, 16, 1, 1)")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model_b.0.conv.weight", ()),
        ("model_b.0.conv.weight", (0, 3, 3, 3)),
        ("model_h.5.anchors", ()),
        ("model_h.5.anchors", (2,)),
        ("model_h.5.anchors", (2, 0, 2)),
        ("model_h.5.m.0.weight", (3, 16, 1, 1)),
        ("model_h.0.cv1.conv.weight", ()),
        ("router.layer1.weight", ()),
    ],
)
def test_shapes_that_no_width_can_be_read_from_are_refused(
    tmp_path, small_yaml, state, name, shape
) -> None:
    content = {**state, name: torch.ones(shape)}
    refused_without_a_trace(tmp_path, content, small_yaml, name)


def test_heads_that_disagree_on_their_classes_are_refused(tmp_path, small_yaml, state) -> None:
    content = dict(state)
    for level in (0, 1):
        for kind in ("m.{}.weight", "m.{}.bias"):
            name = "model_h2.2." + kind.format(level)
            content[name] = torch.cat([state[name], state[name][:2]])
        name = f"model_h2.2.im.{level}.implicit"
        content[name] = torch.cat([state[name], state[name][:, :2]], 1)
    refused_without_a_trace(tmp_path, content, small_yaml, "model_h.5.m.0.weight")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, small_yaml, state, value) -> None:
    broken = state["model_b2.4.bn.running_var"].clone()
    broken[3] = value
    content = {**state, "model_b2.4.bn.running_var": broken}
    refused_without_a_trace(tmp_path, content, small_yaml, "model_b2.4.bn.running_var", "NaN")


def test_an_unknown_number_of_rows_asks_for_the_yaml(small_checkpoint) -> None:
    with support.refuses(ConfigError, "7 rows", "dy-yolov7 (51)", "--config"):
        load_model(small_checkpoint)
    with support.refuses(ConfigError):
        recognise(["model_b.elsewhere.weight"])


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_published_variants_are_told_apart_without_a_configuration(variant) -> None:
    assert recognise(read_weights(support.checkpoint_of(variant)).state).name == variant


def test_a_shape_that_the_file_does_not_fill_is_refused_before_memory_is_taken(
    tmp_path, small_yaml, state
) -> None:
    name = "model_b.0.conv.weight"
    claimed = torch.zeros(1, dtype=torch.float16).expand(10**9, 3, 3, 3)
    refused_without_a_trace(tmp_path, state | {name: claimed}, small_yaml, name, "1000000000")


def test_a_width_far_beyond_the_others_is_refused_before_memory_is_taken(
    tmp_path, small_yaml, state
) -> None:
    names = ["model_b.0.conv.weight", "model_b.1.conv.weight"]
    wide = {name: torch.zeros(10**6, 1, 1, 1, dtype=torch.float16) for name in names}
    refused_without_a_trace(tmp_path, state | wide, small_yaml, "model_b.1.conv.weight")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(8, 3, 3, 3).to_sparse(),
        torch.zeros(8, 3, 3, 3, device="meta"),
        torch.zeros(8, 3, 3, 3, dtype=torch.complex64),
    ],
    ids=["sparse", "meta", "complex"],
)
def test_what_is_no_dense_real_tensor_is_refused(tmp_path, small_yaml, state, tensor) -> None:
    name = "model_b.0.conv.weight"
    refused_without_a_trace(tmp_path, state | {name: tensor}, small_yaml, name)


def test_a_torchscript_program_is_told_from_a_checkpoint(tmp_path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.script(torch.nn.ReLU()).save(str(path))
    with support.refuses(CheckpointError, "TorchScript"):
        load_checkpoint(path)
