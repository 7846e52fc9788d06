"""What a file is by its first bytes, in the words of a message.

Read are the formats of :mod:`dyninfer.images.headers`. Sources: the formats' specifications.
"""

from __future__ import annotations

_READ = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
)
_NOT_READ = (
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (b"\0\0\1\0", "a Windows icon"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"DDS ", "a DDS texture"),
    (b"FUJIFILM", "a camera's raw file"),
    (b"<svg", "an SVG drawing"),
    (b"%!PS", "a PostScript drawing"),
)
_BRANDS = {
    b"avif": "an AVIF picture",
    b"avis": "an AVIF picture",
    b"crx ": "a camera's raw file",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"), "a HEIC picture"),
}
_NO_PICTURES = (
    (b"%PDF", "a PDF document"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with 'git lfs pull'"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x93NUMPY", "a NumPy array; pass numpy.load(path) itself"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"FLV", "a video"),
    (b"\0\0\1\xba", "a video"),
)


def read_format(data: bytes) -> str | None:
    """The name of the format, where it is one that is read."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "Netpbm"
    return next((name for signature, name in _READ if data.startswith(signature)), None)


def is_cut_off(data: bytes) -> bool:
    """Whether the end of a picture is missing, as far as its format tells."""
    name = read_format(data)
    if name == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if name == "PNG":
        return b"IEND" not in data[-4096:]
    if name == "GIF":
        return b"\x3b" not in data[-16:]
    if name == "WebP":
        return 8 + int.from_bytes(data[4:8], "little") > len(data)
    return name == "BMP" and int.from_bytes(data[2:6], "little") > len(data)


def describe_unread(data: bytes) -> tuple[str, bool]:
    """What a file of another format is, and whether that is a picture all the same."""
    if len(data) >= 12 and data[4:8] == b"ftyp":
        kind = _BRANDS.get(data[8:12])
        return (kind, True) if kind else ("a video", False)
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "a video", False
    if data[128:132] == b"DICM":
        return "a DICOM picture", True
    for signature, kind in _NOT_READ:
        if data.startswith(signature):
            return kind, True
    start = data[:1024].lstrip().lower()
    for signature, kind in _NO_PICTURES:
        if data.startswith(signature) or start.startswith(signature):
            return kind, False
    if start.startswith(b"<?xml"):
        return ("an SVG drawing", True) if b"<svg" in start else ("XML", False)
    if not data.strip(b"\0"):
        return "only zeros, as an interrupted copy leaves them", False
    return ("text", False) if _is_text(data[:1024]) else ("a file of an unknown kind", False)


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not just cut within a character
            return False
        text = start[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)
