from __future__ import annotations

import ast
import json
import logging
import re
import traceback
from pathlib import Path

import pytest

import dyninfer
from dyninfer.plain_text import counted, one_line, plain, plain_json
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


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "picture", "1 picture"),
        (0, "picture", "0 pictures"),
        (2000, "usable image", "2,000 usable images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (3, "box", "3 boxes"),
    ],
)
def test_a_noun_follows_its_number(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


def test_nothing_is_counted_by_hand() -> None:
    by_hand = re.compile(
        r" (\w+ )?(pictures|images|photos|objects|classes|detections|boxes|builds|routers)\b"
    )
    of_many = re.compile(r"(of|of the|last|first|least) $")
    top = Path(dyninfer.__file__).parents[1]
    found = []
    for room in ("dyninfer", "engines", "exporters", "benchmarks"):
        for path in sorted((top / room).rglob("*.py")):
            for text in ast.walk(ast.parse(path.read_text("utf-8"))):
                parts = text.values if isinstance(text, ast.JoinedStr) else []
                for before, value, after in zip([None, *parts], parts, parts[1:], strict=False):
                    if not (isinstance(value, ast.FormattedValue) and value.format_spec is None):
                        continue
                    number = isinstance(value.value, ast.Call) and ast.unparse(value.value.func)
                    if number == "len" and isinstance(after, ast.Constant):
                        said = before.value if isinstance(before, ast.Constant) else ""
                        if by_hand.match(after.value) and not of_many.search(said):
                            found.append(f"{path.relative_to(top)}:{text.lineno}")
    assert found == []
