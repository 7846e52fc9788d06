"""Models that ship with the package, opened by their names."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest

import dyninfer
from dyninfer.bundle import unpacking
from dyninfer.bundle.folder import MANIFEST_FILE, Bundle
from dyninfer.bundle.manifest import CascadeRoute, SelectRoute
from dyninfer.bundle.shipped import PACKED, SHIPPED, bytes_of
from dyninfer.cli.common import built_in_photos
from dyninfer.demo import EMBEDDED_CHECKPOINT
from dyninfer.errors import BundleError, PolicyError
from tests import support

NAMES = sorted(SHIPPED)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test alone, and a working folder beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unpacking._temporary_folder.cache_clear()
    unpacking._tell_temporary.cache_clear()
    return tmp_path / "cache" / "dyninfer" / "models"


def package_hashes() -> dict[str, str]:
    files = (path for path in PACKED.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_model_is_a_whole_bundle(name: str, cache: Path) -> None:
    bundle = Bundle.open(name)
    assert bundle.path.parent == cache
    assert bundle.manifest.name == name
    assert bundle.manifest.routed
    assert bundle.manifest.source.licence == "Apache-2.0"
    parity = bundle.parity()
    assert parity is not None
    assert parity["passed"]


def test_everyday_things_are_found_on_the_built_in_photos_by_both_routes() -> None:
    expected = {"astronaut": "person", "chelsea": "cat", "coffee": "cup"}
    photos = {path.stem: path for path in built_in_photos()}
    for name, route in (("everyday", CascadeRoute), ("everyday-sizes", SelectRoute)):
        with dyninfer.load(name) as detector:
            assert isinstance(detector.manifest.route, route)
            assert len(detector.class_names) == 80
            for photo, thing in expected.items():
                assert thing in detector(photos[photo]).class_names


def test_both_routes_keep_the_same_half_precision_weights_which_the_package_holds_once() -> None:
    kept = {
        stage.weights.sha256
        for name in ("everyday", "everyday-sizes")
        for stage in Bundle.read(name).manifest.stages.values()
        if stage.weights is not None
    }
    assert len(kept) == 1
    weights = Bundle.read("everyday").path / "onnx" / "weights.bin"
    parameters = Bundle.read("everyday").manifest.stages["first"].parameters
    assert 2 * parameters < weights.stat().st_size < 2.2 * parameters
    assert bytes_of([SHIPPED["everyday"], SHIPPED["everyday-sizes"]]) < 8e6


def test_the_package_holds_nothing_that_no_model_uses() -> None:
    used = {path for model in SHIPPED.values() for path in model.files().values()}
    found = {path for path in PACKED.rglob("*") if path.suffix in (".gz", ".json")}
    assert found == used


def test_digits_are_made_of_the_embedded_checkpoint() -> None:
    checkpoint = hashlib.sha256(EMBEDDED_CHECKPOINT.read_bytes()).hexdigest()
    assert Bundle.read("digits").manifest.source.sha256 == checkpoint


def test_what_is_written_for_a_model_goes_to_the_cache_and_not_to_the_package() -> None:
    before = package_hashes()
    Bundle.read("digits").write_parity({"passed": True})
    assert Bundle.read("digits").parity() == {"passed": True}
    assert package_hashes() == before


def test_commands_that_are_advised_name_the_model(tmp_path: Path) -> None:
    with dyninfer.load("digits") as detector, pytest.raises(PolicyError) as refused:
        detector.policy = dyninfer.HardFraction(0.3)
    assert "dyninfer calibrate digits --images FOLDER" in str(refused.value)
    own = support.write_two_exits(tmp_path / "my own.dyn")
    with dyninfer.load(own) as detector, pytest.raises(PolicyError) as refused:
        detector.policy = dyninfer.HardFraction(0.3)
    assert f"dyninfer calibrate '{own}' --images FOLDER" in str(refused.value)


def test_a_missing_file_is_put_back_and_a_changed_one_is_refused_with_the_remedy() -> None:
    path = Bundle.open("digits").path
    (path / "onnx" / "head.onnx").unlink()
    Bundle.open("digits")
    (path / "onnx" / "head.onnx").write_bytes(b"changed")
    with support.refuses(BundleError, "was changed", f"remove {path}, and it is unpacked again"):
        Bundle.open("digits")
    (path / MANIFEST_FILE).write_text("{}")
    with support.refuses(BundleError, f"remove {path}, and it is unpacked again"):
        Bundle.read("digits")


def test_many_may_unpack_one_model_at_once(cache: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(Bundle.open, ["digits"] * 8))
    assert {bundle.path for bundle in opened} == {opened[0].path}
    assert [path.name for path in cache.iterdir()] == [opened[0].path.name]


@pytest.mark.parametrize("wrong", ["/proc/no-folder-here", "file"])
def test_a_cache_that_cannot_be_written_is_told_of_once_and_replaced_for_now(
    wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(wrong).absolute()))
    path = Bundle.open("digits").path
    assert Bundle.open("digits").path == path
    assert path.parent == unpacking._temporary_folder()
    (message,) = caplog.messages
    assert "digits lies in a temporary folder" in message
    assert "set XDG_CACHE_HOME to a folder that can be written" in message


def test_a_user_without_a_home_gets_no_folder_called_tilde(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/dyninfer"))
    assert Bundle.open("digits").path.parent == unpacking._temporary_folder()
    assert "this user has no home" in caplog.text
    assert not any(Path.cwd().iterdir())


def test_a_temporary_folder_goes_with_the_process_that_made_it_alone(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from dyninfer.bundle.folder import Bundle\n"
        "path = Bundle.open('digits').path\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit()\n"  # runs what is registered for the end
        "os.waitpid(child, 0)\n"
        "Bundle.open('digits')\n"
        "print(path.exists(), path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(support.ROOT), "XDG_CACHE_HOME": "/proc/no", "PATH": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    there, path = done.stdout.split()
    assert there == "True", done.stderr
    assert not Path(path).exists()
    assert done.stderr.count("temporary folder") == 1


def test_no_place_to_unpack_at_all_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no-folder-here")
    monkeypatch.setattr(unpacking, "_temporary_folder", lambda: Path("/proc/nor-here"))
    with support.refuses(BundleError, "digits cannot be unpacked", "set XDG_CACHE_HOME"):
        Bundle.open("digits")


def test_a_bundle_of_that_name_in_the_working_folder_comes_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = support.write_two_exits(Path("digits"))
    assert Bundle.open("digits").path == own
    assert "digits is the bundle of that name in this folder" in caplog.text


def test_what_else_has_that_name_does_not_hide_the_model(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("digits").mkdir()
    assert Bundle.open("digits").path.parent == cache
    assert "what has that name in this folder is no bundle" in caplog.text
    caplog.clear()
    Bundle.open("everyday")
    assert not caplog.messages


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("evryday", "everyday"),
        ("Everyday", "everyday"),
        ("everyday.dyn", "everyday"),
        ("everyday-size", "everyday-sizes"),
        ("digit", "digits"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_name(typed: str, meant: str) -> None:
    with support.refuses(BundleError, f"did you mean the model {meant}, which ships"):
        Bundle.read(typed)


def test_any_other_name_is_answered_with_all_names() -> None:
    with support.refuses(BundleError, "make one with dyninfer export", ", ".join(SHIPPED)):
        Bundle.read("yolo.dyn")
    with support.refuses(BundleError, "make one with dyninfer export"):
        Bundle.read("photos/everyday")
