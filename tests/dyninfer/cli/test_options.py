from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from dyninfer.cli.options import with_option_groups
from tests.dyninfer.cli.run import run


@dataclass(frozen=True)
class Numbers:
    low: Annotated[int, typer.Option("--low", "-l", min=1, help="The least.")] = 1
    high: Annotated[int | None, typer.Option(help="The most.")] = None


@with_option_groups
def command(name: str, *, numbers: Numbers, loud: bool = False) -> None:
    """Show what came."""
    typer.echo((name, numbers, loud))


def invoke(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, list(arguments)).output


def test_a_group_is_filled_from_its_options_and_their_defaults() -> None:
    assert invoke("a") == f"{('a', Numbers(), False)}\n"
    assert invoke("a", "-l", "2", "--high", "3", "--loud") == f"{('a', Numbers(2, 3), True)}\n"


def test_the_options_of_a_group_are_checked_and_stand_where_the_group_does() -> None:
    assert "--low" in invoke("a", "--low", "0")
    shown = invoke("--help")
    assert shown.index("Show what came.") < shown.index("The least.") < shown.index("The most.")
    assert shown.index("The most.") < shown.index("--loud")


@pytest.mark.parametrize("name", ["predict", "calibrate", "eval", "bench"])
def test_every_command_that_opens_any_engines_has_the_same_options_for_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    _, shown, _ = run(capsys, name, "--help")
    lines = [" ".join(line.strip("│ ").split()) for line in shown.splitlines()]
    for option, told in (
        ("--device", "cpu, or cuda:0 for the first GPU. Default: the device that the backend"),
        (
            "--backend",
            "onnxruntime, openvino, tensorrt, tensorrt-rtx, or one for each stage,",
        ),
        ("--provider", "ONNX Runtime execution provider: cpu, cuda or tensorrt"),
        (
            "--precision",
            "fp16 or int8, made by dyninfer build; bf16 with openvino;",
        ),
    ):
        (line,) = (line for line in lines if line.startswith(option))
        assert told in line
    _, _, err = run(capsys, name, "--devic", "cpu")
    assert "--device" in err
