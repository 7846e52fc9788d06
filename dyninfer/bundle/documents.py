"""JSON documents that must be as described, and that notice when a byte of them was changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dyninfer.errors import BundleError, InputError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through

SEAL = "seal"
_BLANK = "0" * 64
LARGEST_DOCUMENT = 32 << 20  # bytes: a calibration on half a million pictures
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_WHOLE_NUMBERS = range(-(1 << 63), 1 << 63)


class Frozen(BaseModel):
    """An immutable part of a document, in which nothing else may stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelT = TypeVar("ModelT", bound=Frozen)


def first_problem(error: ValidationError) -> str:
    """The first of the problems, with its place in the document where it has one.

    For example ``stages.head.macs: Input should be greater than or equal to 0``.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def parse_json(raw: bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: it is none, is nested too deeply, holds a whole number of more than 64 bits, or
            half of a surrogate pair, which is no character and cannot be written anywhere.
    """
    try:
        payload = json.loads(raw, parse_int=_whole_number)
    except RecursionError:
        raise ValueError("its parts are nested too deeply") from None
    if _HALF_OF_A_PAIR.search(raw):  # pairs are fine, halves are not
        json.dumps(payload, ensure_ascii=False).encode()
    return payload


def _whole_number(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in _WHOLE_NUMBERS:
        raise ValueError(f"the number {digits[:20]}... has more than 64 bits")
    return int(digits)


def dump_sealed(payload: Mapping[str, Any]) -> str:
    """``payload`` as JSON text with a last key ``seal``: the SHA-256 of the text.

    The hash is taken with 64 zeros in its own place.

    Raises:
        BundleError: a text holds half of a surrogate pair, as names of files do that are no UTF-8.
    """
    text = json.dumps({**payload, SEAL: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text[max(0, error.start - 20) : error.end + 20]
        raise BundleError(
            f"{shown!r} holds an invalid character and cannot be written; "
            "rename the file or the class"
        ) from None
    head, tail = text.rsplit(_BLANK, 1)
    return head + hashlib.sha256(text.encode()).hexdigest() + tail


def load_sealed(
    path: Path, remedy: str = "export or verify the bundle again", latest: int | None = None
) -> dict[str, Any]:
    """Read what :func:`dump_sealed` wrote, without the seal.

    ``remedy`` is what to do where it cannot be used, ``latest`` the last schema that can be read.

    Raises:
        BundleError: the file is missing, is not JSON, of a later schema, or differs from what was
            sealed.
    """
    return _unseal(read_document(path), path, remedy, latest)


def read_document(path: Path) -> bytes:
    """A JSON file as it is; BundleError where it cannot be read or is too large."""
    try:
        return read_file(path, LARGEST_DOCUMENT)
    except OSError as error:
        let_through(error)
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def _unseal(raw: bytes, path: Path, remedy: str, latest: int | None) -> dict[str, Any]:
    try:
        payload = parse_json(raw)
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON ({error}); {remedy}") from None
    document: dict[str, Any] = payload if isinstance(payload, dict) else {}
    version = document.get("schema_version")
    if latest is not None and isinstance(version, int) and version > latest:
        raise BundleError(
            f"{path} was written by a newer dyninfer (schema {version}, this one reads up to "
            f"{latest}): upgrade dyninfer"
        )
    seal = document.pop(SEAL, None)
    if not isinstance(seal, str) or len(seal) != len(_BLANK):
        raise BundleError(f"{path} carries no seal, so dyninfer did not write it; {remedy}")
    head, _, tail = raw.rpartition(seal.encode())
    if hashlib.sha256(head + _BLANK.encode() + tail).hexdigest() != seal:
        raise BundleError(
            f"{path} was changed after it was written (its seal does not match); "
            f"{remedy} instead of editing it"
        )
    return document


def read_sealed(path: Path, model: type[ModelT], remedy: str, latest: int) -> ModelT:
    """As :func:`load_sealed`, as a model.

    Raises:
        BundleError: also where the file contradicts the model.
    """
    return parse_sealed(read_document(path), path, model, remedy, latest)


def parse_sealed(raw: bytes, path: Path, model: type[ModelT], remedy: str, latest: int) -> ModelT:
    """As :func:`read_sealed`, of what was read from ``path`` already."""
    payload = _unseal(raw, path, remedy, latest)
    try:
        return model.model_validate_json(json.dumps(payload))
    except ValidationError as error:
        reason = first_problem(error)
    except InputError as error:  # of postprocessing options
        reason = str(error)
    raise BundleError(f"{path} is not usable: {reason}; {remedy}")
