"""JSON files that notice when a byte of them was changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyninfer.errors import BundleError

SEAL = "seal"
_BLANK = "0" * 64


def dump_sealed(payload: Mapping[str, Any]) -> str:
    """``payload`` as JSON text with a last key ``seal``: the SHA-256 of the text.

    The hash is taken with 64 zeros in its own place.
    """
    text = json.dumps({**payload, SEAL: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    head, tail = text.rsplit(_BLANK, 1)
    return head + hashlib.sha256(text.encode()).hexdigest() + tail


def load_sealed(path: Path, remedy: str = "export or verify the bundle again") -> dict[str, Any]:
    """Read what :func:`dump_sealed` wrote, without the seal.

    Args:
        path: the file.
        remedy: what to do where it cannot be used, for the message.

    Raises:
        BundleError: the file is missing, is not JSON, or differs from what was sealed.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    try:
        payload: Any = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not valid JSON ({error}); {remedy}") from None
    seal = payload.pop(SEAL, None) if isinstance(payload, dict) else None
    if not isinstance(seal, str) or len(seal) != len(_BLANK):
        raise BundleError(f"{path} carries no seal, so dyninfer did not write it; {remedy}")
    head, _, tail = raw.rpartition(seal.encode())
    if hashlib.sha256(head + _BLANK.encode() + tail).hexdigest() != seal:
        raise BundleError(
            f"{path} was changed after it was written (its seal does not match); "
            f"{remedy} instead of editing it"
        )
    assert isinstance(payload, dict)
    return payload
