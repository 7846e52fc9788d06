from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

import dyninfer
from tests import support
from tests.dyninfer.keys import write_keys  # before what needs model-signing: it may skip

from cryptography.hazmat.primitives.asymmetric import ec, rsa  # isort: skip
from model_signing import signing, verifying  # isort: skip

from dyninfer.bundle.folder import MANIFEST_FILE, Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.bundle.signature import SIGNATURE_FILE, sign_bundle
from dyninfer.engines.ort.backend import OrtBackend


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path)


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    path = support.write_two_exits(tmp_path / "two.dyn")
    sign_bundle(Bundle.open(path), keys[0])
    return path


@pytest.fixture
def opened_engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of stages that are opened from here on."""
    names: list[str] = []
    opens = OrtBackend.open

    def watched(backend: OrtBackend, name: str, *rest: object) -> object:
        names.append(name)
        return opens(backend, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(OrtBackend, "open", watched)
    return names


def test_a_signed_bundle_opens_and_answers_without_a_network(signed, keys, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    sign_bundle(Bundle.open(signed), keys[0])
    with dyninfer.load(signed, trusted_key=keys[1]) as detector:
        raw = detector.infer({"images": np.full((1, 3, 8, 8), 0.9, np.float32)})
    assert raw[0].exit_index == 0


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP521R1()])
def test_larger_curves_sign_too(tmp_path, curve) -> None:
    private, public = write_keys(tmp_path, key=ec.generate_private_key(curve))
    path = support.write_two_exits(tmp_path / "two.dyn")
    sign_bundle(Bundle.open(path), private)
    dyninfer.load(path, trusted_key=str(public)).close()


def test_what_is_measured_later_leaves_the_signature_as_it_is(signed, keys) -> None:
    Bundle.open(signed).write_parity({"passed": True, "checks": []})
    (signed / "engines" / "anything").mkdir(parents=True)
    dyninfer.load(signed, trusted_key=keys[1]).close()


def test_a_bundle_may_be_renamed_and_moved(signed, keys, tmp_path) -> None:
    moved = shutil.move(signed, tmp_path / "elsewhere.dyn")
    dyninfer.load(moved, trusted_key=keys[1]).close()


def test_other_tools_verify_it_and_their_signatures_are_taken(signed, keys) -> None:
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys[1])
    Bundle.open(signed).write_parity({"passed": True, "checks": []})
    verifier.verify(signed, signed / SIGNATURE_FILE)
    (signed / SIGNATURE_FILE).unlink()
    (signed / "parity.json").unlink()
    signer = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    signer.sign(signed, signed / SIGNATURE_FILE)
    dyninfer.load(signed, trusted_key=keys[1]).close()


def unsigned(path: Path) -> None:
    (path / SIGNATURE_FILE).unlink()


def resealed_manifest(path: Path) -> None:
    support.reseal(path, lambda document: document.update(name="other"))


def other_stage_with_its_hash(path: Path) -> None:
    stage = path / "onnx" / "second.onnx"
    shutil.copyfile(path / "onnx" / "head.onnx", stage)
    support.reseal(path, lambda d: d["stages"]["second"].update(sha256=file_sha256(stage)))


def stage_added(path: Path) -> None:
    support.reseal(
        path, lambda d: d["stages"].update(more=d["stages"]["first"] | {"file": "model.sig"})
    )


def signed_by_another(path: Path) -> None:
    sign_bundle(Bundle.open(path), write_keys(path.parent, "other")[0])


def signed_by_another_with_this_ones_hint(path: Path) -> None:
    """The key's fingerprint is not part of what is signed."""
    mine = json.loads((path / SIGNATURE_FILE).read_text())
    signed_by_another(path)
    theirs = json.loads((path / SIGNATURE_FILE).read_text())
    (path / SIGNATURE_FILE).write_text(
        json.dumps(theirs | {"verificationMaterial": mine["verificationMaterial"]})
    )


