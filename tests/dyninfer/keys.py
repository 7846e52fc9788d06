"""Key pairs as openssl writes them, for tests of signatures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("model_signing", reason="the extra sign is not installed")

from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Private = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def write_keys(
    folder: Path, name: str = "key", key: Private | None = None, password: bytes | None = None
) -> tuple[Path, Path]:
    """A private and a public key, EC P-256 unless one is given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    hidden = pem.BestAvailableEncryption(password) if password else pem.NoEncryption()
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, hidden))
    public.write_bytes(
        key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public
