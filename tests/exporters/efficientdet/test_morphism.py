from __future__ import annotations

from pathlib import Path

import torch

from dyninfer.errors import CheckpointError
from dyninfer.exporters.efficientdet.morphism import EfficientDetStudent
from tests import support
from tests.exporters.morphism.students import answers, efficientdet


def test_a_student_is_saved(tmp_path: Path) -> None:
    width = "blocks.2.0.hidden"
    student = efficientdet().add("blocks.3", 0).drop("blocks.0", 1)
    student = student.thin(width, student.most_important(width, 5))
    student.save(tmp_path / "student.pth")
    read = EfficientDetStudent.load(tmp_path / "student.pth")
    assert [len(stage) for stage in read.structure.stages] == [1, 1, 1, 2, 1, 1, 1]
    assert read.structure.stages[2][0].hidden == 5
    assert all(map(torch.equal, answers(read), answers(student)))


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with support.refuses(CheckpointError, "is not an EfficientDet checkpoint"):
        EfficientDetStudent.load(tmp_path / "resnet.pth")
