"""Command lines: every command with options it has, and values that it may not expect."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import typer

import dyninfer
from dyninfer.cli import main
from dyninfer.cli.app import app
from tests import support
from tests.dyninfer.evaluation.coded import write_coded, write_labels
from tests.exporters.cascade import detectors
from tests.fuzz.mutation import mutate_bytes, mutate_json
from tests.fuzz.target import UnexpectedError

ARGUMENTS = "arguments.json"
VALUES = (
    *("0", "1", "-1", "0.5", "1e400", "nan", "9" * 40, "8x8", "0x0", "30%", "12ms", "12ms@p95"),
    *("easy", "hard", "certified", "ap-0.5", "0.4+adaptive", "fp16", "int8", "first=int8", "cpu"),
    *("cuda:0", "cuda:99", "onnxruntime", "tensorrt", "json", "table", "", " ", "[/]", "\x1b[1m"),
    *("a,b", "=", "first=", "x" * 300, "é", "-", "--", "*.png", "nowhere", "http://x/y.png"),
)
FILES = (
    *("two.dyn", "static.dyn", "classes.dyn", "broken.dyn", "pictures", "pictures/000.png"),
    *("labels.json", "broken.json", "broken.png", "cheap.onnx", "broken.onnx", "names.yaml"),
    *("empty", "a-folder", "nowhere/x", "../input", "."),
)
QUICK = {  # takes seconds all the same, and is drawn half as often
    "bench": ["--quick", "--seconds", "0.05", "--rounds", "2", "--min-calls", "2"],
}
USUAL = {
    "info": ["two.dyn"],
    "predict": ["two.dyn", "pictures", "--output", "out"],
    "calibrate": ["two.dyn", "--images", "pictures", "--annotations", "labels.json"],
    "eval": ["two.dyn", "--images", "pictures", "--annotations", "labels.json"],
    "bench": ["two.dyn", "--batch", "1", "--hard", "50%"],
    "build": ["two.dyn", "--backend", "onnxruntime", "--precision", "fp16"],
    "verify": ["two.dyn"],
    "fit-router": ["two.dyn", "--images", "pictures", "--output", "new.dyn"],
    "export dynamicdet": ["nowhere.pt", "--output", "new.dyn"],
    "export cascade": ["cheap.onnx", "broken.onnx", "--output", "new.dyn"],
}
"""Commands but for the demonstration, which takes longer than an input may."""


class CommandLines:
    """Run in a folder of files good and bad; the status is 0, 1 or 2 and no bug shows."""

    def __init__(self, material: Path) -> None:
        self._files = material
        support.write_two_exits(material / "two.dyn")
        support.write_static(material / "static.dyn")
        support.write_select_classifiers(material / "classes.dyn")
        paths = write_coded(material / "pictures", (0, 100, 255))
        write_labels(material / "labels.json", paths)
        detectors.yolov8(2).save(material / "cheap.onnx")
        (material / "names.yaml").write_text("names: [left, right]\n")
        (material / "empty").touch()
        (material / "a-folder").mkdir()
        group: Any = typer.main.get_command(app)
        self._options = {name: _options(_command_of(group, name)) for name in USUAL}

    def make(self, rng: Random, folder: Path) -> None:
        shutil.copytree(self._files, folder, dirs_exist_ok=True)
        _break(rng, folder)
        command = rng.choice((*USUAL, *(name for name in USUAL if name not in QUICK)))
        arguments = [*USUAL[command]]
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            place = rng.randrange(len(arguments) + 1)
            match rng.randrange(4):
                case 0:
                    del arguments[place : place + 1]
                case 1:
                    arguments[place : place + 1] = [rng.choice(FILES)]
                case _:
                    name, takes_value = rng.choice(self._options[command])
                    values = FILES if rng.random() < 0.4 else VALUES
                    value = [rng.choice(values)] if takes_value else []
                    arguments += [name, *value]
        arguments = command.split() + arguments
        arguments += QUICK.get(command, [])
        if rng.random() < 0.03:
            rng.shuffle(arguments)
        (folder / ARGUMENTS).write_text(json.dumps(arguments))

    def feed(self, folder: Path) -> None:
        arguments = json.loads((folder / ARGUMENTS).read_text())
        with mock.patch("dyninfer.exporters.cascade.export.run_limited", _run_here):
            status, said = _run(arguments, folder / "said")
        if "internal error" in said or "Traceback" in said or status not in (0, 1, 2):
            raise UnexpectedError(f"status {status} of {arguments}: {said}")
        if status:
            raise dyninfer.InputError(f"status {status}: {said}")


def _run_here(_module: str, work: Any, request: Any, *others: Any) -> Any:
    """What a child would do in seconds; this process may crash as well, and has limits."""
    return work(request, others[-1])


def _command_of(group: Any, name: str) -> Any:
    for part in name.split():
        group = group.commands[part]
    return group


def _options(command: Any) -> list[tuple[str, bool]]:
    """The names of its options, and whether a value follows."""
    return [
        (name, not parameter.is_flag)
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in (*parameter.opts, *parameter.secondary_opts)
    ]


def _break(rng: Random, folder: Path) -> None:
    """Those of the files that are not whole."""
    shutil.copytree(folder / "two.dyn", folder / "broken.dyn")
    victim = rng.choice([p for p in (folder / "broken.dyn").rglob("*") if p.is_file()])
    victim.write_bytes(mutate_bytes(rng, victim.read_bytes()))
    for whole, broken in (("pictures/000.png", "broken.png"), ("cheap.onnx", "broken.onnx")):
        (folder / broken).write_bytes(mutate_bytes(rng, (folder / whole).read_bytes()))
    labels = mutate_json(rng, json.loads((folder / "labels.json").read_text()))
    (folder / "broken.json").write_text(json.dumps(labels))


def _run(arguments: list[str], said: Path) -> tuple[object, str]:
    """The status of a command, and what it prints on stderr."""
    with said.open("w+", encoding="utf-8") as file:
        with contextlib.redirect_stderr(file):
            try:
                main(arguments)
                status: object = 0
            except SystemExit as stopped:
                status = stopped.code or 0
        file.seek(0)
        return status, file.read()
