"""Names that a terminal would obey, that Rich would read as markup, or that look like our lines."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from dyninfer.bundle.manifest import CascadeRoute, Exit
from tests import support
from tests.dyninfer.cli.run import run
from tests.dyninfer.cli.test_bench import FAST
from tests.dyninfer.evaluation.coded import coco, write_coded

EVIL = "[red]\x1b[2J\x9b2J\x07\x08\x0c\u202e:smile:\nerror: made up"
NAME = f"a[/]{EVIL}"  # no file can be called so, but a folder and a file in it
SHOWN = r"[red]\x1b[2J\x9b2J\x07\x08\x0c\u202e:smile:"
RICH = re.compile(r"\x1b\[[\d;]*m|\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r")


def check_harmless(text: str) -> None:
    """Nothing but text and line ends, none of which a name has made."""
    left = {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs"}}
    assert not left, f"{left} in {text!r}"
    assert "error: made up" not in text.splitlines()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ends so that the path of what is in it has ``[/]``."""
    made = tmp_path / "a["
    made.mkdir()
    return made


@pytest.fixture
def bundle(folder: Path) -> Path:
    path = folder / f"]{EVIL}.dyn"
    models = {
        "first": support.means_of(NAME, 8, 8, "value"),
        "router": support.channel_router("value", 0),
        "head": support.detecting_head("value", 0),
        "second": support.detecting_body(NAME, 8, 1000),
    }
    exits = (
        Exit(body="first", router="router", head="head", image_input=NAME),
        Exit(body="second", image_input=NAME),
    )
    classes = (NAME, "right")
    support.write_tiny_bundle(
        path, models, CascadeRoute(exits=exits), {NAME: 8}, class_names=classes
    )

    def rename(payload: dict) -> None:
        payload["stages"] = {f"{name}{NAME}": s for name, s in payload["stages"].items()}
        for exit_ in payload["route"]["exits"]:
            exit_.update({k: f"{v}{NAME}" for k, v in exit_.items() if v in models})
        payload["name"] = payload["family"] = NAME
        payload["source"] |= {"file_name": NAME, "licence": NAME}

    support.reseal(path, rename)
    return path


@pytest.fixture
def pictures(folder: Path) -> Path:
    """Six pictures, one that is none, and what is in them, all with such names."""
    made = folder / f"]pictures{EVIL}"
    for path in write_coded(made, (0, 51, 102, 153, 204, 255)):
        path.rename(made / f"{EVIL}{path.name}")
    (made / f"{EVIL}broken.png").write_text("none")
    names = sorted(path.name for path in made.iterdir())
    document = coco([*names, NAME], [[[0, 0, 8, 8]]] * (len(names) + 1), (NAME, "right"))
    (made / "labels.json").write_text(json.dumps(document))
    return made


def commands(bundle: Path, pictures: Path) -> Iterator[tuple[str, ...]]:
    """Command lines that print all sorts of names, most of which succeed."""
    here, images = str(bundle), ("--images", str(pictures))
    labels = ("--annotations", str(pictures / "labels.json"))
    target = str(bundle.with_name(f"out{EVIL}"))
    yield ("info", here)
    yield ("info", here, "--json")
    yield ("predict", here, str(pictures), "-o", target)
    yield ("predict", here, str(pictures), "-o", target, "--json")
    yield ("calibrate", here, *images, *labels)
    yield ("calibrate", here, *images, "--json")
    yield ("eval", here, *images, *labels)
    yield ("eval", here, *images, *labels, "--curve")
    yield ("verify", here)
    yield ("build", here)
    yield ("build", here, "--backend", "onnxruntime", "-p", "int8", "--no-build")
    yield ("fit-router", here, *images)
    yield ("info", here)


def wrong_usage(bundle: Path) -> Iterator[tuple[str, ...]]:
    """Arguments that are quoted back."""
    here = str(bundle)
    yield (NAME,)
    yield ("info", f"--{NAME}")
    yield ("info", NAME)
    yield ("info", here, NAME)
    yield ("predict", here, NAME)
    yield ("predict", here, here, "--speed", NAME)
    yield ("predict", here, here, "--threshold", NAME)
    yield ("predict", here, here, "--provider", NAME, "--device", NAME)
    yield ("export", NAME)
    yield ("export", "dynamicdet", NAME)
    yield ("export", "dynamicdet", NAME, "--image-size", NAME)
    yield ("export", "cascade", f"{NAME}.onnx,decode={NAME}", "b.onnx")
    yield ("export", "cascade", "--first", f"{NAME}.onnx", "--second", f"{NAME}.onnx")
    yield ("bench", "--from", NAME)
    yield ("bench", "--compare", NAME, NAME)
    yield ("build", here, "--for", NAME)


