from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dyninfer.errors import CheckpointError, InputError
from dyninfer.exporters.zendet.detector import Detector
from dyninfer.exporters.zendet.morphism import ZenDetStudent
from dyninfer.search.cost import cost_of
from dyninfer.search.structure import read_structure
from tests import support
from tests.exporters.morphism.students import (
    MIDDLE,
    answers,
    assert_close,
    backbone,
    detector,
    masked,
    parameters,
)
from tests.exporters.zendet import reference


def test_a_structure_is_read_from_weights_and_strides() -> None:
    assert backbone().structure == MIDDLE
    assert detector().structure == read_structure(reference.STRUCTURE)


def test_mutations_change_the_structure_with_the_weights() -> None:
    student = backbone().add("block_list.3", 0).drop("block_list.4", 1)
    student = student.thin("block_list.4.btn", student.most_important("block_list.4.btn", 8))
    student = student.widen("block_list.2", student.most_important("block_list.2", 8))
    blocks = list(MIDDLE.blocks)
    blocks[2] = replace(blocks[2], outputs=32)
    blocks[3] = replace(blocks[3], inputs=32, depth=2)
    blocks[4] = replace(blocks[4], depth=2, width=8)
    assert list(student.structure.blocks) == blocks
    assert parameters(student) == cost_of(student.structure, (64, 64)).parameters


def test_all_widths_but_those_of_groups_can_be_chosen() -> None:
    names = {f"block_list.{index}" for index in range(6)}
    inner = {f"block_list.{index}.btn" for index in range(1, 5)}
    assert backbone().widths.keys() == names | inner
    assert detector().widths["neck"] == 64


def test_a_head_without_convolutions_reads_the_pyramid_itself() -> None:
    head = re.compile(r"bbox_head\.\w+_convs\..*")
    bare = {name: each for name, each in detector().state.items() if not head.fullmatch(name)}
    base = replace(detector(), state=bare)
    # its channels are then those of the pyramid, which a model has once
    assert base.model().bbox_head.shape.depth == 0
    keep = base.most_important("neck", 64)
    keep["neck.fpn_convs"].reverse()
    assert_close(answers(base.thin("neck", keep)), answers(base))


@pytest.mark.parametrize("make", [detector, backbone])
def test_a_student_is_saved_with_its_structure(tmp_path: Path, make) -> None:
    student = make().add("block_list.1", 0)
    student = student.thin("block_list.1", student.most_important("block_list.1", 5))
    student.save(tmp_path / "student.pth")
    text = tmp_path / "student.txt"
    read = ZenDetStudent.load(tmp_path / "student.pth", read_structure(text))
    assert read.structure == student.structure
    assert all(map(torch.equal, answers(read), answers(student)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.pth", "student.txt"]
    for name, reason in {
        "student.txt": "expected a name such as", "missing/student.pth": "there is no folder"
    }.items():  # fmt: skip
        with support.refuses(InputError, reason):
            student.save(tmp_path / name)
    with support.refuses(CheckpointError, "the checkpoint does not fit"):
        ZenDetStudent.load(tmp_path / "student.pth", make().structure)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "resnet.pth")
    with support.refuses(CheckpointError, "is not a ZenDet checkpoint"):
        ZenDetStudent.load(tmp_path / "resnet.pth", MIDDLE)


def test_a_detector_keeps_its_head() -> None:
    keep = {"neck.lateral_convs": [9, 0, 3], "neck.fpn_convs": [1, 2, 63]}
    student = detector().thin("neck", keep)
    model = student.model()
    assert isinstance(model, Detector)
    assert (model.bbox_head.shape.channels, model.bbox_head.shape.head) == (3, 64)
    assert_close(answers(student), answers(masked(detector(), "neck", keep)))
