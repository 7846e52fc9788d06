from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import BundleError
from dyninfer.bundle.documents import LARGEST_DOCUMENT, SEAL, dump_sealed, load_sealed, parse_json
from tests import support

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.dictionaries(TEXT.filter(lambda key: key != "seal"), VALUES, max_size=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("sealed") / "file.json"


@settings(deadline=None)
@given(PAYLOADS)
def test_what_is_written_is_read_back(path, payload) -> None:
    path.write_bytes(dump_sealed(payload).encode())
    assert load_sealed(path) == payload


@pytest.mark.parametrize("value", ["0" * 64, "seal ", '"seal": "' + "0" * 64])
def test_payloads_that_look_like_a_seal_are_kept_apart(path, value) -> None:
    path.write_text(dump_sealed({"a": value, value: 1}), encoding="utf-8")
    assert load_sealed(path) == {"a": value, value: 1}


@settings(deadline=None)
@given(PAYLOADS, st.integers(0), st.integers(1, 255))
def test_any_single_changed_byte_is_noticed(path, payload, position, change) -> None:
    data = bytearray(dump_sealed(payload).encode())
    data[position % len(data)] ^= change
    path.write_bytes(data)
    with support.refuses(BundleError, "file.json"):
        load_sealed(path)


def test_every_byte_of_a_small_file_counts(path) -> None:
    data = dump_sealed({"thresholds": [0.5, 1], "name": "ä", "none": None}).encode()
    for position in range(len(data)):
        for value in {0, 10, 32, 34, 48, 65, 255, data[position] ^ 1, data[position] ^ 32}:
            if value == data[position]:
                continue
            path.write_bytes(data[:position] + bytes([value]) + data[position + 1 :])
            with support.refuses(BundleError, "file.json"):
                load_sealed(path)


@pytest.mark.parametrize("count", [1, 10, 60, 100])
def test_a_cut_off_file_is_noticed(path, count) -> None:
    path.write_bytes(dump_sealed({"a": 1, "b": "text"}).encode()[:-count])
    with support.refuses(BundleError, "file.json"):
        load_sealed(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"3", b"null", b'{"seal": 3}', b'{"seal": "abc"}', b"\xff\xfe"]
)
def test_other_files_are_refused(path, content) -> None:
    path.write_bytes(content)
    with support.refuses(BundleError, "file.json"):
        load_sealed(path)


def test_a_missing_file_is_refused(tmp_path) -> None:
    with support.refuses(BundleError, "nothing.json"):
        load_sealed(tmp_path / "nothing.json")


def test_the_file_is_plain_json() -> None:
    text = dump_sealed({"name": "ä", "list": [1, 2]})
    assert json.loads(text)["list"] == [1, 2]
    assert "ä" in text
    assert text.endswith("}\n")


def sealed(body: str) -> bytes:
    """A text of JSON with a seal that fits it, whatever else is in it."""
    text = f'{{{body}, "{SEAL}": "{"0" * 64}"}}'
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest()).encode()


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('"macs": ' + "1" * 400, "64 bits"),
        ('"macs": -9223372036854775809', "64 bits"),
        ('"macs": ' + "9" * 5000, "64 bits"),
        (r'"name": "\ud800"', "surrogates"),
        (r'"\uDFFF": 1', "surrogates"),
        ('"deep": ' + "[" * 5000 + "]" * 5000, "deeply"),
    ],
)
def test_what_later_steps_would_fall_over_is_refused_with_the_file(path, body, part) -> None:
    path.write_bytes(sealed(body))
    with support.refuses(BundleError, "file.json", part):
        load_sealed(path)


def test_a_seal_that_is_no_text_is_refused(path) -> None:
    path.write_text(f'{{"{SEAL}": "{chr(92)}ud800{"0" * 63}"}}', encoding="utf-8")
    with support.refuses(BundleError, "file.json"):
        load_sealed(path)


def test_characters_beyond_the_basic_plane_are_read() -> None:
    assert parse_json(rb'["\ud83d\ude00", 9223372036854775807]') == ["\U0001f600", 2**63 - 1]


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no devices in folders")
def test_devices_pipes_and_large_files_are_refused_at_once(tmp_path) -> None:
    (tmp_path / "device.json").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("device.json", "pipe.json"):
        with support.refuses(BundleError, name, "expected a file"):
            load_sealed(tmp_path / name)
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(LARGEST_DOCUMENT + 1)  # takes no room on the disk
    with support.refuses(BundleError, "large.json", f"at most {LARGEST_DOCUMENT}"):
        load_sealed(tmp_path / "large.json")
