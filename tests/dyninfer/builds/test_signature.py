from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import dyninfer
from dyninfer.builds.search import open_build, read_build
from dyninfer.builds.signature import sign_build
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.signature import SIGNATURE_FILE, sign_bundle
from tests import support
from tests.dyninfer.builds.test_builder import convert_head
from tests.dyninfer.keys import write_keys


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path)


@pytest.fixture
def build(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    """A build in a signed bundle; the build is not."""
    bundle = Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))
    sign_bundle(bundle, keys[0])
    spec = convert_head(bundle, bundle.stage_path("head"))
    return bundle.path / "engines" / spec.folder_name


def load(build: Path, key: Path | None) -> dyninfer.Detector:
    return dyninfer.load(build.parents[1], precision="head=fp16", trusted_key=key)


def sign(build: Path, key: Path) -> None:
    sign_build(open_build(build, read_build(build)), key)


def test_a_build_that_came_later_is_refused_until_it_is_signed(build, keys) -> None:
    """Whoever may write into engines/ could otherwise put any file there."""
    load(build, None).close()
    with pytest.raises(dyninfer.BundleError, match=f"{build.name} is not signed"):
        load(build, keys[1])
    sign(build, keys[0])
    load(build, keys[1]).close()
    dyninfer.load(build.parents[1], trusted_key=keys[1]).close()  # needs no build


def test_the_bundles_own_signature_is_none_of_a_build(build, keys) -> None:
    shutil.copyfile(build.parents[1] / SIGNATURE_FILE, build / SIGNATURE_FILE)
    with pytest.raises(dyninfer.BundleError, match="not those that were signed"):
        load(build, keys[1])


def test_a_build_made_anew_after_it_was_signed_is_refused(build, keys) -> None:
    sign(build, keys[0])
    kept = build.parent / "model.sig"
    shutil.move(build / SIGNATURE_FILE, kept)
    shutil.rmtree(build)
    bundle = Bundle.open(build.parents[1])
    other = build.parents[2] / "head.onnx"
    other.write_bytes(bundle.stage_path("head").read_bytes() + b"\x72\x00")
    convert_head(bundle, other)
    shutil.move(kept, build / SIGNATURE_FILE)
    with pytest.raises(dyninfer.BundleError, match="not those that were signed"):
        load(build, keys[1])
