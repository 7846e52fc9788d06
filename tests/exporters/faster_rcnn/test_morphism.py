from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dyninfer.errors import CheckpointError, InputError
from dyninfer.exporters.faster_rcnn.morphism import FasterRCNNStudent
from dyninfer.exporters.faster_rcnn.names import Library
from tests import support
from tests.exporters.faster_rcnn import narrow
from tests.exporters.morphism.students import answers, assert_close, faster_rcnn, masked


def with_layers(layer: int, shapes: dict[str, tuple[int, ...]]) -> FasterRCNNStudent:
    """The base with other convolutions in a stage, each with a norm."""
    prefix = f"backbone.layer{layer}."
    state = {n: t for n, t in faster_rcnn().state.items() if not n.startswith(prefix)}
    generator = torch.Generator().manual_seed(5)
    for name, shape in shapes.items():
        state[f"{prefix}{name}.weight"] = torch.randn(shape, generator=generator) / 9
        norm = name.replace("conv", "bn").replace("downsample.0", "downsample.1")
        for part, value in {
            "weight": 0.9, "bias": 0.1, "running_mean": 0.0, "running_var": 1.0
        }.items():  # fmt: skip
            state[f"{prefix}{norm}.{part}"] = torch.full(shape[:1], value)
    return FasterRCNNStudent(state, Library.MMDETECTION, {})


@pytest.mark.parametrize("library", ["mmdetection", "torchvision"])
def test_a_student_is_saved_in_its_librarys_names(tmp_path: Path, library: str) -> None:
    source = narrow.save(getattr(narrow, library)(), tmp_path / "base.pth")
    base = FasterRCNNStudent.load(source)
    base.save(tmp_path / "same.pth")
    first, again = (torch.load(tmp_path / f"{n}.pth")["state_dict"] for n in ("base", "same"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    student = base.add("layer4", 2).drop("layer2", 1)
    for width, channels in {"layer4.1.conv1": [0, 2], "layer1": [3, 1]}.items():
        student = student.thin(width, {width: channels})
    student.save(tmp_path / "student.pth")
    read = FasterRCNNStudent.load(tmp_path / "student.pth")
    assert (read.library, [*read.stages.values()]) == (Library(library), [1, 1, 1, 4])
    assert {block.outputs for block in read.structure.stages[0]} == {2}
    assert all(map(torch.equal, answers(read), answers(student)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("base.pth", "same.pth", "student.pth")
    ]


def test_basic_blocks_are_thinned_between_their_two_convolutions() -> None:
    basic = with_layers(4, {
        "0.conv1": (6, 32, 3, 3), "0.conv2": (40, 6, 3, 3), "0.downsample.0": (40, 32, 1, 1),
        "1.conv1": (5, 40, 3, 3), "1.conv2": (40, 5, 3, 3),
    })  # fmt: skip
    assert all(map(torch.equal, answers(basic.add("layer4", 1)), answers(basic)))
    keep = {"layer4.1.conv1": [4, 0]}
    thin = basic.thin("layer4.1.conv1", keep)
    assert_close(answers(thin), answers(masked(basic, "layer4.1.conv1", keep)))


def test_without_a_projection_a_stage_has_the_stems_channels() -> None:
    """As C2 of a ResNet-18, whose first block adds up what the stem made."""
    basic = with_layers(1, {
        "0.conv1": (6, 8, 3, 3), "0.conv2": (8, 6, 3, 3), "1.conv1": (5, 8, 3, 3),
        "1.conv2": (8, 5, 3, 3),
    })  # fmt: skip
    state = dict(basic.state)
    for name in ("backbone.layer2.0.conv1", "backbone.layer2.0.downsample.0"):
        state[f"{name}.weight"] = state[f"{name}.weight"][:, :8]
    state["neck.lateral_convs.0.conv.weight"] = state["neck.lateral_convs.0.conv.weight"][:, :8]
    base = FasterRCNNStudent(state, Library.MMDETECTION, {})
    assert "layer1" not in base.widths
    keep = {"conv1": [0, 7, 3]}
    assert_close(answers(base.thin("conv1", keep)), answers(masked(base, "conv1", keep)))


def test_convolutions_in_groups_keep_their_channels() -> None:
    grouped = with_layers(4, {
        "0.conv1": (6, 32, 1, 1), "0.conv2": (6, 3, 3, 3), "0.conv3": (40, 6, 1, 1),
        "0.downsample.0": (40, 32, 1, 1),
    })  # fmt: skip
    assert grouped.structure.stages[3][0].convs[1].groups == 2
    with support.refuses(InputError, "convolutions in groups keep their channels"):
        grouped.thin("layer4.0.conv1", {"layer4.0.conv1": [0]})
    assert grouped.add("layer4", 0).stages["layer4"] == 2
    keep = {"layer4": [*range(9)]}  # made by convolutions without groups
    assert_close(answers(grouped.thin("layer4", keep)), answers(masked(grouped, "layer4", keep)))


def test_a_checkpoint_that_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    state = narrow.mmdetection()
    state["backbone.layer4.1.conv2.weight"] = torch.zeros(7, 6, 3, 3)
    source = narrow.save(state, tmp_path / "base.pth")
    with support.refuses(CheckpointError, "layers do not meet"):
        FasterRCNNStudent.load(source)