def payload_altered(path: Path) -> None:
    """The hashes fit the files, the signature is one of other hashes."""
    resealed_manifest(path)
    signature = json.loads((path / SIGNATURE_FILE).read_text())
    envelope = signature["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    for resource in statement["predicate"]["resources"]:
        if resource["name"] == MANIFEST_FILE:
            resource["digest"] = file_sha256(path / MANIFEST_FILE)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (path / SIGNATURE_FILE).write_text(json.dumps(signature))


def garbage(path: Path) -> None:
    (path / SIGNATURE_FILE).write_bytes(b"\xff\x00 no JSON")


def nested(path: Path) -> None:
    (path / SIGNATURE_FILE).write_text("[" * 100_000)


def empty_object(path: Path) -> None:
    (path / SIGNATURE_FILE).write_text("{}")


def without_signatures(path: Path) -> None:
    signature = json.loads((path / SIGNATURE_FILE).read_text())
    signature["dsseEnvelope"]["signatures"] = []
    (path / SIGNATURE_FILE).write_text(json.dumps(signature))


def pipe(path: Path) -> None:
    (path / SIGNATURE_FILE).unlink()
    os.mkfifo(path / SIGNATURE_FILE)


def folder(path: Path) -> None:
    (path / SIGNATURE_FILE).unlink()
    (path / SIGNATURE_FILE).mkdir()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (unsigned, "is not signed"),
        (resealed_manifest, "not those that were signed"),
        (other_stage_with_its_hash, "not those that were signed"),
        (stage_added, "not those that were signed"),
        (signed_by_another, "by another key"),
        (signed_by_another_with_this_ones_hint, "by another key"),
        (payload_altered, "by another key, or its signature was altered"),
        (garbage, "cannot be read"),
        (nested, "cannot be read"),
        (empty_object, "cannot be read"),
        (without_signatures, "cannot be read"),
        (pipe, "cannot be read"),
        (folder, "cannot be read"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_anything_else_is_refused_before_an_engine_is_opened(
    signed, keys, opened_engines, attack, reason
) -> None:
    attack(signed)
    with pytest.raises(dyninfer.BundleError, match=reason) as refused:
        dyninfer.load(signed, trusted_key=keys[1])
    assert "\n" not in str(refused.value)
    assert str(signed) in str(refused.value)
    assert opened_engines == []


def test_a_stage_that_differs_from_its_signed_hash_is_refused(signed, keys) -> None:
    with (signed / "onnx" / "head.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(dyninfer.BundleError, match=r"head\.onnx was changed"):
        dyninfer.load(signed, trusted_key=keys[1])


def test_a_signature_of_other_files_by_the_same_key_is_none_of_this_bundle(
    signed, keys, tmp_path
) -> None:
    """Whatever else the key has signed and asked verifiers to leave out does not count."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("harmless")
    config = signing.Config().use_elliptic_key_signer(private_key=keys[0])
    from model_signing import hashing

    config.set_hashing_config(
        hashing.Config().set_ignored_paths(paths=["bundle.json", "onnx", "model.sig"])
    )
    config.sign(other, signed / SIGNATURE_FILE)
    (signed / "notes.txt").write_text("harmless")
    with pytest.raises(dyninfer.BundleError, match="not those that were signed"):
        dyninfer.load(signed, trusted_key=keys[1])


def test_a_changed_bundle_is_not_signed(tmp_path, keys) -> None:
    path = support.write_two_exits(tmp_path / "two.dyn")
    opened = Bundle.open(path)
    resealed_manifest(path)
    with pytest.raises(dyninfer.BundleError, match="was changed while it was opened"):
        sign_bundle(opened, keys[0])
    assert not (path / SIGNATURE_FILE).exists()


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff" * 64, None])
def test_what_is_no_key_is_an_input_error_that_says_how_to_make_one(
    signed, tmp_path, content
) -> None:
    key = tmp_path / "no.pem"
    if content is not None:
        key.write_bytes(content)
    with pytest.raises(dyninfer.InputError, match=r"an EC public key.*openssl") as refused:
        dyninfer.load(signed, trusted_key=key)
    assert str(key) in str(refused.value)
    with pytest.raises(dyninfer.InputError, match=r"an EC private key.*openssl"):
        sign_bundle(Bundle.open(signed), key)


def test_other_keys_than_ec_are_input_errors(signed, tmp_path) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    for key in (rsa_key, ec.generate_private_key(ec.SECP256K1())):
        private, public = write_keys(tmp_path, "unfit", key)
        with pytest.raises(dyninfer.InputError, match="expected an EC private key"):
            sign_bundle(Bundle.open(signed), private)
        with pytest.raises(dyninfer.InputError, match="expected an EC public key"):
            dyninfer.load(signed, trusted_key=public)


def test_keys_in_each_others_place_are_input_errors(signed, keys) -> None:
    private, public = keys
    with pytest.raises(dyninfer.InputError, match="expected an EC public key"):
        dyninfer.load(signed, trusted_key=private)
    with pytest.raises(dyninfer.InputError, match="expected an EC private key"):
        sign_bundle(Bundle.open(signed), public)


def test_an_encrypted_key_says_how_to_give_it(signed, tmp_path) -> None:
    private, _ = write_keys(tmp_path, "hidden", password=b"secret")
    with pytest.raises(dyninfer.InputError, match=r"is encrypted.*openssl pkey -in"):
        sign_bundle(Bundle.open(signed), private)


def test_without_the_extra_the_message_names_it(signed, keys, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    with pytest.raises(dyninfer.MissingExtra, match=r"\[sign\]"):
        dyninfer.load(signed, trusted_key=keys[1])


def test_what_a_signals_handler_raises_passes_through(signed, keys, monkeypatch) -> None:
    def expired(*_: object) -> None:
        raise TimeoutError("the application's own")

    def interrupted(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, expired)
    try:
        for config, act in (
            (verifying.Config, lambda: dyninfer.load(signed, trusted_key=keys[1])),
            (signing.Config, lambda: sign_bundle(Bundle.open(signed), keys[0])),
        ):
            for method in (
                "use_elliptic_key_verifier",
                "use_elliptic_key_signer",
                "verify",
                "sign",
            ):
                with monkeypatch.context() as patched:
                    if not hasattr(config, method):
                        continue
                    patched.setattr(config, method, interrupted)
                    with pytest.raises(TimeoutError, match="the application's own"):
                        act()
    finally:
        signal.signal(signal.SIGUSR1, before)
