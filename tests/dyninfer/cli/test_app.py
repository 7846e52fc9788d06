from __future__ import annotations

import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import dyninfer
from dyninfer.cli.app import app
from dyninfer.cli.habits import _HABITS, _NOT_HERE
from tests import support
from tests.dyninfer.cli.run import run, write_picture


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys)
    assert status == 2
    assert "export" in out + err
    assert "predict" in out + err


COMMANDS = ["export", "verify", "fit-router", "calibrate", "predict", "eval", "build", "bench"]
COMMANDS += ["info", "sign", "compound-scale", "models", "demo", "slim", "search"]


@pytest.mark.parametrize(
    "command",
    [
        *([], *([name] for name in COMMANDS)),
        *(
            ["export", family]
            for family in (*("dynamicdet", "cascade", "efficientdet", "drnet", "zendet", "detnas"),)
        ),
    ],
)
def test_every_command_has_help_with_an_example_that_breaks_no_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    texts = {}
    for columns in (200, 80, 40):
        monkeypatch.setenv("COLUMNS", str(columns))
        status, texts[columns], _ = run(capsys, *command, "--help")
        assert status == 0
        words = texts[columns].replace(" \\\n", "\n").split()
        assert words == texts[200].replace(" \\\n", "\n").split()
        assert "dyninfer " + " ".join(command[:1]) in " ".join(words)
        assert not set("…<╭") & set(texts[columns])
        assert "**" not in texts[columns]
    assert max(map(len, texts[80].splitlines())) <= 80
    long = [line.split() for line in texts[40].splitlines() if len(line) > 40]
    assert all(len(words) == 1 for words in long), long  # one that is longer than a line


def test_commands_stand_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--help")
    listed = [
        line.split()[0]
        for line in out.split("Commands:\n")[1].splitlines()
        if line[2:].strip() and line[2] != " "
    ]
    assert listed == COMMANDS


def test_an_example_of_several_lines_can_be_copied(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = run(capsys, "predict", "--help")
    example = out.split("Example:\n")[1].split("\n\n")[0]
    assert example.count(" \\\n") == example.count("\n") > 0
    assert shlex.split(example.replace("\\\n", " ")) == shlex.split(
        'dyninfer predict dy-yolov7.dyn photos/ "more/*.jpg" --speed 30%'
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("detect", "predict"),
        ("benchmark", "bench"),
        ("evaluate", "eval"),
        ("test", "eval"),
        ("convert", "export"),
        ("quantize", "build"),
        ("fit", "fit-router"),
    ],
)
def test_other_names_of_commands_are_understood(
    capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    _, expected, _ = run(capsys, meant, "--help")
    assert run(capsys, typed, "--help")[1] == expected.replace(
        f"dyninfer {meant} [", f"dyninfer {typed} ["
    )
    assert run(capsys, "help", meant)[1] == expected


def test_the_version_and_help_as_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "version") == run(capsys, "--version")
    assert run(capsys, "help") == run(capsys, "--help")


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
        ("predict x.dyn --iou_thres 0.5", "--iou"),
        ("calibrate x.dyn --conf_thres 0.5", "--confidence"),
        ("info x.dyn --format json", "--json"),
        ("predict x.dyn photos --classes 0", "choose by class_name in the results"),
        ("predict x.dyn photos --max-det 5", "options=dyninfer.Postprocess(max_detections=N))"),
        ("predict x.dyn p --max_detections 5", "options=dyninfer.Postprocess(max_detections=N))"),
        ("predict x.dyn photos --save-txt", "annotated pictures, in any case"),
        ("predict x.dyn photos --show", "annotated pictures, in any case"),
        ("predict x.dyn photos --save-json", "--json"),
        ("predict x.dyn photos --verbose", "--debug a whole traceback"),
        ("predict x.dyn photos --imgsz 320", "export anew with --image-size"),
        ("export onnx x.onnx --batch 4", "a bundle takes any number of pictures at once"),
        ("export onnx x.onnx --half", "build takes --precision fp16"),
        ("export onnx x.onnx --int8", "build takes --precision int8"),
        ("eval x.dyn --weights x.pt", "dyninfer eval BUNDLE"),
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