def test_every_command_shows_names_as_they_are(capsys, bundle: Path, pictures: Path) -> None:
    for command in commands(bundle, pictures):
        status, out, err = run(capsys, *command)
        check_harmless(out)
        check_harmless(err)
        assert status in (0, 1)
        assert "internal error" not in err, err
        assert "MarkupError" not in err
        if "--json" in command and command[0] != "predict":
            json.loads(out)
    assert f"a[/]{SHOWN}\\nerror: made up" in "".join(
        run(capsys, "info", str(bundle))[1].split("\n")
    )


def test_wrong_usage_quotes_without_obeying(capsys, bundle: Path) -> None:
    for command in wrong_usage(bundle):
        status, out, err = run(capsys, *command)
        check_harmless(out)
        check_harmless(err)
        assert status in (1, 2), command
        assert "error: " in err
        if "--threshold" not in command:  # typer does not say what it got
            assert SHOWN.split(r"\x0c")[0].lower() in err.lower(), command


@pytest.mark.slow
def test_a_bench_record_of_such_names(capsys, bundle: Path, tmp_path: Path) -> None:
    record, report = tmp_path / "record.json", tmp_path / "report.html"
    more = ("-o", str(record), "--report", str(report), "--format", "markdown")
    status, out, err = run(capsys, "bench", str(bundle), "--quick", *FAST, *more)
    assert status == 0, err
    for text in (out, err, report.read_text(encoding="utf-8")):
        check_harmless(text)
    for how in ((), ("--json",), ("--format", "markdown")):
        status, out, err = run(capsys, "bench", "--from", str(record), *how)
        assert status == 0
        check_harmless(out)
        check_harmless(err)


def test_a_terminal_gets_richs_own_sequences_alone(bundle: Path, pictures: Path) -> None:
    for command in (
        ("predict", str(bundle), str(pictures), "-o", str(bundle.with_name("out"))),
        ("--debug", "info", NAME),
    ):
        shown = in_terminal(*command)
        assert "\x1b[" in shown or "--debug" in command
        check_harmless(RICH.sub("", shown))


def in_terminal(*arguments: str) -> str:
    """What a command writes to a terminal, on both streams."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "dyninfer", *arguments]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "300"}
    process = subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=environment)
    os.close(child)
    data = b""
    while True:
        try:
            data += (part := os.read(parent, 65536))
        except OSError:  # the other end is closed
            break
        if not part:
            break
    os.close(parent)
    process.wait(60)
    return data.decode("utf-8")


def test_nothing_is_printed_in_another_way() -> None:
    """Commands print through a Terminal; what is styled there is made by ``styled``."""
    allowed = {
        ("dyninfer/cli/common.py", "echo"),  # documents, plain by their own rules
        ("benchmarks/report/terminal.py", "assemble"),
        ("benchmarks/machine/__main__.py", "print"),  # JSON
        ("benchmarks/lab/limits/__main__.py", "echo"),  # Markdown, and our own errors
        ("benchmarks/lab/published.py", "echo"),  # likewise
        ("dyninfer/cli/common.py", "TextColumn"),  # a word of our own beside the bar
        ("benchmarks/lab/random_models.py", "echo"),  # a path made of our own names
        ("benchmarks/lab/limits/full_size.py", "print"),  # a figure
    }
    found = set()
    for room in ("dyninfer/cli", "dyninfer/demo", "benchmarks"):
        for path in (support.ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _raw(node.func):
                    found.add((path.relative_to(support.ROOT).as_posix(), _raw(node.func)))
    assert found <= allowed, found - allowed


def _raw(function: ast.expr) -> str:
    """The name of a function that shows text as it is, or reads markup in it."""
    if isinstance(function, ast.Name):
        return function.id if function.id in {"print", "Console", "Text", "TextColumn"} else ""
    name = function.attr if isinstance(function, ast.Attribute) else ""
    return name if name in {"echo", "secho", "from_markup", "assemble", "print_json"} else ""
