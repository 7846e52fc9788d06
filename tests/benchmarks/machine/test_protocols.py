from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from dyninfer.cli.app import app
from dyninfer.runtime.opening import DEFAULT_BATCH

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks/protocols"
PROTOCOLS = ("v100.md", "jetson.md")


def commands_of(name: str) -> list[str]:
    text = (FOLDER / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\n(.*?)^```", text.replace("\\\n", ""), re.MULTILINE | re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]


QUOTED = [line for name in PROTOCOLS for line in commands_of(name) if line.startswith("dyninfer ")]


def find_command(words: list[str]) -> tuple[Any, list[str]]:
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("line", QUOTED)
def test_every_quoted_command_is_one_of_this_version(line):
    command, words = find_command(shlex.split(line)[1:])
    assert not hasattr(command, "commands")
    known = {name for parameter in command.params for name in parameter.opts}
    asked = {word for word in words if word.startswith("-")}
    assert asked <= known, asked - known


@pytest.mark.parametrize("line", QUOTED)
def test_every_quoted_command_is_complete(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, words = find_command(shlex.split(line)[1:])
    for word in words:
        if word.endswith("/"):
            Path(word).mkdir()
    made = command.make_context("dyninfer", words, resilient_parsing=False)
    assert not made.args


@pytest.mark.parametrize("name", PROTOCOLS)
def test_an_engine_is_built_for_every_precision_and_batch_that_is_opened(name):
    lines = [shlex.split(line)[1:] for line in commands_of(name) if line.startswith("dyninfer ")]

    def value(words: list[str], option: str, default: str) -> str:
        return words[words.index(option) + 1] if option in words else default

    on_tensorrt = [words for words in lines if value(words, "--backend", "") == "tensorrt"]
    built: dict[str, int] = {}
    for words in on_tensorrt:
        precision = value(words, "--precision", "fp32")
        if words[0] == "build":
            largest = int(value(words, "--batch", "1:4:16").split(":")[-1])
            built[precision] = max(largest, built.get(precision, 0))
        else:
            asked = value(words, "--batch", "1,8") if words[0] == "bench" else str(DEFAULT_BATCH)
            assert max(map(int, asked.split(","))) <= built[precision], words
    assert built


def test_both_protocols_measure_with_bench():
    for name in PROTOCOLS:
        assert sum(line.startswith("dyninfer bench") for line in commands_of(name)) >= 3


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_says_that_nobody_ran_it(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert "**Nobody of this project has run this" in text.split("\n\n")[1]
    assert "- [ ]" in text


def test_modules_that_a_protocol_names_exist():
    for name in PROTOCOLS:
        text = (FOLDER / name).read_text(encoding="utf-8")
        for module in re.findall(r"python -m (dyninfer[\w.]+)", text):
            assert importlib.util.find_spec(module) is not None, module