@pytest.mark.parametrize(
    ("line", "received"),
    [
        ("predict x.dyn photos --confidence 30%", "'30%'"),
        ("predict x.dyn photos --iou nan", "'nan'"),
        ("predict x.dyn photos --batch 0", "'0'"),
        ("build x.dyn --backend trt", "'trt'"),
        ("fit-router x.dyn --images photos --metric ap75", "'ap75'"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_received(
    capsys: pytest.CaptureFixture[str], line: str, received: str
) -> None:
    status, _, err = run(capsys, *line.split())
    message = " ".join(err.split()).partition("error: Invalid value for ")[2]
    assert status == 2
    assert f": {received} " in message
    assert "Value error" not in message
    assert "unable to parse" not in message


def test_every_option_that_is_recommended_exists_in_that_command() -> None:
    """The words for commands that lack an option name the commands that have it."""
    commands = typer.main.get_command(app).commands
    assert not commands.keys() & _NOT_HERE.keys()
    assert "max_detections" in {field.name for field in dataclasses.fields(dyninfer.Postprocess)}
    for said in [*(habit.elsewhere for habit in set(_HABITS.values())), *_NOT_HERE.values()]:
        named = [word.strip(",;()") for word in said.split()]
        options = [word for word in named if word.startswith("--")]
        for name in commands.keys() & set(named) - {"export"}:
            has = {opt for parameter in commands[name].params for opt in parameter.opts}
            assert not options or has & set(options), (name, options)


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("train", "fit-router fits a router to a cascade"),
        ("compare", "bench --compare OLD.json NEW.json"),
        ("track", "predict finds objects in pictures"),
        ("-v", "dyninfer --version shows the version"),
    ],
)
def test_what_other_tools_have_is_answered_with_what_is_here(
    capsys: pytest.CaptureFixture[str], typed: str, instead: str
) -> None:
    status, _, err = run(capsys, typed)
    assert status == 2
    assert instead in err
    assert run(capsys, "trian")[2].rstrip().endswith("No such command 'trian'.")


def test_pictures_without_their_option_are_told_where_they_go(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for command in ("verify", "build"):
        status, _, err = run(capsys, command, "x.dyn", "photos", "more photos")
        assert (status, "(s)" in err) == (2, False)
        assert err.rstrip().endswith("unexpected: photos more photos; pictures go after --images")
    assert run(capsys, "info", "x.dyn", "y.dyn")[2].rstrip().endswith("error: unexpected: y.dyn")


def test_options_written_with_an_equals_sign_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for line in ("detect predict model=yolov8n.pt source=bus.jpg", "export onnx format=onnx"):
        status, _, err = run(capsys, *line.split())
        assert status == 2
        first = next(word for word in line.split() if "=" in word)
        assert f"error: {first} is not how options are written here: give the file" in err
    monkeypatch.chdir(tmp_path)
    Path("conf=3.png").write_bytes(b"")
    assert "bundle" in run(capsys, "predict", "x.dyn", "conf=3.png")[2]


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


@pytest.mark.parametrize(
    "command",
    [["--help"], ["models"], ["info", "BUNDLE"], ["predict", "BUNDLE", "a.png", "--json"]],
    ids=lambda command: command[0],
)
def test_a_reader_that_has_gone_ends_it_without_a_word(command, tmp_path: Path) -> None:
    bundle = support.write_two_exits(tmp_path / "two.dyn")
    write_picture(tmp_path / "a.png", 40, 40)
    arguments = [str(bundle) if word == "BUNDLE" else word for word in command]
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "dyninfer", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        timeout=60,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")  # as shells report SIGPIPE
    if command[0] == "predict":  # what was written before it stays
        assert (tmp_path / "predictions/predictions.jsonl").read_bytes().count(b"\n") == 1
