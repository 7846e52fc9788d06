"""No link is followed inside a bundle, for reading or writing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import dyninfer
from dyninfer import Bundle, BundleError
from dyninfer.builds.files import Making, build_lock, check_writable, make_build
from dyninfer.builds.search import find_exact, list_builds
from dyninfer.builds.spec import BuildSpec, own_precision, source_hashes
from dyninfer.bundle.inside import check_file, inside
from tests import support


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    made.write_parity({"max_abs": 1e-5})
    return made


def spec_of(bundle: Bundle) -> BuildSpec:
    return BuildSpec(
        backend="tensorrt-rtx",
        precision=own_precision(bundle.manifest),
        stages_sha256=source_hashes(bundle.manifest),
    )


def replace_by_link(path: Path, outside: Path, *, inside_bundle: bool = False) -> Path:
    """Move a file or folder away and put a link to it in its place; where it is now."""
    away = path.with_name("away") if inside_bundle else outside / path.name
    outside.mkdir(exist_ok=True)
    shutil.move(path, away)
    path.symlink_to(away)
    return away


@pytest.mark.parametrize("inside_bundle", [False, True])
@pytest.mark.parametrize("name", ["bundle.json", "parity.json", "onnx", "onnx/head.onnx"])
def test_nothing_is_read_through_a_link(bundle, tmp_path, name, inside_bundle) -> None:
    replace_by_link(bundle.path / name, tmp_path / "out", inside_bundle=inside_bundle)
    for opens in (Bundle.open, dyninfer.load):
        with support.refuses(BundleError, name, "is a link"):
            opens(bundle.path)


def test_records_are_written_beside_a_link_never_through_it(bundle, tmp_path) -> None:
    away = replace_by_link(bundle.path / "parity.json", tmp_path / "out")
    before = away.read_bytes()
    bundle.write_parity({"max_abs": 2e-5})
    assert bundle.parity() == {"max_abs": 2e-5}
    assert away.read_bytes() == before


def engine_of(name: str, _file: Path) -> bytes:
    return name.encode()


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_built_or_removed_through_a_link(bundle, tmp_path, there) -> None:
    """Neither through the folder of builds nor through one of them."""
    outside = tmp_path / "out"
    outside.mkdir()
    (outside / ".x.dyninfer-new-00000000").mkdir()  # as a dead writer's
    before = support.files_below(outside)
    (bundle.path / "engines").symlink_to(outside if there else tmp_path / "nowhere")
    works: list[Callable[[], object]] = [
        lambda: make_build(bundle, spec_of(bundle), make_engine=engine_of),
        lambda: check_writable(bundle),
        lambda: find_exact(bundle, spec_of(bundle)),
        lambda: list_builds(bundle),
    ]
    for work in works:
        with support.refuses(BundleError, "engines is a link"):
            work()
    assert support.files_below(outside) == before
    assert not (tmp_path / "nowhere").exists()


def test_the_lock_is_no_link_either(bundle, tmp_path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (bundle.path / "engines").mkdir()
    (bundle.path / "engines" / ".lock").symlink_to(victim)
    with support.refuses(BundleError, ".lock is a link"), build_lock(bundle):
        raise AssertionError("the block must not start")
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("what", ["", "/build.json", "/0-first.engine"])
def test_a_build_that_is_a_link_is_not_used(bundle, tmp_path, what) -> None:
    made = make_build(bundle, spec_of(bundle), make_engine=engine_of)
    before = support.files_below(made.path)
    away = replace_by_link(Path(f"{made.path}{what}"), tmp_path / "out")
    with support.refuses(BundleError, "is a link"):
        find_exact(bundle, spec_of(bundle))
    if not what:
        with support.refuses(BundleError, "is a link"):
            make_build(bundle, spec_of(bundle), make_engine=engine_of)
        make_build(bundle, spec_of(bundle), Making(replace=True), lambda *_: b"new")
        assert not made.path.is_symlink()  # the link went, and nothing that it led to
        assert support.files_below(away) == before


def test_a_build_that_was_changed_since_it_was_hashed_is_noticed(bundle) -> None:
    make_build(bundle, spec_of(bundle), make_engine=engine_of)
    found = find_exact(bundle, spec_of(bundle))
    assert found is not None
    found.confirm("head")
    path = found.stage_path("head")
    assert path is not None
    path.write_bytes(b"HEAD")
    found.confirm("first")
    with support.refuses(BundleError, path.name, "while it was opened"):
        found.confirm("head")


def test_another_build_in_its_place_is_noticed_and_a_record_beside_it_is_not(bundle) -> None:
    make_build(bundle, spec_of(bundle), make_engine=engine_of)
    found = find_exact(bundle, spec_of(bundle))
    assert found is not None
    bundle.write_parity({"max_abs": 3e-5})
    other = spec_of(bundle).model_copy(update={"options": {"a": "b"}})
    make_build(bundle, other, make_engine=engine_of)
    for name in bundle.manifest.stages:
        found.confirm(name)
    make_build(bundle, spec_of(bundle), Making(replace=True), engine_of)
    with support.refuses(BundleError, "while it was opened"):
        found.confirm("head")


def test_files_that_vanish_or_are_no_files_are_told(bundle) -> None:
    (bundle.path / "onnx" / "folder").mkdir()
    for file in ("onnx/none.onnx", "onnx/folder"):
        with support.refuses(BundleError, file, "is missing", "build it"):
            check_file(bundle.path, file, "0" * 64, "the export", "build it")
    head = bundle.manifest.stages["head"]
    checked = bundle.check_stage("head")
    (bundle.path / head.file).unlink()
    with support.refuses(BundleError, head.file, "while it was opened"):
        checked.confirm()
    assert inside(bundle.path, "not/there") == bundle.path / "not" / "there"


@pytest.mark.parametrize("file", ["a" * 300, "onnx/" + "b" * 5000, "onnx/head.onnx/c"])
def test_a_name_that_no_file_can_have_is_refused(bundle, file) -> None:
    with support.refuses(BundleError, file[:20]):
        check_file(bundle.path, file, "0" * 64, "the export", "export it again")
