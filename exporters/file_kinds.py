"""What a file is that was given for a checkpoint, and what to do with it, in words."""

from __future__ import annotations

import re
from collections.abc import Sequence

START = 512  # bytes that kind_of wants to see
_UNPACK = "unpack it, and give the file that is inside"
_AGAIN = "download the file again, in a browser where the site asks for a login or a confirmation"
_RESAVE = (
    'to save it anew: python -c "import torch; '
    "torch.save(torch.load('OLD.pt', map_location='cpu', weights_only=True), 'NEW.pt')\""
)
_KINDS: Sequence[tuple[bytes, str]] = (
    (rb"version https://git-lfs", "a Git LFS pointer to it; fetch the file with: git lfs pull"),
    (rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body|script)", f"an HTML page; {_AGAIN}"),
    (rb"\s*<\?xml|\s*<error", f"an XML document, perhaps a server's error message; {_AGAIN}"),
    (rb"\s*[{\[]\s*[\"{}\[\]\d]", f"JSON text, perhaps a server's error message; {_AGAIN}"),
    (rb"\x1f\x8b", f"packed by gzip; {_UNPACK}"),
    (rb"\xfd7zXZ", f"packed by xz; {_UNPACK}"),
    (rb"BZh\d", f"packed by bzip2; {_UNPACK}"),
    (rb"\x28\xb5\x2f\xfd", f"packed by zstd; {_UNPACK}"),
    (rb"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (rb"Rar!", f"a RAR archive; {_UNPACK}"),
    (rb".{257}ustar", f"a tar archive; {_UNPACK}"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes; give the .pt file that the training wrote"),
    (rb".{4}TFL3", "a TensorFlow Lite model; give the .pt file that the training wrote"),
    (rb"\x08[\x01-\x0f][\x12\x3a]", "an ONNX model; give it to: dyninfer export onnx"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF", "a picture; give the .pt file that the training wrote"),
    (
        rb"\x80[\x02-\x05]\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19",
        f"the format of PyTorch before 1.6; {_RESAVE}",
    ),
    (
        rb"\x80[\x02-\x05]",
        "a bare pickle, which would run code; save the weights by torch.save",
    ),
)
_OF_TORCH_EXPORT = ("/archive_format", "serialized_exported_program.json")


def kind_of(start: bytes) -> str:
    """What a file with these first :data:`START` bytes is, and what to do.

    It completes the sentence "This is not a PyTorch checkpoint but ...".
    """
    for pattern, said in _KINDS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            return said
    return "something else (no zip archive, as torch.save writes); give the .pt file of a training"


def other_than_onnx(start: bytes) -> str:
    """``, but an HTML page`` and the like, of a file with these first bytes; or nothing."""
    for pattern, said in _KINDS:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL) and "ONNX" not in said:
            return f" but {said.partition(';')[0]}"
    return " but a zip archive, as PyTorch's checkpoints are" if start[:2] == b"PK" else ""


def archive_kind(names: Sequence[str]) -> str | None:
    """As :func:`kind_of`, of a zip archive by the names in it; None where it may be one."""
    packed = [name for name in names if name.lower().endswith((".pt", ".pth", ".safetensors"))]
    if any(name.endswith("/constants.pkl") for name in names):
        return "a TorchScript program; give the .pt file that the training wrote"
    if any(name.endswith(_OF_TORCH_EXPORT) for name in names):
        return "a program of torch.export; give the .pt file that the training wrote"
    if any(name.endswith("/data.pkl") for name in names):
        return None
    if packed:
        return f"a zip archive that has {packed[0][:80]!r} inside; unpack it, and give that file"
    if any(name.endswith(".npy") for name in names):
        return "a NumPy archive; give the .pt file that the training wrote"
    return None
