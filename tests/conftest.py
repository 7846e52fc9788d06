from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch import Tensor, nn

import dyninfer
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Stage
from dyninfer.bundle.writing import write_stage_file
from dyninfer.demo import EMBEDDED_CHECKPOINT
from dyninfer.engines.ort.backend import OrtBackend
from dyninfer.engines.ort.tensor import OrtWorkspace
from dyninfer.exporters.cascade import export as cascade
from dyninfer.exporters.dynamicdet import export as dynamicdet
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.model import DynamicDetector
from tests import support

torch.set_num_threads(1)  # the models are small; more threads only wait for each other
settings.register_profile("untimed", settings(), deadline=None)  # no test fails for lack of time
settings.load_profile("untimed")


WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers get files one by one, in this order: no long one may be left for the end."""
    if WORKER:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Gives a file or folder that the first test to ask for it made, in whatever process.

    Nobody may change it: a test that must, changes a copy.
    """
    folder = tmp_path_factory.getbasetemp()
    if WORKER:
        folder = folder.parent  # each worker has a folder of its own in that of the run
    folder = folder / "made-once"
    folder.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        path = folder / name
        with FileLock(folder / f"{name}.lock"):
            if not path.exists():
                make(path)
        return path

    return get


@pytest.fixture(scope="session")
def exported(made_once: MakeOnce) -> Callable[[str], Path]:
    """The bundle of a variant's narrow checkpoint at 128x128, exported once; do not change it.

    It gives on all anchors in their order, as the published outputs are.
    """

    def get(variant: str) -> Path:
        options = DynamicDetOptions(image_size=(support.SIZE, support.SIZE), candidates=None)
        checkpoint = support.checkpoint_of(variant)
        return made_once(
            f"{variant}.dyn", lambda path: export_dynamicdet(checkpoint, path, options)
        )

    return get


@pytest.fixture(scope="session")
def embedded_bundle(made_once: MakeOnce) -> Path:
    """The embedded model at the size it was trained for, exported once; do not change it."""
    options = DynamicDetOptions(image_size=(192, 192))
    return made_once(
        "dy-digits.dyn", lambda path: export_dynamicdet(EMBEDDED_CHECKPOINT, path, options)
    )


@pytest.fixture
def stages_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Exports of the checkpoint that a bundle was made of take its files, and trace nothing anew.

    Tracing takes most of an export's time. All else is done: the stages run in PyTorch for the
    shapes of the next one, and their files are written as others are.
    """

    def use(path: Path) -> None:
        bundle = Bundle.open(path)

        def write(
            module: nn.Module,
            inputs: Mapping[str, Tensor],
            output_names: Sequence[str],
            parameters: int,
            folder: Path,
            file: str,
        ) -> tuple[Stage, dict[str, Tensor]]:
            entry = bundle.manifest.stages[Path(file).stem]
            with torch.inference_mode():
                made = module(*inputs.values())
            outputs = (made,) if isinstance(made, Tensor) else made
            named = dict(zip(output_names, outputs, strict=True))
            shapes = {spec.name: spec.shape[1:] for spec in (*entry.inputs, *entry.outputs)}
            assert shapes == {n: tuple(t.shape[1:]) for n, t in {**inputs, **named}.items()}
            assert (entry.file, entry.parameters) == (file, parameters)
            data = (bundle.path / file).read_bytes()
            assert write_stage_file(folder, file, data) == entry.sha256
            return entry, named

        monkeypatch.setattr(dynamicdet, "write_stage", write)

    return use


@pytest.fixture
def without_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX files are read in this process, as where no child can be started: that takes a second.

    What a child's limits and errors are worth: test_limits_of_exports.py.
    """

    def run(_module, work, request, _memory, _what, progress):
        return work(request, progress)

    monkeypatch.setattr(cascade, "run_limited", run)


@pytest.fixture
def workspaces(monkeypatch: pytest.MonkeyPatch) -> list[OrtWorkspace]:
    """Those that are made from here on, of all callers."""
    made: list[OrtWorkspace] = []
    make = OrtBackend.workspace

    def watched(backend: OrtBackend) -> OrtWorkspace:
        made.append(make(backend))
        return made[-1]

    monkeypatch.setattr(OrtBackend, "workspace", watched)
    return made


@pytest.fixture
def two_exits(tmp_path: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(support.write_two_exits(tmp_path / "two.dyn"), max_batch=64) as opened:
        yield opened


@pytest.fixture
def three_exits(tmp_path: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(support.write_three_exits(tmp_path / "three.dyn"), max_batch=64) as opened:
        yield opened


@pytest.fixture(scope="session")
def small_yaml(made_once: MakeOnce) -> Path:
    """A topology that is none of the published ones."""
    return made_once("small.yaml", lambda path: path.write_text(support.SMALL_YAML, "utf-8"))


@pytest.fixture(scope="session")
def small_model(small_yaml: Path) -> DynamicDetector:
    """A model of the small topology whose float16 rounding is already done."""
    model = support.small_detector(read_topology(small_yaml))
    model.load_state_dict({name: t.half().to(t.dtype) for name, t in model.state_dict().items()})
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def small_checkpoint(small_model: DynamicDetector, made_once: MakeOnce) -> Path:
    return made_once("small.pt", lambda path: support.save_checkpoint(small_model, path))


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path, small_yaml: Path, made_once: MakeOnce) -> Path:
    """The small topology at 64x96; do not change it."""
    options = DynamicDetOptions(image_size=(64, 96), config=small_yaml)
    return made_once("small.dyn", lambda path: export_dynamicdet(small_checkpoint, path, options))


@pytest.fixture
def detector(small_bundle: Path) -> Iterator[dyninfer.Detector]:
    with dyninfer.load(small_bundle, max_batch=4) as opened:
        yield opened
