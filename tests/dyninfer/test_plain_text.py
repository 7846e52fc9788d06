from __future__ import annotations

import json
import logging
import traceback

import pytest

import dyninfer
from dyninfer.plain_text import one_line, plain, plain_json
from dyninfer.runtime.failures import FailureLog

CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0))]
ORDER = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F)]
OTHERS = ["\u2028", "\u2029", "\u200b", "\ufeff", "\xad", "\U000e0041", "\udc80"]


@pytest.mark.parametrize("character", [*CONTROLS, *ORDER, *OTHERS])
def test_what_is_not_to_be_seen_is_escaped(character: str) -> None:
    shown = plain(f"a{character}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert shown.encode("ascii").decode("unicode_escape") == f"a{character}b"
    assert json.loads(plain_json(json.dumps(character, ensure_ascii=False))) == character
    assert character == "\n" or character not in plain_json(json.dumps(character))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "[/] [red]",
        "naïve",
        "鳥 🐦",
        "क्\u200dष",
        "👩\u200d🚒",
        "e\u0301",
        "a\u3000b\xa0c",
    ],
)
def test_letters_of_every_script_stay(text: str) -> None:
    assert plain(text) == text
    assert plain_json(json.dumps(text, ensure_ascii=False)) == json.dumps(text, ensure_ascii=False)


def test_a_message_of_several_lines_is_one() -> None:
    assert one_line("first\n  second\x1b[2J\n") == r"first second\x1b[2J"


def test_no_error_hands_on_what_a_terminal_obeys() -> None:
    for kind in (dyninfer.BundleError, dyninfer.EngineRunError):
        error = kind("\x1b]0;owned\x07 \u202ereversed\nerror: all is well")
        expected = r"\x1b]0;owned\x07 \u202ereversed error: all is well"
        assert str(error) == expected
        assert expected in traceback.format_exception_only(kind, error)[0]


def test_no_log_record_does(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dyninfer"):
        FailureLog().count("broken_outputs", 1, "bundle \x1b[2J\nWARNING made up")
    assert r"bundle \x1b[2J\nWARNING made up" in caplog.messages[0]
