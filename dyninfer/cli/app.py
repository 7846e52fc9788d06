"""The command line as a whole: its commands, its errors, its exit status.

Status 0 is success, 2 wrong usage, 1 a failure with one line on stderr; 130 after Ctrl-C, and 141
where the reader of stdout has gone, as shells report SIGINT and SIGPIPE. Heavy imports stay
inside the commands, so that ``dyninfer --help`` answers at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Annotated, Any, NoReturn

import cv2
import typer

import dyninfer
from dyninfer import foreign_errors
from dyninfer.benchmarks.report.terminal import never_fail_to_print
from dyninfer.cli.bench import bench
from dyninfer.cli.build import build
from dyninfer.cli.calibrate import calibrate
from dyninfer.cli.common import stderr, stdout
from dyninfer.cli.compound_scale import compound_scale
from dyninfer.cli.demo import demo
from dyninfer.cli.evaluate import evaluate
from dyninfer.cli.export import export_app
from dyninfer.cli.fit_router import fit_router
from dyninfer.cli.habits import assigned, command_elsewhere, renamed
from dyninfer.cli.help import Command, Group
from dyninfer.cli.info import info
from dyninfer.cli.models import models
from dyninfer.cli.predict import predict
from dyninfer.cli.search import search_app
from dyninfer.cli.search_backbone import backbone
from dyninfer.cli.sign import sign
from dyninfer.cli.signals import ending_signals
from dyninfer.cli.slim import slim
from dyninfer.cli.verify import verify
from dyninfer.errors import DyninferError
from dyninfer.plain_text import one_line

DEBUG_FLAG = "--debug"
INTERRUPTED = 130  # as shells report a process that SIGINT ended
READER_GONE = 141  # or that SIGPIPE did, which Python ignores, as in `| head`
WRONG_USAGE = 2
_UsageError: Any = typer.BadParameter.__base__  # click's, or typer's own copy, which has no name


class _Commands(Group):
    """All commands, by what other tools call them, too."""

    first = "export"  # typer puts groups after commands
    aliases: Mapping[str, str] = {
        "detect": "predict",
        "run": "predict",
        "infer": "predict",
        "inference": "predict",
        "benchmark": "bench",
        "evaluate": "eval",
        "val": "eval",
        "validate": "eval",
        "test": "eval",
        "fit": "fit-router",
        "train-router": "fit-router",
        "convert": "export",
        "compile": "build",
        "quantize": "build",
        "quantise": "build",
        "show": "info",
        "inspect": "info",
    }


app = typer.Typer(
    name="dyninfer",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _add(command: Callable[..., None], name: str | None = None, *, needs: bool = True) -> None:
    """Add a command in the order of use; one that needs arguments shows its help without any."""
    app.command(name, cls=Command, no_args_is_help=needs)(command)


app.add_typer(export_app, name="export")
app.add_typer(search_app, name="search")
search_app.command(cls=Command, no_args_is_help=True)(backbone)
_add(verify)
_add(fit_router, "fit-router")
_add(calibrate)
_add(predict)
_add(evaluate, "eval")
_add(build)
_add(bench)
_add(info)
_add(sign)
_add(compound_scale, "compound-scale")
_add(models, needs=False)
_add(demo, needs=False)
_add(slim)


def _print_version(asked: bool) -> None:
    if asked:
        stdout.print(f"dyninfer {dyninfer.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG_FLAG, help="Show the whole traceback when something fails.")
    ] = False,
) -> None:
    """Run object detectors that spend little on easy images and much on hard ones.

    Start with **dyninfer predict everyday photos/**, or export a checkpoint of your own:
    **dyninfer export dynamicdet dy-yolov7.pt -o dy-yolov7.dyn**
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = DEBUG_FLAG in arguments
    never_fail_to_print()
    decoder_log = cv2.utils.logging  # what cannot be decoded is reported by us, in one line
    decoder_log.setLogLevel(decoder_log.LOG_LEVEL_SILENT)
    foreign_errors.libraries_keep_quiet = True
    arguments = [argument for argument in arguments if argument != DEBUG_FLAG]
    if debug:
        sys.excepthook = _show_traceback
    try:
        _run(arguments)
    except _UsageError as error:
        _show_wrong_usage(error)
        raise SystemExit(WRONG_USAGE) from None
    except DyninferError as error:
        _fail(str(error), debug, error)
    except BrokenPipeError:
        _end_without_reader()
    except OSError as error:  # a full disk, a folder that is a file, a missing permission
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", debug, error)
    except Exception as error:  # a bug: still one line, and how to see more
        reason = str(error).splitlines()[0] if str(error) else "no message"
        _fail(f"internal error, {type(error).__name__}: {reason}", debug, error)


def _run(arguments: list[str]) -> NoReturn:
    if arguments[:1] == ["version"]:
        arguments = ["--version"]
    elif arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    if wrong := assigned(arguments):
        raise _UsageError(wrong)
    with ending_signals() as came:
        # in its own mode typer would show what was typed as it is, escape sequences among it
        try:
            status = app(arguments, prog_name="dyninfer", obj=arguments, standalone_mode=False)
            sys.stdout.flush()  # or the reader would be missed when nobody can say so any more
        except SystemExit as ended:
            if isinstance(ended.__context__, BrokenPipeError):  # which typer turns into 1
                raise ended.__context__ from None
            raise
        if status == INTERRUPTED:  # typer turns Ctrl-C into this status, without a word
            stderr.print("terminated" if came else "interrupted")
        # as shells report it
        raise SystemExit(128 + came[0] if came and status == INTERRUPTED else status)


def _end_without_reader() -> NoReturn:
    """End without a word; what is left to be written goes nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stdout that has no number, or none at all
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    raise SystemExit(READER_GONE) from None


def _show_wrong_usage(error: Any) -> None:
    """What is wrong with the arguments; nothing where the help was shown for want of any."""
    message = one_line(_with_value(error))
    if not message:
        return
    if command := re.match(r"No such command '([\w-]+)'", message):
        elsewhere = command_elsewhere(command[1])
        message = f"{command[0]}; {elsewhere}" if elsewhere else message
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        instead = renamed(error.option_name, error.ctx)
        message = f"No such option: {error.option_name}; {instead}" if instead else message
    if extra := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        message = f"unexpected: {extra[1]}"
        if error.ctx is not None and any("--images" in p.opts for p in error.ctx.command.params):
            message += "; pictures go after --images"
    if error.ctx is not None:
        for line in error.ctx.get_usage().splitlines():
            stderr.print(line)
        stderr.print(f"Try '{error.ctx.command_path} --help' for help.")
    stderr.print(f"error: {message}")


def _with_value(error: Any) -> str:
    """The message; where it is pydantic's, which typer asks, with what was received."""
    message: str = error.format_message().replace("Value error, ", "")
    if hasattr(error.__cause__, "errors"):
        received = f"{error.__cause__.errors()[0]['input']!r} given, expected "
        return message.replace("Input should be ", received).partition(", unable to parse")[0]
    return message


def _show_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A traceback as Python shows it, but plain: causes quote files, too."""
    for part in traceback.format_exception(kind, error, trace):
        for line in part.splitlines():
            stderr.print(line)


def _fail(message: str, debug: bool, error: Exception) -> NoReturn:
    if debug:
        raise error
    stderr.print(f"error: {one_line(message)}")
    raise SystemExit(1) from None
