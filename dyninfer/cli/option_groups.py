"""Options of a command that belong together, as the fields of one frozen dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
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
    """Give a command, in place of every parameter that is a dataclass, the dataclass's fields.

    A field is declared as an option of the command would be, for example
    ``batch: Annotated[str, typer.Option("--batch")] = "1:4:16"``.
    """
    own = inspect.signature(command, eval_str=True).parameters
    groups: dict[str, Any] = {
        name: p.annotation for name, p in own.items() if is_dataclass(p.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in own.items():
        by_name = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += _options(groups[name]) if name in groups else [by_name]

    @functools.wraps(command)
    def spread(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    # typer reads both; neither can be written down for options that stand elsewhere
    spread.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    spread.__annotations__ = {p.name: p.annotation for p in parameters}
    return spread


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
