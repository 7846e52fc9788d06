from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from dyninfer import Bundle, BundleError, ExportError, load
from dyninfer.bundle import writing
from dyninfer.bundle.folder import MANIFEST_FILE
from dyninfer.bundle.writing import new_bundle
from tests import support


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return support.write_two_exits(tmp_path / "two.dyn")


def refused(path: Path, *parts: str) -> None:
    """Neither checked nor opened, in one line, and not touched."""
    before = support.files_below(path) if path.is_dir() else None
    with support.refuses(BundleError, *parts):
        Bundle.open(path)
    with support.refuses(BundleError, *parts):
        load(path)
    assert before is None or support.files_below(path) == before


def test_a_bundle_opens_and_says_what_is_in_it(made) -> None:
    bundle = Bundle.open(made)
    assert bundle.manifest.name == "two"
    assert list(bundle.manifest.stages) == ["first", "router", "head", "second"]
    assert bundle.parity() is None
    assert Bundle.open(str(made)).manifest == bundle.manifest


def test_what_is_not_a_bundle_is_refused(tmp_path, made) -> None:
    refused(tmp_path / "nothing.dyn", "does not exist")
    refused(made / MANIFEST_FILE, "is a file")
    (tmp_path / "empty.dyn").mkdir()
    refused(tmp_path / "empty.dyn", "not a bundle")


