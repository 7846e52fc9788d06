from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import dyninfer
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.model import DynamicDetector, random_model
from dyninfer.exporters.dynamicdet.plan import Plan
from dyninfer.exporters.dynamicdet.topology import Op, Part
from tests import support

torch.set_num_threads(1)  # the models are small; more threads only wait for each other


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The bundle of a variant's narrow checkpoint at 128x128, exported once; do not change it."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[str, Path] = {}

    def get(variant: str) -> Path:
        if variant not in made:
            path = folder / f"{variant}.dyn"
            options = DynamicDetOptions(image_size=(support.SIZE, support.SIZE))
            export_dynamicdet(support.checkpoint_of(variant), path, options)
            made[variant] = path
        return made[variant]

    return get


@pytest.fixture
def two_exits(tmp_path: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=64) as opened:
        yield opened


@pytest.fixture
def three_exits(tmp_path: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(support.write_three_exits(tmp_path / "three.dyn"), max_batch=64) as opened:
        yield opened


@pytest.fixture(scope="session")
def small_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A topology that is none of the published ones."""
    path = tmp_path_factory.mktemp("small") / "small.yaml"
    path.write_text(support.SMALL_YAML, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_model(small_yaml: Path) -> DynamicDetector:
    """A model of the small topology whose float16 rounding is already done."""
    topology = read_topology(small_yaml)
    widths = {
        Part.FIRST: (8, 8, 0, 16, 16, 0, 16),
        Part.SECOND: (0, 8, 0, 0, 16, 0, 24),
        Part.HEAD: (8, 0, 0, 16, 16, 0),
        Part.HEAD2: (16, 16, 0),
    }
    plan = Plan(topology, classes=2, anchors_per_level=2)
    for row in topology.rows():
        if row.op in (Op.CONV, Op.SPPCSPC, Op.REP_CONV):
            assert row.ref.part is not None
            plan.out[row.ref] = widths[row.ref.part][row.ref.index]
            plan.hidden[row.ref] = plan.out[row.ref]
    plan.router_hidden = plan.router_channels // 4
    anchors = [[8, 9, 12, 20], [30, 25, 40, 60]]
    model = support.randomise(random_model(plan, anchors, seed=3), seed=4)
    model.load_state_dict({name: t.half().to(t.dtype) for name, t in model.state_dict().items()})
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_checkpoint(small_model: DynamicDetector, small_yaml: Path) -> Path:
    return support.save_checkpoint(small_model, small_yaml.with_name("small.pt"))


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path, small_yaml: Path) -> Path:
    """The small topology at 64x96; do not change it."""
    path = small_checkpoint.with_name("small.dyn")
    options = DynamicDetOptions(image_size=(64, 96), config=small_yaml)
    export_dynamicdet(small_checkpoint, path, options)
    return path


@pytest.fixture
def detector(small_bundle: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(small_bundle, max_batch=4) as opened:
        yield opened
