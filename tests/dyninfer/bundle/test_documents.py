from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dyninfer import BundleError
from dyninfer.bundle.documents import dump_sealed, load_sealed
from tests import support

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
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
