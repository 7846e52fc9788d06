"""Stages that keep the weights that they have in common in one file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

import dyninfer
from dyninfer import BundleError, EngineBuildError
from dyninfer.bundle.folder import Bundle
from dyninfer.engines.shared_weights import read_shared
from dyninfer.exporters.shared_weights import share_weights
from tests import support
from tests.dyninfer.cli.run import run

SIZE = 8
RANDOM = np.random.default_rng(4)
KERNEL = support.SHARED_KERNEL
IMAGES = {"images": RANDOM.random((5, 3, SIZE, SIZE), np.float32)}


@pytest.fixture
def bundle(tmp_path) -> Path:
    return support.write_shared_weights(tmp_path / "shared.dyn")


def answers(bundle: Path, **options) -> list[np.ndarray]:
    with dyninfer.load(bundle, **options) as detector:
        detector.policy = dyninfer.Forced([0, 1, 1, 0, 1])
        return [found.outputs["logits"] for found in detector.infer(IMAGES)]


def test_answers_stay_the_same_and_weights_are_stored_once(tmp_path, bundle) -> None:
    plain = support.write_convolving_classifiers(tmp_path / "plain.dyn")
    for one, other in zip(answers(plain), answers(bundle), strict=True):
        np.testing.assert_array_equal(one, other)
    shared = KERNEL.nbytes + support.SHARED_COLUMNS.nbytes
    assert (bundle / "onnx" / "weights.bin").stat().st_size == shared
    stages = Bundle.open(bundle).manifest.stages
    assert stages["chooser"].weights is None
    assert stages["body_0"].weights == stages["body_1"].weights
    # what any other reader of ONNX sees is the whole model
    for name in ("body_0", "body_1"):
        whole = onnx.load(bundle / "onnx" / f"{name}.onnx")
        onnx.checker.check_model(whole)
        assert not whole.graph.value_info  # types that follow from the rest only take room
        kernel = next(t for t in whole.graph.initializer if t.name == "kernel")
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(kernel), KERNEL)


def test_nothing_in_common_is_left_where_it_is(tmp_path) -> None:
    bundle = support.write_shared_weights(tmp_path / "a.dyn", (KERNEL, KERNEL + 1))
    assert (bundle / "onnx" / "weights.bin").stat().st_size == support.SHARED_COLUMNS.nbytes
    single = Bundle.open(support.write_convolving_classifiers(tmp_path / "b.dyn"))
    stages = {"body_0": single.manifest.stages["body_0"]}
    assert share_weights(single.path, stages) == stages


def test_one_copy_is_in_memory_for_all_stages(bundle) -> None:
    opened = Bundle.open(bundle)
    entry = opened.manifest.stages["body_0"]
    first, second = (
        read_shared(opened.stage_path(name), name, entry.weights) for name in ("body_0", "body_1")
    )
    assert first["kernel"].ctypes.data == second["kernel"].ctypes.data
    assert not first["kernel"].flags.writeable


def test_a_file_that_is_shortened_later_harms_no_open_detector(bundle) -> None:
    with dyninfer.load(bundle) as detector:
        detector.policy = dyninfer.LeaveAt(1)
        before = detector.infer(IMAGES)[0].outputs["logits"].copy()
        os.truncate(bundle / "onnx" / "weights.bin", 10)
        np.testing.assert_array_equal(detector.infer(IMAGES)[0].outputs["logits"], before)
    with support.refuses(BundleError, "weights.bin", "changed after the export"):
        dyninfer.load(bundle)


@pytest.mark.parametrize("what", ["missing", "link", "changed"])
def test_other_weights_are_refused(bundle, tmp_path, what) -> None:
    weights = bundle / "onnx" / "weights.bin"
    content = weights.read_bytes()
    weights.unlink()
    if what == "link":
        (tmp_path / "away").write_bytes(content)
        weights.symlink_to(tmp_path / "away")
    elif what == "changed":
        weights.write_bytes(content[:-1] + b"\0")
    with support.refuses(BundleError, "weights.bin"):
        Bundle.open(bundle)
    with support.refuses(BundleError, "weights.bin"):
        dyninfer.load(bundle)


def test_stages_are_copied_and_listed_with_their_weights(bundle, tmp_path, capsys) -> None:
    opened = Bundle.open(bundle)
    opened.copy_stage("body_1", tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy" / "onnx").iterdir()}
    assert names == {"body_1.onnx", "weights.bin"}
    _, told, _ = run(capsys, "info", str(bundle))
    assert "onnx/weights.bin, 0.0 MB, shared by body_0, body_1" in told
    listed = json.loads(run(capsys, "info", str(bundle), "--bom")[1])
    parts = listed["metadata"]["component"]["components"]
    assert [part["name"] for part in parts].count("onnx/weights.bin") == 1


@pytest.mark.parametrize("folder", ["", "other/", "onnx/deeper/"])
def test_weights_lie_beside_their_stage(bundle, folder) -> None:
    def move(manifest) -> None:
        manifest["stages"]["body_0"]["weights"]["file"] = f"{folder}weights.bin"

    support.reseal(bundle, move)
    with support.refuses(BundleError, "beside"):
        Bundle.open(bundle)


def change_tensor(bundle: Path, change) -> None:
    """Edit where ``body_0`` says that its kernel is, and seal that."""
    path = bundle / "onnx" / "body_0.onnx"
    model = onnx.load(path, load_external_data=False)
    change(next(t for t in model.graph.initializer if t.name == "kernel"), model)
    path.write_bytes(model.SerializeToString())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    support.reseal(bundle, lambda m: m["stages"]["body_0"].update(sha256=sha256))


def entry(key: str, value: str):
    def change(tensor, _model) -> None:
        next(e for e in tensor.external_data if e.key == key).value = value

    return change


def add_entry(tensor, _model) -> None:
    tensor.external_data.add(key="location", value="weights.bin")


def forget_length(tensor, _model) -> None:
    del tensor.external_data[2]


def other_shape(tensor, _model) -> None:
    tensor.dims[0] = 17


def with_values_too(tensor, _model) -> None:
    tensor.raw_data = bytes(4 * 432)


def twice(tensor, model) -> None:
    model.graph.initializer.add().CopyFrom(tensor)


@pytest.mark.parametrize(
    "change",
    [
        entry("location", "../onnx/weights.bin"),
        entry("location", "*/_ORT_MEM_ADDR_/*"),
        entry("location", "body_1.onnx"),
        entry("offset", "-4"),
        entry("offset", "2"),
        entry("offset", "1e3"),
        entry("length", "4"),
        entry("length", "99999999999999999999"),
        add_entry,
        forget_length,
        other_shape,
        with_values_too,
        twice,
    ],
)
def test_what_leads_elsewhere_is_refused(bundle, change) -> None:
    change_tensor(bundle, change)
    with support.refuses(EngineBuildError, "'body_0'", "outside of the file"):
        dyninfer.load(bundle)


def test_what_ends_beyond_the_weights_is_refused(bundle) -> None:
    change_tensor(bundle, entry("offset", "1028"))
    with support.refuses(EngineBuildError, "'body_0'", "'kernel'", "beyond the end"):
        dyninfer.load(bundle)


def test_what_reads_the_same_again_and_again_is_refused(bundle) -> None:
    def many(tensor, model) -> None:
        for number in range(20):
            model.graph.initializer.add().CopyFrom(tensor)
            model.graph.initializer[-1].name = f"again_{number}"

    change_tensor(bundle, many)
    with support.refuses(EngineBuildError, "'body_0'", "weights.bin", "more than 8 times"):
        dyninfer.load(bundle)


def test_int8_and_the_single_graph_read_shared_weights(bundle, tmp_path) -> None:
    from dyninfer.benchmarks.baselines.single_graph import build_single_graph
    from dyninfer.bundle.manifest import Precision
    from dyninfer.exporters.precision.convert import convert_bundle_stages

    opened = Bundle.open(bundle)
    graph = build_single_graph(opened)
    assert not any(t.external_data for t in graph.graph.initializer)
    plan = {"body_0": Precision.FP16}
    made = convert_bundle_stages(opened, plan, (), tmp_path)["body_0"]
    assert not read_shared(made.path, "a stage", opened.manifest.stages["body_0"].weights)
    assert onnx.load(made.path).graph.initializer
