"""A search on disk: where it was, so that it goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dyninfer.bundle.documents import Frozen, first_problem, parse_json
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import ConfigError
from dyninfer.files import read_file
from dyninfer.foreign_errors import let_through
from dyninfer.plain_text import some
from dyninfer.search.budgets import Candidate
from dyninfer.search.evolution import POPULATION, Search, Settings
from dyninfer.search.score import score_of
from dyninfer.search.structure import Block, Structure, checked

_LARGEST = 32 << 20  # bytes; a state has about 200,000
_Word = Annotated[int, Field(ge=0, lt=1 << 32)]
_Number = Annotated[int, Field(ge=0, le=1 << 16)]
_Row = tuple[_Number, _Number, _Number, _Number, _Number, _Number, _Number]  # a block's fields
_Rows = tuple[_Row, ...]


class _State(Frozen):
    """The document. ``random`` is the state of Python's generator."""

    kind: Literal["dyninfer search"] = "dyninfer search"
    settings: dict[str, Any]
    evaluations: Annotated[int, Field(ge=0)]
    random: Annotated[tuple[_Word, ...], Field(min_length=625, max_length=625)]
    population: Annotated[tuple[_Rows, ...], Field(min_length=1, max_length=POPULATION)]
    front: Annotated[tuple[_Rows, ...], Field(min_length=1)]


def save(search: Search, path: Path) -> None:
    """Write a search down; a reader sees this state or the one before it.

    Raises:
        OSError: the file cannot be written.
    """
    _, words, _ = search.rng.getstate()
    state = _State(
        settings=_told(search.settings),
        evaluations=search.evaluations,
        random=words,
        population=tuple(_rows(each.structure) for each in search.population),
        front=tuple(_rows(each.structure) for each in search.front),
    )
    write_atomically(path, state.model_dump_json() + "\n")


def resume(path: Path, settings: Settings) -> Search:
    """The search that a file was written of, to go on with the same settings.

    Raises:
        ConfigError: the file cannot be read, is no such state, or one of other settings.
    """
    try:
        state = _State.model_validate(parse_json(read_file(path, _LARGEST)))
        population = [checked(Block(*row) for row in rows) for rows in state.population]
        front = [checked(Block(*row) for row in rows) for rows in state.front]
    except ValidationError as error:
        raise ConfigError(f"{path} is no state of a search: {first_problem(error)}") from None
    except (OSError, ValueError, ConfigError) as error:
        let_through(error)
        raise ConfigError(f"{path} is no state of a search that can be read: {error}") from None
    told = _told(settings)
    if differing := [name for name in told if state.settings.get(name) != told[name]]:
        raise ConfigError(
            f"{path} is of a search with another {some(differing)}; take its settings to go on, "
            "another output to search beside it, or overwrite it"
        )
    search = Search(settings)
    search.evaluations = state.evaluations
    search.rng.setstate((3, state.random, None))
    search.restore(_candidates(search, population), _candidates(search, front))
    return search


def _candidates(search: Search, structures: list[Structure]) -> list[Candidate]:
    return [
        Candidate(each, score_of(each), *search.settings.measure.of(each)) for each in structures
    ]


def _told(settings: Settings) -> dict[str, Any]:
    """All that two searches must have in common, by names that a user knows, as JSON has it."""
    budgets, measure = settings.budgets, settings.measure
    return {
        "seed": settings.seed,
        "budget of flops": budgets.flops,
        "budget of parameters": budgets.parameters,
        "budget of latency": budgets.latency_ms,
        "budget of layers": budgets.layers,
        "image size": list(measure.image_size),
        "device table": None if measure.table is None else measure.table.sha256,
        "start network": [list(row) for row in _rows(settings.start)],
        "number of coarse evaluations": settings.fine_after,
    }


def _rows(structure: Structure) -> _Rows:
    return tuple(
        (b.inputs, b.outputs, b.kernel, b.stride, b.depth, b.width, b.groups)
        for b in structure.blocks
    )
