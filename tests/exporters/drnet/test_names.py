"""Which checkpoints are a DRNet, whatever their parameters are called, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dyninfer import CheckpointError, ConfigError, InputError
from dyninfer.exporters.drnet.export import DRNET, load_model
from dyninfer.exporters.drnet.options import DRNetOptions, ShortcutNorm
from tests import support
from tests.exporters.drnet.narrow import random_state, write_pair

State = dict[str, Tensor]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "mindspore": lambda n: (
        n.replace(".bn.", ".bn_")
        .replace("downsample", "down_sample_layer")
        .replace("fc.", "end_point.")
        .replace("running_mean", "moving_mean")
        .replace("running_var", "moving_variance")
    ),
    "plural": lambda n: n.replace(".bn.", ".bns."),
    "plain": lambda n: n.replace(".bn.", "."),
    "parallel": lambda n: f"module.{n}",
}


def in_mindspore(name: str) -> str:
    """Batch norms' weight and bias have other names there, other layers' have not."""
    name = SPELLINGS["mindspore"](name)
    if ".bn_" in name:
        name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
    return name


@pytest.fixture
def classifier() -> State:
    return random_state(3, bottleneck=2, seed=7)


def saved(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_the_same_model(tmp_path, classifier, spelling) -> None:
    rename = in_mindspore if spelling == "mindspore" else SPELLINGS[spelling]
    renamed = {rename(name): value for name, value in classifier.items()}
    assert not renamed.keys() & classifier.keys() or spelling != "parallel"
    renamed |= {"bn1.bn_0.num_batches_tracked": torch.tensor(3), "global_step": torch.tensor(7)}
    renamed = {"moments.layer1.0.conv1.weight": torch.zeros(1), **renamed}
    training = {"state_dict": renamed, "epoch": 3, "optimizer": {"lr": 0.1}}
    found = load_model(saved(training, tmp_path / "x.pt")).state_dict()
    assert found.keys() == classifier.keys()
    assert all(torch.equal(found[name], value) for name, value in classifier.items())


def test_what_is_no_such_network_is_refused_by_name(tmp_path, classifier) -> None:
    gone = {n: v for n, v in classifier.items() if n != "layer2.0.bn2.bn.1.running_var"}
    plain = {n.replace("downsample.1.bn.0", "downsample.1"): v for n, v in classifier.items()}
    plain = {n: v for n, v in plain.items() if "downsample.1.bn." not in n}
    both = {**classifier, "layer1.0.bn1.bn_0.gamma": classifier["bn1.bn.0.weight"]}
    cut = {n: v for n, v in classifier.items() if "downsample" not in n}
    biased = {**classifier, "layer1.0.conv1.bias": torch.zeros(8)}
    flat = {**classifier, "layer1.0.conv2.weight": torch.zeros(8, 8)}
    wide = {**classifier, "layer1.0.conv2.weight": torch.zeros(8, 5, 3, 3)}
    even = {**classifier, "conv1.weight": torch.zeros(8, 3, 6, 6)}
    mobile = {"features.0.0.weight": torch.zeros(32, 3, 3, 3)}
    for state, parts in (
        (gone, ("3 sets", "layer2.0.bn2 lacks running_var of set 1")),
        (plain, ("layer1.0.downsample.1 lacks weight of set 1", "and 11 more")),
        (both, ("layer1.0.bn1.bn_0.gamma", "both mean layer1.0.bn1.bn.0.weight")),
        (cut, ("layer1.0.downsample.0.weight is missing", "16 channels of 8")),
        (biased, ("1 unexpected: layer1.0.conv1.bias",)),
        (flat, ("layer1.0.conv2.weight has 2 axes", "expected 4")),
        (wide, ("layer1.0.conv2.weight is 8x5x3x3", "8 channels come in")),
        (even, ("conv1.weight is 8x3x6x6",)),
        (mobile, ("MobileNetV2", "only ResNets")),
        ({"backbone.conv_stem.weight": torch.zeros(3)}, ("not a DRNet checkpoint",)),
    ):
        with support.refuses(CheckpointError, "x.pt", *parts):
            load_model(saved(state, tmp_path / "x.pt"))


def test_a_pair_that_does_not_belong_together_is_refused(tmp_path, classifier) -> None:
    predictor = random_state(None, classes=3, seed=1)
    for first, second, parts in (
        (classifier, predictor, ("a classifier and a predictor", "predictor comes first")),
        (classifier, classifier, ("3 sets", "expected one", "predictor comes first")),
        (predictor, predictor, ("one set of batch norm", "each resolution")),
        (random_state(None, classes=2), classifier, ("2 scores", "3 sets")),
    ):
        sources = write_pair(tmp_path, first, second)
        with support.refuses(CheckpointError, *parts):
            DRNET.export(sources, tmp_path / "x.dyn", DRNetOptions(), print)
    assert not (tmp_path / "x.dyn").exists()


def test_sizes_that_do_not_fit_are_refused(tmp_path) -> None:
    sources = write_pair(tmp_path, random_state(None, classes=4), random_state(4))
    for options, error, parts in (
        ({}, ConfigError, ("4 sets", "3 and 5", "--resolutions")),
        ({"resolutions": (224, 112)}, ConfigError, ("2 resolutions", "224, 112", "4 sets")),
        ({"resolutions": (224, 168, 112, 168)}, InputError, ("not all different",)),
        ({"resolutions": (224, 168, 112, 16)}, InputError, ("a size is 16", "32 to 16384")),
        ({"image_size": (224, 192)}, InputError, ("224x192", "one number")),
    ):
        with support.refuses(error, *parts):
            DRNET.export(sources, tmp_path / "x.dyn", DRNetOptions(**options), print)


def at_the_start(state: State, names: Callable[[str], bool]) -> State:
    """Some batch norms as before training, their weights shrunk by weight decay."""
    values = {"weight": 0.9, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
    return {
        name: torch.full_like(value, values[name.rpartition(".")[2]]) if names(name) else value
        for name, value in state.items()
    }


def test_whether_shortcuts_have_sets_of_their_own_is_seen_or_asked_for(
    tmp_path, classifier, monkeypatch
) -> None:
    monkeypatch.setattr("dyninfer.exporters.drnet.export.write_bundle", lambda *_, **__: None)
    predictor = random_state(None, classes=3, seed=1)
    unused = at_the_start(
        classifier, lambda n: "downsample.1.bn" in n and "downsample.1.bn.0" not in n
    )
    partly = at_the_start(classifier, lambda n: "downsample.1.bn.2" in n)

    def notes(state: State, asked: ShortcutNorm | None = None) -> str:
        sources = write_pair(tmp_path, predictor, state)
        options = DRNetOptions(shortcut_bn=asked)
        return " ".join(DRNET.export(sources, tmp_path / "x.dyn", options, print).notes)

    assert "a set at each resolution; their further sets are trained" in notes(classifier)
    assert "set 0 at every resolution; their further sets are as before" in notes(unused)
    overruled = notes(unused, ShortcutNorm.PER_RESOLUTION)
    assert "a set at each resolution, as asked for; their further sets are as before" in overruled
    with support.refuses(ConfigError, "2 of 4 further sets", "--shortcut-bn"):
        notes(partly)
    assert "set 0 at every resolution, as asked for" in notes(partly, ShortcutNorm.INDEX0)
