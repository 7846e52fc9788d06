from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import dyninfer
from dyninfer import BundleError, CheckpointError, ConfigError, ExportError, InputError
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.manifest import Precision
from dyninfer.exporters.cascade.export import CascadeOptions, export_cascade
from dyninfer.exporters.cascade.options import ClassList, Decode, DetectorSource
from dyninfer.exporters.cascade.original import sample_photos
from dyninfer.exporters.families import source_stages
from dyninfer.exporters.sources import find_sources
from dyninfer.exporters.verify import verify
from dyninfer.runtime.detector import Detector
from tests import support
from tests.exporters.cascade import detectors
from tests.exporters.cascade.detectors import CELLS, HALF, HEIGHT, UINT8, WIDTH

THREE = {"names": "[cat, dog, cow]"}

pytestmark = pytest.mark.usefixtures("without_a_child")


@pytest.fixture
def pair(tmp_path: Path) -> list[DetectorSource]:
    """A YOLOv8 and, on images of another size and with other classes, an end-to-end YOLOv7."""
    cheap = detectors.yolov8(3).save(tmp_path / "cheap.onnx", metadata=THREE)
    names = tmp_path / "names.txt"
    names.write_text("dog\ncow\nsofa\n")
    good = detectors.end2end_rows(3, seed=1).save(tmp_path / "good.onnx", image_type=UINT8)
    return [DetectorSource(cheap), DetectorSource(good, class_names=names)]


def checked(detector: Detector, *folders: Path):
    """Verify against the originals near by; returns the parity."""
    manifest, path = detector.manifest, detector.bundle.path
    stages = source_stages(detector.bundle, find_sources(manifest, path, folders))
    return verify(detector, stages, sample_photos(), 2)


