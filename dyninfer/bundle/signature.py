"""Signatures in OpenSSF's model-signing format: who made a bundle, not only that it is whole.

``model.sig`` lies inside the folder that it signs. It names the document and the files that the
document has hashes of, with their SHA-256: of a bundle ``bundle.json`` and its stages, of a build
``build.json`` and what was built. Calibration, verification and builds are written later and are
not part of a bundle's signature. Keys are files; nothing is looked up on a network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dyninfer.bundle.calibration import CALIBRATION_FILE
from dyninfer.bundle.documents import Frozen, parse_sealed, read_document
from dyninfer.bundle.folder import (
    MANIFEST_FILE,
    PARITY_FILE,
    PICTURES,
    ROUTER_FILE,
    Bundle,
    unwritable,
)
from dyninfer.bundle.manifest import SCHEMA_VERSION
from dyninfer.bundle.unfinished import scratch_folder, write_atomically
from dyninfer.errors import BundleError, InputError, MissingExtra
from dyninfer.foreign_errors import let_through, reason_of
from dyninfer.installing import pip_install

if TYPE_CHECKING:
    from model_signing.manifest import Manifest as SignedFiles

SIGNATURE_FILE = "model.sig"
# what may be in a signed folder beside what is signed, for other tools that verify it
_UNSIGNED = (SIGNATURE_FILE, CALIBRATION_FILE, PARITY_FILE, ROUTER_FILE, PICTURES, "engines")
_PRIVATE = "an EC private key in PEM: openssl ecparam -name prime256v1 -genkey -noout -out FILE"
_PUBLIC = "an EC public key in PEM: openssl pkey -in PRIVATE -pubout -out FILE"


def sign_bundle(bundle: Bundle, private_key: Path) -> None:
    """Write ``model.sig`` into a bundle that was opened, so that all its files were compared.

    Raises:
        InputError: the key cannot be used.
        MissingExtra: model-signing is not installed.
        BundleError: the bundle was changed meanwhile, or cannot be written.
    """
    sign_files(bundle.path, _files_of(bundle), private_key)


def check_bundle(bundle: Bundle, public_key: Path) -> None:
    """Compare what a bundle's manifest says of its files with what was signed.

    The files themselves are compared with the manifest when they are opened.

    Raises:
        BundleError: there is no signature by this key, or it is one of other files.
        InputError: the key cannot be used.
        MissingExtra: model-signing is not installed.
    """
    check_files(bundle.path, _files_of(bundle), public_key)


def _files_of(bundle: Bundle) -> dict[str, str]:
    files = (each for stage in bundle.manifest.stages.values() for each in stage.files)
    stages = {each.file: each.sha256 for each in files}
    path = bundle.path / MANIFEST_FILE
    return {MANIFEST_FILE: document_sha256(path, bundle.manifest, SCHEMA_VERSION), **stages}


def document_sha256(path: Path, read: Frozen, version: int) -> str:
    """SHA-256 of a document's file, which is still the one that ``read`` came from."""
    raw = read_document(path)
    if parse_sealed(raw, path, type(read), "load the bundle again", version) != read:
        raise BundleError(f"{path} was changed while it was opened; load the bundle again")
    return hashlib.sha256(raw).hexdigest()


def sign_files(folder: Path, hashes: Mapping[str, str], private_key: Path) -> None:
    """Write ``model.sig`` beside files whose SHA-256 are known."""
    signing = _library("signing").Config()
    with _usable(private_key, _PRIVATE):
        signing.use_elliptic_key_signer(private_key=private_key)
    signing.set_hashing_config(_Known(hashes))
    try:
        with scratch_folder() as scratch:
            signing.sign(folder, scratch / SIGNATURE_FILE)
            write_atomically(folder / SIGNATURE_FILE, (scratch / SIGNATURE_FILE).read_bytes())
    except OSError as error:
        let_through(error)
        raise BundleError(unwritable(folder / SIGNATURE_FILE, error)) from error


def check_files(folder: Path, hashes: Mapping[str, str], public_key: Path) -> None:
    """Refuse files unless ``model.sig`` beside them is of exactly these, by this key."""
    verifying = _library("verifying").Config()
    with _usable(public_key, _PUBLIC):
        verifying.use_elliptic_key_verifier(public_key=public_key)
    verifying.set_hashing_config(_Known(hashes))
    signature = folder / SIGNATURE_FILE
    if not signature.exists():
        raise BundleError(
            f"{folder} is not signed: it holds no {SIGNATURE_FILE}, and one by the owner of "
            f"{public_key} is expected; whoever made it signs it with dyninfer sign"
        )
    read_document(signature)  # it is a file, and of a size that can be parsed
    try:
        verifying.verify(folder, signature)
    except Exception as error:  # a hostile signature may make its parsers raise anything
        raise BundleError(
            f"{folder} is not what the owner of {public_key} signed: {_reason(error)}; "
            "get it again from whoever signed it"
        ) from error


class _Known:
    """Stands where the library would hash files: their hashes are known, and compared elsewhere."""

    def __init__(self, hashes: Mapping[str, str]) -> None:
        self._hashes = hashes

    def hash(self, path: Path, *, files_to_hash: object = None) -> SignedFiles:
        """The files as the library describes what it hashed itself."""
        del files_to_hash
        from model_signing import manifest
        from model_signing._hashing.hashing import Digest  # has no public name

        as_files = manifest.SerializationType.from_args(
            {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": _UNSIGNED,
            }
        )
        items = [
            as_files.new_item(name, Digest("sha256", bytes.fromhex(sha256)))
            for name, sha256 in self._hashes.items()
        ]
        return manifest.Manifest(path.resolve().name, items, as_files)

    def add_ignored_paths(self, **_: object) -> None:
        """Nothing: which files count does not depend on what a signature says."""


def _library(module: str) -> Any:
    """A module of model-signing, which takes a second to import."""
    try:
        from model_signing import signing, verifying
    except ImportError as error:
        raise MissingExtra(
            f"signatures need model-signing ({error}); install it: {pip_install('sign')}"
        ) from error
    return {"signing": signing, "verifying": verifying}[module]


@contextmanager
def _usable(key: Path, expected: str) -> Iterator[None]:
    """Turns whatever reading a key raises into an error that says how to make one."""
    try:
        yield
    except OSError as error:
        let_through(error)
        raise InputError(f"{key} cannot be read: {error.strerror}; expected {expected}") from error
    except Exception as error:  # what a file that is no such key makes its parser raise
        reason = reason_of(error)[:120]
        if isinstance(error, TypeError) and "encrypted" in reason:
            raise InputError(
                f"{key} is encrypted; give it without its password, for example: "
                f"openssl pkey -in {key} | dyninfer sign BUNDLE --key /dev/stdin"
            ) from error
        raise InputError(f"{key} is not usable ({reason}); expected {expected}") from error


def _reason(error: Exception) -> str:
    text = reason_of(error)
    if text.startswith("Key mismatch") or type(error).__name__ == "InvalidSignature":
        return "it was signed by another key, or its signature was altered"
    if text.startswith("Signature mismatch"):
        return "its files are not those that were signed"
    return f"its signature cannot be read ({text[:120]})"
