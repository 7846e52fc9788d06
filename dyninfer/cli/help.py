"""Help texts: plain lines in which no word is broken and nothing is cut, at any width."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from typer.core import TyperCommand, TyperGroup

from dyninfer.benchmarks.report.terminal import Terminal, styled

_WIDEST = 100
_NAMES = 26  # columns for names, where what belongs to them stands beside
_NARROW = 60  # columns; below, it stands under them
_NO_BREAK = "\N{NO-BREAK SPACE}"
_KINDS = {Path: "PATH", int: "N", float: "NUMBER", str: "TEXT"}


class Command(TyperCommand):
    """A command that shows its help so."""

    def format_help(self, ctx: Any, _formatter: Any) -> None:
        """Print the help."""
        show_help(self, ctx)

    def get_usage(self, ctx: Any) -> str:
        """One line."""
        return usage_of(self, ctx)


class Group(TyperGroup):
    """A group of commands that shows its help so.

    ``first`` is the command that is listed before the others, ``aliases`` are names that people
    type for a command of it.
    """

    first = ""
    aliases: Mapping[str, str] = {}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Also by its other names."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of use."""
        return sorted(super().list_commands(ctx), key=lambda name: name != self.first)

    def format_help(self, ctx: Any, _formatter: Any) -> None:
        """Print the help."""
        show_help(self, ctx)

    def get_usage(self, ctx: Any) -> str:
        """One line."""
        return usage_of(self, ctx)


def usage_of(command: Any, ctx: Any) -> str:
    """How a command is called."""
    arguments = [_argument(p) for p in command.params if p.param_type_name == "argument"]
    if hasattr(command, "commands"):
        arguments.append("COMMAND ...")
    return " ".join(["Usage:", ctx.command_path, "[OPTIONS]", *arguments])


def show_help(command: Any, ctx: Any) -> None:
    """Print what a command does, its arguments, options and commands."""
    terminal = Terminal()
    width = min(terminal.width, _WIDEST)
    for line in _help_lines(command, ctx, width):
        is_title = line.endswith(":") and not line.startswith(" ")
        terminal.print(styled((line, "bold") if is_title else line))


def _help_lines(command: Any, ctx: Any, width: int) -> Iterator[str]:
    yield from _wrapped(usage_of(command, ctx), width, 4)
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield ""
        example = paragraph.partition("Example: ")[2]
        yield from _example(example, width) if example else _wrapped(paragraph, width)
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
    declared = _declared(command)
    for param in command.params:
        kind, info = declared.get(param.name, (None, None))
        if getattr(param, "hidden", False):
            continue
        if param.param_type_name == "argument":
            row = (param.metavar or param.name.upper(), param.help or "")
            sections.setdefault("Arguments", []).append(row)
        else:
            panel = getattr(param, "rich_help_panel", None) or "Options"
            sections.setdefault(panel, []).append(_option(param, kind, info))
    names = ", ".join(ctx.help_option_names)
    sections.setdefault("Options", []).append((names, "Show this help and exit."))
    for name in command.list_commands(ctx) if hasattr(command, "commands") else ():
        found = command.commands[name]
        if not found.hidden:
            about = inspect.cleandoc(found.help or "").split("\n\n")[0]
            sections.setdefault("Commands", []).append((name, about))
    for title, rows in sections.items():
        if not rows:
            continue
        yield ""
        yield from _wrapped(f"{title}:", width)
        yield from _rows(rows, width)


def _rows(rows: list[tuple[str, str]], width: int) -> Iterator[str]:
    column = min(_NAMES, max(len(names) for names, _ in rows)) + 4
    for names, about in rows:
        if width < _NARROW or len(names) + 4 > column:
            indent = 6 if width < _NARROW else column
            yield from _wrapped(names, width, indent, "  ")
            yield from _wrapped(about, width, indent, " " * indent)
        else:
            yield from _wrapped(about, width, column, f"  {names:<{column - 2}}")


def _wrapped(text: str, width: int, indent: int = 0, start: str = "") -> list[str]:
    """Lines of a paragraph; ``start`` begins the first, ``indent`` spaces the others."""
    wrapper = textwrap.TextWrapper(
        width,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = wrapper.wrap(text.replace("**", "")) or [start.rstrip()]
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _example(command: str, width: int) -> list[str]:
    """A command that can be copied, also where it has several lines."""
    *lines, last = _wrapped(command, width - 2, 6, "    ")
    return ["Example:", *(f"{line} \\" for line in lines), last]


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    return name if param.required or name.startswith("[") else f"[{name}]"


def _option(param: Any, kind: Any, info: Any) -> tuple[str, str]:
    """Names with what they take, and the help with range and default."""
    short = [name for name in param.opts if not name.startswith("--")]
    long = [name for name in param.opts if name.startswith("--")]
    names = ", ".join(short + long + list(param.secondary_opts))
    about, takes = (param.help or "").strip(), param.metavar or _takes(kind)
    if not param.is_flag and takes.count("|") > 3:
        about, takes = f"{about} One of {takes.replace('|', ', ')}.", "NAME"
    if not param.is_flag:
        names += f" {takes}"
    notes = []
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    if low is not None and high is not None:
        notes.append(f"{low:g} to {high:g}")
    default = param.default
    if param.secondary_opts and param.show_default:
        notes.append(f"default: {(param.opts if default else param.secondary_opts)[0]}")
    elif param.show_default and not param.is_flag and default not in (None, (), []):
        shown = default.value if isinstance(default, Enum) else default
        notes.append(f"default: {shown}")
    if param.required:
        notes.append("required")
    note = f"({'; '.join(notes)})".replace(" ", _NO_BREAK)
    return names, f"{about} {note}" if notes else about


def _takes(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return _KINDS.get(kind, "TEXT")


def _declared(command: Any) -> dict[str, tuple[Any, Any]]:
    """Type and typer's description of each parameter, as the command's function has them."""
    if command.callback is None:
        return {}
    found = {}
    for name, parameter in inspect.signature(command.callback, eval_str=True).parameters.items():
        kind, info = parameter.annotation, None
        if get_origin(kind) is Annotated:
            kind, info = get_args(kind)[:2]
        while choices := [choice for choice in get_args(kind) if choice is not NoneType]:
            kind = choices[0]  # of ``list[Path] | None`` a path
        found[name] = (kind, info)
    return found