def test_a_pair_becomes_two_exits_that_agree_with_their_sources(pair, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    made = export_cascade(pair, target, CascadeOptions(licence="MIT"))
    assert made.manifest == Bundle.open(target).manifest
    manifest = made.manifest
    assert manifest.family == "cascade"
    assert [exit_.body for exit_ in manifest.ways] == ["first", "second"]
    assert not any(exit_.router or exit_.head for exit_ in manifest.route.exits)
    assert [exit_.image_input for exit_ in manifest.ways] == ["images", "images_2"]
    assert manifest.class_names == ("dog", "cow", "sofa")
    assert manifest.source.file_name == "cheap.onnx"
    assert [source.file_name for source in manifest.further_sources] == ["good.onnx"]
    assert manifest.source.licence == "MIT"
    assert {p.name for p in (target / "pictures").iterdir()} == {"first.jpg", "second.jpg"}
    assert [stage.rows_per_run for stage in manifest.stages.values()] == [None, 1]
    assert any("lacks 1 of the 3 classes: sofa" in note for note in made.notes)
    assert any("one image at a time" in note for note in made.notes)
    with dyninfer.load(target) as detector:
        parity = checked(detector)
        assert parity.passed, parity.checks
        assert {check.where for check in parity.checks} == {
            *("first", "second", "exit 0", "exit 1")
        }
        assert parity.not_compared == ()


def test_two_exports_write_the_same_bytes(pair, tmp_path, monkeypatch) -> None:
    monkeypatch.undo()  # children, which hash differently
    stages = [export_cascade(pair, tmp_path / name).manifest.stages for name in ("a.dyn", "b.dyn")]
    assert stages[0] == stages[1]


def test_parameters_and_multiply_accumulates_are_counted(pair, tmp_path) -> None:
    stage = export_cascade(pair, tmp_path / "pair.dyn").manifest.stages["first"]
    sizes = [8, 16, 32]
    assert stage.parameters == sum(7 * 3 * s * s for s in sizes) + 4  # and the scale of boxes
    assert stage.macs == 3 * 7 * 3 * HEIGHT * WIDTH


def test_a_wrong_stage_is_found_by_verification(pair, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    export_cascade(pair, target)
    path = target / "onnx" / "first.onnx"
    model = onnx.load(str(path))
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (half,) = (n for n, a in values.items() if n.startswith("decode/") and a.dtype == np.float32)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == half)
    tensor.CopyFrom(numpy_helper.from_array(np.array(0.501, np.float32), half))
    path.write_bytes(model.SerializeToString())
    support.reseal(target, lambda m: m["stages"]["first"].update(sha256=file_sha256(path)))
    with dyninfer.load(target) as detector:
        failed = {(c.where, c.tensor) for c in checked(detector).checks if not c.passed}
    assert failed == {("first", "boxes_xyxy"), ("exit 0", "boxes_xyxy")}


def test_a_router_that_was_added_later_is_not_compared(pair, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    export_cascade(pair, target)
    model = support.tiny_model(
        {"class_scores": ["batch", CELLS, 3]},
        {"easiness": ["batch"]},
        [
            onnx.helper.make_node(
                "ReduceMax", ["class_scores"], ["easiness"], axes=[1, 2], keepdims=0
            )
        ],
    )
    data = model.SerializeToString()
    (target / "onnx" / "router.onnx").write_bytes(data)
    entry = support.stage_entry(model, "onnx/router.onnx", data).model_dump(mode="json")

    def change(manifest) -> None:
        manifest["stages"] = {"router": entry, **manifest["stages"]}
        manifest["route"]["exits"][0]["router"] = "router"

    support.reseal(target, change)
    with dyninfer.load(target) as detector:
        parity = checked(detector)
    assert parity.passed
    assert parity.not_compared == ("router",)
    assert parity.decisions == {}
    assert parity.flips.decisions == 0


@pytest.mark.parametrize("choice", ClassList)
def test_class_lists_are_reconciled_in_the_graph(pair, tmp_path, choice) -> None:
    target = tmp_path / "pair.dyn"
    made = export_cascade(pair, target, CascadeOptions(classes=choice))
    names = {
        ClassList.LAST: ("dog", "cow", "sofa"),
        ClassList.COMMON: ("dog", "cow"),
        ClassList.UNION: ("dog", "cow", "sofa", "cat"),
    }
    assert made.manifest.class_names == names[choice]
    with dyninfer.load(target) as detector:
        assert checked(detector).passed
        image = np.random.default_rng(0).random((1, 3, HEIGHT, WIDTH), np.float32)
        scores = detector.run_stage("first", {"images": image})["class_scores"]
    for column, name in enumerate(made.manifest.class_names):
        assert scores[..., column].any() == (name != "sofa")


def test_exits_that_want_the_same_image_share_it(tmp_path) -> None:
    sources = [
        DetectorSource(detectors.yolov8(80, seed).save(tmp_path / f"{seed}.onnx"))
        for seed in range(3)
    ]
    made = export_cascade(sources, tmp_path / "three.dyn")
    assert list(made.manifest.image_inputs) == ["images"]
    assert list(made.manifest.stages) == ["first", "second", "third"]
    with dyninfer.load(tmp_path / "three.dyn") as detector:
        assert checked(detector).passed
        detector.policy = dyninfer.AlwaysHard()
        assert {found.exit_index for found in detector(sample_photos())} == {2}


def test_half_precision_and_channels_last(tmp_path) -> None:
    half = detectors.yolov5(80, kind=HALF).save(tmp_path / "half.onnx", image_type=HALF)
    last = detectors.detections(80).save(tmp_path / "last.onnx", layout="nhwc", batch=1)
    made = export_cascade([DetectorSource(half), DetectorSource(last)], tmp_path / "pair.dyn")
    precisions = [stage.precision for stage in made.manifest.stages.values()]
    assert precisions == [Precision.FP32, Precision.FP32]  # float16 outside alone
    assert [stage.rows_per_run for stage in made.manifest.stages.values()] == [None, None]
    with dyninfer.load(tmp_path / "pair.dyn") as detector:
        assert checked(detector).passed


def test_an_open_size_is_fixed_in_the_stage(tmp_path) -> None:
    path = detectors.yolov8(80).save(tmp_path / "open.onnx", size=("h", "w"))
    sources = [DetectorSource(path, size=(HEIGHT, WIDTH))] * 2
    made = export_cascade(sources, tmp_path / "pair.dyn")
    assert made.manifest.stages["first"].inputs[0].shape == ("batch", 3, HEIGHT, WIDTH)
    (image,) = onnx.load(str(tmp_path / "pair.dyn" / "onnx" / "first.onnx")).graph.input
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert dims == ["batch", 3, HEIGHT, WIDTH]


def test_notes_of_the_exporting_machine_are_left_out(pair, tmp_path) -> None:
    path = pair[0].path
    model = onnx.load(str(path))
    model.doc_string = model.graph.doc_string = "/home/somebody"
    for item in (*model.graph.node, *model.graph.initializer, *model.graph.input):
        item.doc_string = "/home/somebody"
    model.graph.node[0].metadata_props.add(key="where", value="/home/somebody")
    path.write_bytes(model.SerializeToString())
    export_cascade(pair, tmp_path / "pair.dyn")
    assert b"somebody" not in (tmp_path / "pair.dyn" / "onnx" / "first.onnx").read_bytes()


def test_a_batch_that_cannot_be_opened_up_is_refused(tmp_path) -> None:
    sketch = detectors.Sketch()
    rows = sketch.reshape(sketch.levels(85), [1, 4 * CELLS, 85])
    sketch.output(sketch.add("Sigmoid", rows), "output0", [1, 4 * CELLS, 85])
    fixed = sketch.save(tmp_path / "four.onnx", batch=4)
    source = DetectorSource(fixed, decode=Decode.YOLOV5)
    with support.refuses(ExportError, "four.onnx", "batch size 1"):
        export_cascade([source, source], tmp_path / "pair.dyn")
    assert not (tmp_path / "pair.dyn").exists()


@pytest.mark.parametrize("count", [0, 1, 9])
def test_the_number_of_detectors_is_checked(pair, tmp_path, count) -> None:
    with support.refuses(InputError, f"{count} detectors", "2 to 8"):
        export_cascade(pair[:1] * count, tmp_path / "pair.dyn")


def test_nothing_is_left_behind_where_the_second_detector_fails(pair, tmp_path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    before = support.files_below(tmp_path)
    with support.refuses(CheckpointError, "bad.onnx"):
        export_cascade([pair[0], DetectorSource(tmp_path / "bad.onnx")], tmp_path / "pair.dyn")
    other = DetectorSource(pair[0].path, class_names=tmp_path / "none.txt")
    with support.refuses(ConfigError, "none.txt"):
        export_cascade([pair[0], other], tmp_path / "pair.dyn")
    assert support.files_below(tmp_path) == before


def test_sources_are_found_by_name_and_hash(pair, tmp_path, monkeypatch) -> None:
    target = tmp_path / "pair.dyn"
    manifest = export_cascade(pair, target).manifest
    monkeypatch.chdir(target)
    cheap, good = (source.path for source in pair)
    assert find_sources(manifest, target) == [cheap, good]
    assert find_sources(manifest, target, [good, cheap]) == [cheap, good]
    assert find_sources(manifest, target, [good]) == [cheap, good]
    folder = tmp_path / "elsewhere" / "models"
    folder.mkdir(parents=True)
    moved = good.rename(folder / good.name)
    with support.refuses(BundleError, "good.onnx", "neither in", " nor in ", "--source"):
        find_sources(manifest, target)
    assert find_sources(manifest, target, [folder]) == [cheap, moved]
    moved = moved.rename(folder / "another-name.onnx")
    assert find_sources(manifest, target, [moved]) == [cheap, moved]
    (tmp_path / "good.onnx").write_bytes(b"another")
    with support.refuses(CheckpointError, "is not what the bundle was exported from"):
        find_sources(manifest, target, [tmp_path / "good.onnx"])
    with support.refuses(CheckpointError, "none.onnx", "check the path"):
        find_sources(manifest, target, [tmp_path / "none.onnx"])


def test_a_stage_that_does_not_describe_its_detector_cannot_be_verified(pair, tmp_path) -> None:
    target = tmp_path / "pair.dyn"
    export_cascade(pair, target)
    path = target / "onnx" / "first.onnx"
    model = onnx.load(str(path))

    def described(manifest) -> None:
        manifest["stages"]["first"]["sha256"] = file_sha256(path)

    for text, part in (('{"decode": "magic"}', "wrongly"), (None, "does not say")):
        onnx.helper.set_model_props(model, {} if text is None else {"dyninfer_detector": text})
        path.write_bytes(model.SerializeToString())
        support.reseal(target, described)
        bundle = Bundle.read(target)
        with support.refuses(BundleError, "first", part):
            source_stages(bundle, [source.path for source in pair])


def test_options_of_detectors_are_called_fields(pair, tmp_path) -> None:
    """Who calls from Python gave no ``--second-size``."""
    sources = [pair[0], replace(pair[1], size=(1, 2))]
    with support.refuses(dyninfer.InputError, "--second-size is 1x2", "fields of DetectorSource"):
        export_cascade(sources, tmp_path / "c.dyn")
