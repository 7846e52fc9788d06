"""Options in groups: a command takes a dataclass where typer wants a parameter for each option."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

from dyninfer.cli.common import ProviderOption
from dyninfer.runtime.engine_choice import EngineChoice


@dataclass(frozen=True)
class EngineOptions(EngineChoice):
    """Of every command that opens a bundle with any engines."""

    device: Annotated[
        str | None,
        typer.Option(help="cpu, or cuda:0 for the first GPU; the backend's own if absent."),
    ] = None
    backend: Annotated[
        str | None,
        typer.Option(help="onnxruntime, tensorrt or tensorrt-rtx; the first if absent."),
    ] = None
    provider: ProviderOption = None
    precision: Annotated[
        str | None,
        typer.Option(
            help="fp16, int8, or for each stage first=int8,second=fp16: what **dyninfer build** "
            "made."
        ),
    ] = None


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of its groups.

    In place of every parameter that is a dataclass, typer sees the dataclass's fields, with the
    types, help texts and defaults that are written there; the command gets them as one object.
    """
    signature = inspect.signature(command, eval_str=True)
    declared = signature.parameters.values()
    types = {p.name: p.annotation for p in declared if isinstance(p.annotation, type)}
    groups = {name: found for name, found in types.items() if is_dataclass(found)}
    shown: list[inspect.Parameter] = []
    for parameter in declared:
        shown += (
            _options_of(groups[parameter.name])
            if parameter.name in groups
            else [_by_name(parameter)]
        )

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **made)

    # typer reads both; neither can be declared for options that come from elsewhere
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return run


def _by_name(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]
