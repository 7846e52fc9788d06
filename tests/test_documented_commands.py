"""What README and the documentation tell a reader to type exists: commands, options, names."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import dyninfer
from dyninfer.cli.app import app
from dyninfer.cli.help import Command
from tests import support
from tests.documented import PAGES, blocks, lines
from tests.dyninfer.cli.run import run

INLINE = re.compile(r"`dyninfer ([a-z][^`]*)`")
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(support.ROOT)))


def command_lines(page: Path) -> Iterator[str]:
    for block in blocks(page):
        for line in lines(block):
            if re.match(r"dyninfer [a-z-]+", line):
                yield line


def options_of(words: list[str]) -> set[str]:
    """The options of the command that the first words name."""
    command = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    return {name for parameter in command.params for name in parameter.opts}


@pages
def test_every_command_line_is_understood(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, page: Path
) -> None:
    monkeypatch.setattr(Command, "invoke", lambda *_: None)
    for line in command_lines(page):
        status, _, err = run(capsys, *shlex.split(line, comments=True)[1:])
        assert status == 0, f"{line}\n{err}"


def test_a_line_of_a_page_that_is_not_understood_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n    dyninfer verify a.dyn \\\n        --pictures b/  # none\n\nText\n")
    with pytest.raises(AssertionError, match="No such option: --pictures"):
        test_every_command_line_is_understood(capsys, monkeypatch, page)
    page.write_text("```\ndyninfer predict a.dyn b/ --batch many\n```\n")
    with pytest.raises(AssertionError, match="many"):
        test_every_command_line_is_understood(capsys, monkeypatch, page)


@pages
def test_every_command_within_a_sentence_and_its_options_exist(page: Path) -> None:
    for found in INLINE.finditer(page.read_text("utf-8")):
        words = found[1].split()
        used = {word for word in words if word.startswith("--")}
        assert used <= options_of(words), found[0]


def test_pages_have_commands() -> None:
    assert sum(len([*command_lines(page)]) for page in PAGES) > 50
    assert options_of(["export", "cascade", "x"]) > {"--first", "--second", "--output"}


@pages
def test_every_name_in_a_snippet_exists_and_takes_what_it_is_given(page: Path) -> None:
    for block in blocks(page):
        if not block.is_python:
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), {})  # noqa: S102  # our own text
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "dyninfer":
                assert hasattr(dyninfer, node.attr), node.attr
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("dyninfer."):
                called = eval(ast.unparse(node.func), {"dyninfer": dyninfer})  # noqa: S307
                given = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(called).bind(*node.args, **given)


def test_targets_of_make_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (support.ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text("utf-8")
        named = set(re.findall(r"(?:^    |`)make ([a-z-]+)", text, re.MULTILINE))
        assert named <= targets, page