def test_a_changed_byte_in_any_stage_is_noticed(made) -> None:
    for path in sorted((made / "onnx").iterdir()):
        data = path.read_bytes()
        for position in {0, 1, len(data) // 3, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[position] ^= 1
            path.write_bytes(changed)
            refused(made, path.name, "changed")
        path.write_bytes(data)
    Bundle.open(made)


def test_a_changed_byte_anywhere_in_the_manifest_is_noticed(made) -> None:
    path = made / MANIFEST_FILE
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        for change in (1, 4, 32, 128):
            changed = bytearray(data)
            changed[position] ^= change
            path.write_bytes(changed)
            with support.refuses(BundleError):
                Bundle.open(made)
    path.write_bytes(data)
    Bundle.open(made)


def test_a_changed_byte_in_an_exported_bundle_is_noticed(small_bundle, tmp_path) -> None:
    copy = tmp_path / "copy.dyn"
    shutil.copytree(small_bundle, copy)
    for path in (*(copy / "onnx").iterdir(), copy / MANIFEST_FILE):
        data = path.read_bytes()
        for share in (0, 0.21, 0.5, 0.83, 1):
            changed = bytearray(data)
            changed[int(share * (len(data) - 1))] ^= 16
            path.write_bytes(changed)
            refused(copy)
        path.write_bytes(data)
    Bundle.open(copy)


def test_added_or_missing_bytes_and_files_are_noticed(made) -> None:
    head = made / "onnx" / "head.onnx"
    data = head.read_bytes()
    for content in (b"", data[:-1], data + b"\0"):
        head.write_bytes(content)
        refused(made, "head.onnx", "changed")
    head.unlink()
    refused(made, "head.onnx", "missing")
    head.mkdir()
    refused(made, "head.onnx", "missing")


def test_swapped_stage_files_are_noticed(made) -> None:
    head, second = made / "onnx" / "head.onnx", made / "onnx" / "second.onnx"
    first = head.read_bytes()
    head.write_bytes(second.read_bytes())
    second.write_bytes(first)
    refused(made, "changed")


@pytest.mark.parametrize(
    "file", ["../head.onnx", "onnx/../../head.onnx", "/etc/passwd", "..", "", "a\\b", "c:x", "a\0b"]
)
def test_file_names_may_not_leave_the_folder(made, file) -> None:
    (made.parent / "head.onnx").write_bytes((made / "onnx" / "head.onnx").read_bytes())
    support.reseal(made, lambda m: m["stages"]["head"].update(file=file))
    refused(made, "leaves the bundle")


def test_links_in_a_bundle_are_refused(made) -> None:
    head = made / "onnx" / "head.onnx"
    outside = made.parent / "outside.onnx"
    shutil.move(head, outside)
    head.symlink_to(outside)
    refused(made, "head", "is a link")
    head.unlink()
    shutil.copy(outside, head)
    shutil.move(made / "onnx", made.parent / "onnx")
    (made / "onnx").symlink_to(made.parent / "onnx")
    refused(made, "onnx is a link")


def test_links_that_go_in_circles_are_refused(made) -> None:
    head = made / "onnx" / "head.onnx"
    head.unlink()
    head.symlink_to(head)
    refused(made, "head")


def test_a_bundle_may_be_reached_through_a_link(made, tmp_path) -> None:
    (tmp_path / "link.dyn").symlink_to(made)
    assert Bundle.open(tmp_path / "link.dyn").manifest.name == "two"


def test_a_future_schema_asks_for_an_upgrade(made) -> None:
    support.reseal(made, lambda m: m.update(schema_version=3, new_key={"from": "the future"}))
    refused(made, "written by a newer dyninfer", "schema 3", "up to 2", "upgrade dyninfer")


def call_a_stage_as_a_step(manifest) -> None:
    manifest["stages"]["prepare"] = manifest["stages"].pop("second")
    manifest["route"]["exits"][1]["body"] = "prepare"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda m: m.update(schema_version=0), ("schema_version",)),
        (lambda m: m.update(schema_version="1"), ("schema_version",)),
        (lambda m: m.pop("route"), ("route",)),
        (lambda m: m.update(surprise=1), ("surprise",)),
        (lambda m: m["route"].update(kind="magic"), ("route",)),
        (lambda m: m["route"].update(exits=[]), ("exits",)),
        (lambda m: m["stages"].pop("head"), ("head",)),
        (lambda m: m["stages"]["head"].update(sha256="abc"), ("sha256",)),
        (lambda m: m["stages"]["head"].update(macs=-1), ("macs",)),
        (lambda m: m["stages"]["head"]["inputs"][0].update(name="x"), ("head", "'x'")),
        (lambda m: m["stages"]["head"]["inputs"][0].update(shape=["batch", 4]), ("head", "value")),
        (lambda m: m["stages"]["head"]["outputs"].pop(), ("class_scores",)),
        (lambda m: m["stages"]["head"]["outputs"][0].update(dtype="complex64"), ("dtype",)),
        (lambda m: m.update(image_inputs={}), ("images",)),
        (lambda m: m["route"]["exits"][0].update(image_input="x"), ("'x'",)),
        (lambda m: m["route"]["exits"][1].update(body="first"), ("twice",)),
        (call_a_stage_as_a_step, ("'prepare'", "step of the runtime")),
        (lambda m: m["class_names"].pop(), ("class name ", "columns")),
        (lambda m: m["stages"]["router"]["outputs"][0].update(name="x"), ("easiness",)),
        (lambda m: m["image_inputs"]["images"].update(height=16), ("16x8",)),
        (lambda m: m["image_inputs"]["images"].update(height=10**6), ("16384",)),
        (lambda m: m["image_inputs"]["images"].update(std=[1, 0, 1]), ("std",)),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(made, change, parts) -> None:
    support.reseal(made, change)
    refused(made, *parts)


def test_parity_is_written_sealed_and_noticed_when_changed(made) -> None:
    bundle = Bundle.open(made)
    bundle.write_parity({"max_abs": 1e-5})
    bundle.write_parity({"max_abs": 2e-5})
    assert bundle.parity() == {"max_abs": 2e-5}
    assert not [p for p in made.iterdir() if p.name.startswith(".")]
    path = made / "parity.json"
    path.write_text(path.read_text().replace("2e-05", "1e-05"))
    with support.refuses(BundleError, "parity.json"):
        bundle.parity()


