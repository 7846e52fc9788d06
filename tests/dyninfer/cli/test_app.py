from __future__ import annotations

from pathlib import Path

import pytest
import typer

import dyninfer
from dyninfer.cli.app import app
from dyninfer.cli.habits import _HABITS
from tests.dyninfer.cli.run import run


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert status == 2
    assert "export" in out + err
    assert "predict" in out + err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["export"],
        ["export", "dynamicdet"],
        ["verify"],
        ["info"],
        ["predict"],
        ["bench"],
        ["demo"],
    ],
)
def test_every_command_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    status, out, _ = run(capsys, *command, "--help")
    assert status == 0
    assert "dyninfer " + " ".join(command[:1]) in " ".join(out.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"dyninfer {dyninfer.__version__}\n", "")


def test_a_misspelt_command_is_wrong_usage_and_gets_a_suggestion(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, err = run(capsys, "exprot")
    assert status == 2
    assert "export" in err


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("predict x.dyn --conf-thres 0.4", "--confidence"),
        ("predict x.dyn --conf-thres=0.4", "--confidence"),
        ("predict x.dyn --iou-thres 0.5", "--iou"),
        ("predict x.dyn --dy-thres 0.5", "--threshold"),
        ("predict --source photos", "dyninfer predict BUNDLE PICTURES"),
        ("predict --weights x.dyn", "dyninfer predict BUNDLE"),
        ("predict x.dyn --img 640", "export anew with --image-size"),
        ("predict x.dyn --half", "--precision fp16"),
        ("predict x.dyn --project runs", "--output"),
        ("eval x.dyn --data coco.yaml", "--annotations"),
        ("eval x.dyn --source photos", "--images"),
        ("eval x.dyn --dy-thres 0.5", "--speed"),
        ("eval x.dyn --conf-thres 0.5", "predict and calibrate take --confidence"),
        ("calibrate x.dyn --conf-thres 0.5", "--confidence"),
        ("export dynamicdet --weights x.pt", "dyninfer export dynamicdet CHECKPOINT"),
        ("export dynamicdet x.pt --data coco.yaml", "--class-names"),
        ("export dynamicdet x.pt --img 640", "--image-size"),
        ("export dynamicdet x.pt --cfg m.yaml", "--config"),
        ("export cascade --weights x.onnx", "--first"),
        ("bench x.dyn --batch-size 4", "--batch"),
    ],
)
def test_options_of_the_public_scripts_are_answered_with_the_right_ones(
    capsys: pytest.CaptureFixture[str], line: str, instead: str
) -> None:
    status, _, err = run(capsys, *line.split())
    assert status == 2
    option = next(word for word in line.split() if word.startswith("--")).partition("=")[0]
    message = " ".join(err.split()).partition("error: ")[2]
    assert message.startswith(f"No such option: {option}; ")
    assert message.endswith(f" {instead}")


def test_every_option_that_is_recommended_exists_in_that_command() -> None:
    """The words for commands that lack an option name the commands that have it."""
    commands = typer.main.get_command(app).commands
    for habit in set(_HABITS.values()):
        named = [word.strip(",;()") for word in habit.elsewhere.split()]
        options = [word for word in named if word.startswith("--")]
        for name in commands.keys() & set(named) - {"export"}:
            has = {opt for parameter in commands[name].params for opt in parameter.opts}
            assert not options or has & set(options), (name, options)


def test_a_failure_is_one_line_on_stderr(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = run(capsys, "info", str(tmp_path / "none.dyn"))
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert "does not exist" in err


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    from dyninfer.cli import main

    for arguments in (["--debug", "info"], ["info", "--debug"]):
        with pytest.raises(dyninfer.BundleError):
            main([*arguments, str(tmp_path / "none.dyn")])


def test_a_bug_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import dyninfer.cli.info

    def broken(_path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(dyninfer.cli.info, "print_bundle", broken)
    status, _, err = run(capsys, "info", str(tmp_path))
    assert status == 1
    assert err == "error: internal error, ZeroDivisionError: division by zero\n"


def test_an_interruption_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dyninfer.cli.info.print_bundle", interrupted)
    status, _, err = run(capsys, "info", str(tmp_path))
    assert (status, err) == (130, "interrupted\n")
