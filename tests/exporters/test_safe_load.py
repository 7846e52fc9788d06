"""Checkpoints that cannot be read, or that would run code: refused, named, nothing executed."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import io
import os
import pickle
import random
import shlex
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path, PureWindowsPath

import numpy as np
import onnx
import pytest
import torch

from dyninfer import CheckpointError
from dyninfer.exporters.dynamicdet.weights import read_weights
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
        read_weights(path)
    assert not proof.exists()


def test_a_payload_in_place_of_a_weight_does_not_run(tmp_path, proof) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": {"model_b.0.conv.weight": RunsOnLoad(proof)}, "ema": None}, path)
    with support.refuses(CheckpointError, "system"):
        read_weights(path)
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
        read_weights(path)


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
        (b"\x89PNG\r\n\x1a\n" * 40, "not a PyTorch checkpoint but a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><title>Google Drive", "an HTML page"),
        (b"\n<HTML lang=en>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML document"),
        (b'{"message": "Not Found"}', "JSON text"),
        (gzip.compress(b"weights", mtime=0), "packed by gzip; unpack it"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (onnx.helper.make_model(onnx.GraphProto()).SerializeToString(), "an ONNX model"),
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


BESIDE = {
    "array": np.arange(6.0).reshape(2, 3)[:, ::-1],
    "large array": np.zeros(1 << 20),  # more than 8 MB in the pickle
    "texts": np.array(["a", "b"]),
    "objects": np.array([{"a": 1}, None], dtype=object),
    "masked": np.ma.masked_array([1.0, 2.0], [True, False]),
    "date of NumPy": np.datetime64("2024-05-01"),
    "type of NumPy": np.float32,
    "state of NumPy": np.random.get_state(),
    "old generator": np.random.RandomState(3),
    "generator": np.random.default_rng(3),
    "state of a generator": np.random.default_rng(3).bit_generator.state,
    "state of Python": random.getstate(),
    "random": random.Random(3),
    "state of PyTorch": torch.get_rng_state(),
    "path": Path("runs/train"),
    "Windows": PureWindowsPath("C:/runs"),
    "date": datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone.utc),
    "arguments": argparse.Namespace(batch=16, data=Path("coco.yaml")),
    "by thresholds": {0.5: 0.4, 0.75: np.float64(0.2), (1, 2): 3, None: 4, np.int64(1): 5},
    "sets": [{1, 2}, frozenset({3}), set()],
    "counted": collections.defaultdict(list, {"a": collections.deque([1])}),
    "complex": 1j,
    "parameter with attributes": torch.nn.Parameter(torch.ones(2)),
}
BESIDE["parameter with attributes"].lr_scale = 0.1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BESIDE)
def test_what_trainings_keep_beside_the_weights_does_no_harm(tmp_path, name, protocol) -> None:
    path = tmp_path / "weights.pt"
    weights = {"x": torch.arange(3.0)}
    torch.save({"beside": [BESIDE[name]], "model": weights}, path, pickle_protocol=protocol)
    assert torch.equal(load_checkpoint(path)["model"]["x"], weights["x"])


def test_a_function_of_the_system_beside_a_class_of_the_training_is_what_is_named(
    tmp_path, proof
) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": torch.nn.Linear(2, 2), "note": RunsOnLoad(proof)}, path)
    with support.refuses(CheckpointError, "system", "refused") as caught:
        load_checkpoint(path)
    assert "torch.load" not in str(caught.value)  # nobody is told to load that in the ordinary way
    assert not proof.exists()


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: {"ema": None, "model": model}])
def test_the_line_that_a_pickled_model_is_answered_with_saves_its_weights(tmp_path, wrap) -> None:
    path = tmp_path / "it's a module.pt"
    model = torch.nn.Linear(2, 2)
    torch.save(wrap(model), path)
    with support.refuses(CheckpointError, "Linear", "if you trust the file") as caught:
        load_checkpoint(path)
    line = str(caught.value).partition("trained it: ")[2].partition(", and export")[0]
    python, option, program = shlex.split(line)
    assert [python, option] == ["python", "-c"]
    exec(program, {})  # noqa: S102 - in a process of its own it would take seconds to import PyTorch
    saved = load_checkpoint(tmp_path / "it's a module.weights.pt")
    assert torch.equal(saved["weight"], model.weight)


@pytest.mark.parametrize(
    ("name", "part"),
    [("best.pt", "best.pt"), ("a.npy", "NumPy"), ("net/archive_format", "torch.export")],
)
def test_archives_that_are_no_checkpoints_are_called_what_they_are(tmp_path, name, part) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
    with support.refuses(CheckpointError, "not a PyTorch checkpoint", part):
        load_checkpoint(path)
