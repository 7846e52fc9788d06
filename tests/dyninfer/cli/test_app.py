from __future__ import annotations

from pathlib import Path

import pytest

import dyninfer
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
