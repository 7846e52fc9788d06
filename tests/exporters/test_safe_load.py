"""Checkpoints that cannot be read, or that would run code: refused, named, nothing executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from dyninfer import CheckpointError
from dyninfer.exporters.dynamicdet.model import read_state
from dyninfer.exporters.safe_load import load_checkpoint
from dyninfer.exporters.safe_pickle import Omitted
from tests import support


class RunsOnLoad:
    """Unpickled in the ordinary way, it creates a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"echo ran > {self.proof}",)


class Evaluates:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.proof)!r}, 'w').close()",)


@pytest.fixture
def proof(tmp_path: Path) -> Path:
    return tmp_path / "proof"


@pytest.mark.parametrize("kind", [RunsOnLoad, Evaluates])
def test_the_payload_of_these_tests_does_run_when_unpickled_carelessly(kind, proof) -> None:
    pickle.loads(pickle.dumps(kind(proof)))
    assert proof.exists()


def test_a_raw_pickle_is_refused_and_does_not_run(tmp_path, proof) -> None:
    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps(RunsOnLoad(proof)))
    with support.refuses(CheckpointError, "evil.pt", "not a PyTorch checkpoint"):
        load_checkpoint(path)
    assert not proof.exists()


@pytest.mark.parametrize(("kind", "name"), [(RunsOnLoad, "system"), (Evaluates, "eval")])
def test_a_payload_inside_a_torch_archive_is_named_and_does_not_run(
    tmp_path, proof, kind, name
) -> None:
    checkpoint = torch.load(support.checkpoint_of("dy-yolov7"), weights_only=False)
    path = tmp_path / "evil.pt"
    torch.save({**checkpoint, "optimizer": {"state": [kind(proof)]}}, path)
    with support.refuses(CheckpointError, "evil.pt", name, "refused"):
        read_state(path)
    assert not proof.exists()


def test_a_payload_in_place_of_a_weight_does_not_run(tmp_path, proof) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": {"model_b.0.conv.weight": RunsOnLoad(proof)}, "ema": None}, path)
    with support.refuses(CheckpointError, "system"):
        read_state(path)
    assert not proof.exists()


def test_a_pickle_with_an_archive_behind_it_does_not_run(tmp_path, proof) -> None:
    archive = io.BytesIO()
    torch.save({"model": {"x": torch.ones(1)}}, archive)
    path = tmp_path / "both.pt"
    path.write_bytes(pickle.dumps(RunsOnLoad(proof)) + archive.getvalue())
    with support.refuses(CheckpointError, "both.pt"):
        load_checkpoint(path)
    assert not proof.exists()


def test_a_replaced_pickle_inside_a_real_archive_does_not_run(tmp_path, proof) -> None:
    path = tmp_path / "patched.pt"
    with (
        zipfile.ZipFile(support.checkpoint_of("dy-yolov7")) as source,
        zipfile.ZipFile(path, "w") as target,
    ):
        for entry in source.infolist():
            evil = entry.filename.endswith("data.pkl")
            data = pickle.dumps(RunsOnLoad(proof), 2) if evil else source.read(entry)
            target.writestr(entry.filename, data)
    with support.refuses(CheckpointError, "patched.pt", "system"):
        load_checkpoint(path)
    assert not proof.exists()


def test_a_whole_pickled_module_is_refused_by_name(tmp_path) -> None:
    path = tmp_path / "module.pt"
    torch.save({"model": torch.nn.Linear(2, 2), "ema": None}, path)
    with support.refuses(CheckpointError, "torch.nn.modules.linear.Linear", "state_dict"):
        read_state(path)


@pytest.mark.slow
def test_the_command_line_refuses_a_payload_too(tmp_path, proof) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": {"x": RunsOnLoad(proof)}, "ema": None}, path)
    program = "import sys; from dyninfer.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "export", "dynamicdet", str(path)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "evil.dyn")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "system" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.pt"]


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "empty"),
        (b"hello", "not a PyTorch checkpoint"),
        (b"PK", "cut off"),
        (b"PK\x03\x04 and then nothing", "cut off"),
        (b"\x89PNG\r\n\x1a\n" * 40, "not a PyTorch checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints_are_refused(tmp_path, content, part) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with support.refuses(CheckpointError, "weights.pt", part):
        load_checkpoint(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path) -> None:
    with support.refuses(CheckpointError, "nothing.pt", "does not exist"):
        load_checkpoint(tmp_path / "nothing.pt")
    with support.refuses(CheckpointError, "folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, share) -> None:
    data = support.checkpoint_of("dy-yolov7").read_bytes()
    path = tmp_path / "short.pt"
    path.write_bytes(data[: int(len(data) * share)])
    with support.refuses(CheckpointError, "short.pt", "cut off"):
        load_checkpoint(path)


def test_an_ordinary_zip_file_is_refused(tmp_path) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with support.refuses(CheckpointError, "photos.zip"):
        load_checkpoint(path)


def test_a_checkpoint_with_bytes_changed_in_its_pickle_is_refused_in_one_line(tmp_path) -> None:
    source = support.checkpoint_of("dy-yolov7")
    path = tmp_path / "patched.pt"
    with zipfile.ZipFile(source) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    for position in (0, 1, 2, 20, 200, 2000):
        data = bytearray(entries[name])
        data[position] = 0x58 if data[position] != 0x58 else 0x59
        with zipfile.ZipFile(path, "w") as archive:
            for key, value in entries.items():
                archive.writestr(key, bytes(data) if key == name else value)
        try:
            content = load_checkpoint(path)
        except CheckpointError as error:
            content = {"message": str(error)}
        assert "\n" not in content.get("message", "")
        assert isinstance(content, dict)


@pytest.mark.parametrize(
    "fitness", [np.array([0.5]), np.float64(0.5), np.array(0.5), np.float32(0.5), {1, 2}, 0.5, None]
)
def test_numpy_values_of_the_published_format_are_left_out(tmp_path, fitness) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"best_fitness": fitness, "model": {"x": torch.ones(2)}}, path)
    content = load_checkpoint(path)
    plain = type(fitness) in (float, type(None))
    assert content["best_fitness"] == fitness if plain else True
    assert isinstance(content["best_fitness"], Omitted) != plain
    assert torch.equal(content["model"]["x"], torch.ones(2))


def test_tensors_and_containers_come_back_as_torch_itself_reads_them(tmp_path) -> None:
    whole = torch.arange(24.0)
    content = OrderedDict(
        view=whole[3:].reshape(7, 3)[1::2].t(),
        same=whole[:4],
        empty=torch.zeros(0, 5),
        single=torch.tensor(3.5, dtype=torch.bfloat16),
        kinds=[torch.tensor([1, 200], dtype=torch.uint8), torch.tensor([True, False])],
        texts=("caf\xe9", "", None, True, -1, 2**40, 0.5),
        state={0: {"step": torch.tensor(1)}, 1: [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]},
    )
    content["again"] = content["state"]
    path = tmp_path / "weights.pt"
    torch.save({**content, "parameter": torch.nn.Parameter(torch.ones(2))}, path)
    found, wanted = load_checkpoint(path), torch.load(path, weights_only=True)
    assert torch.equal(found.pop("parameter"), wanted.pop("parameter"))
    assert str(found) == str(wanted)
    assert found["again"] is found["state"]
    for name in content:
        if isinstance(found[name], torch.Tensor):
            assert found[name].stride() == wanted[name].stride()
            assert found[name].dtype == wanted[name].dtype
    storages = {found[name].untyped_storage().data_ptr() for name in ("view", "same")}
    assert len(storages) == 1