def test_a_new_bundle_appears_only_when_it_is_complete(tmp_path) -> None:
    path = tmp_path / "deep" / "er" / "new.dyn"
    with new_bundle(path) as folder:
        (folder / MANIFEST_FILE).write_text("x")
        assert not path.exists()
    assert support.files_below(path.parent).keys() == {"new.dyn", f"new.dyn/{MANIFEST_FILE}"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyError("x")])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(made, error) -> None:
    before = support.files_below(made.parent)

    def fail() -> None:
        with new_bundle(made, overwrite=True) as folder:
            (folder / MANIFEST_FILE).write_text("half")
            raise error

    with pytest.raises((ExportError, KeyError)) as caught:
        fail()
    assert isinstance(caught.value, KeyError) or "disk is full" in str(caught.value)
    assert support.files_below(made.parent) == before


def test_overwrite_replaces_the_whole_folder(made) -> None:
    with new_bundle(made, overwrite=True) as folder:
        (folder / MANIFEST_FILE).write_text("new")
    assert support.files_below(made.parent).keys() == {"two.dyn", f"two.dyn/{MANIFEST_FILE}"}


def test_a_failed_rename_brings_the_old_bundle_back(made, monkeypatch) -> None:
    before = support.files_below(made.parent)
    rename = Path.rename
    monkeypatch.setattr(writing, "exchange", lambda *_: False)

    def refuse_new(self: Path, target: Path) -> Path:
        if Path(target) == made and not made.exists() and "-new-" in self.name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with (
        support.refuses(ExportError, "two.dyn"),
        new_bundle(made, overwrite=True) as folder,
    ):
        (folder / MANIFEST_FILE).write_text("new")
    assert support.files_below(made.parent) == before


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_interrupted_overwrite_keeps_the_old_bundle(made, monkeypatch, step) -> None:
    before = support.files_below(made.parent)
    rename, calls = Path.rename, []
    monkeypatch.setattr(writing, "exchange", lambda *_: False)

    def interrupted(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_bundle(made, overwrite=True) as folder:
        (folder / MANIFEST_FILE).write_text("new")
    assert support.files_below(made.parent) == before


def test_folders_made_for_a_bundle_that_failed_go_with_it(tmp_path) -> None:
    with support.refuses(ExportError), new_bundle(tmp_path / "a" / "b" / "x.dyn"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_what_exists_is_not_overwritten_unasked(made, tmp_path) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "holiday.jpg").write_bytes(b"x")
    (tmp_path / "file.dyn").write_text("x")
    (tmp_path / "dangling.dyn").symlink_to(tmp_path / "nowhere")
    before = support.files_below(tmp_path)
    for path, overwrite in (
        (made, False),
        (other, False),
        (other, True),
        (tmp_path / "file.dyn", True),
        (tmp_path / "dangling.dyn", True),
        (tmp_path / "file.dyn" / "below.dyn", False),
    ):
        with support.refuses(ExportError, path.name), new_bundle(path, overwrite=overwrite):
            raise AssertionError("the block must not start")
    assert support.files_below(tmp_path) == before


def test_an_empty_folder_is_filled(tmp_path) -> None:
    (tmp_path / "new.dyn").mkdir()
    with new_bundle(tmp_path / "new.dyn") as folder:
        (folder / MANIFEST_FILE).write_text("new")
    assert json.dumps(sorted(support.files_below(tmp_path))) == json.dumps(
        ["new.dyn", f"new.dyn/{MANIFEST_FILE}"]
    )


def test_what_is_no_bundle_is_answered_with_the_line_that_makes_one(tmp_path: Path) -> None:
    model = tmp_path / "yolo v8.onnx"
    with support.refuses(BundleError, "v8.onnx does not exist", "make one with dyninfer export"):
        Bundle.read(model)
    model.write_bytes(b"")
    made = tmp_path / "yolo v8.dyn"
    with support.refuses(BundleError, f"make one: dyninfer export onnx '{model}' -o '{made}'"):
        Bundle.read(model)
    made.mkdir()
    with support.refuses(BundleError, "is a file", f"give {made}"):
        Bundle.read(model)
    with support.refuses(BundleError, "is a file", f"give {made}"):
        (made / MANIFEST_FILE).write_text("{}")
        Bundle.read(made / MANIFEST_FILE)
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"")
    with support.refuses(BundleError, "is a file", "make one with dyninfer export"):
        Bundle.read(weights)
