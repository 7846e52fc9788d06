"""Writing and reading the record of a run of ``dyninfer bench``."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dyninfer.benchmarks.latency.record import SCHEMA_VERSION, BenchRecord
from dyninfer.bundle.documents import LARGEST_DOCUMENT, first_problem, parse_json
from dyninfer.bundle.unfinished import write_atomically
from dyninfer.errors import InputError
from dyninfer.files import read_file

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def write_record(record: BenchRecord, path: Path) -> None:
    """Write a record as JSON, in one step.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(path, json.dumps(asdict(record), indent=1) + "\n")


def read_record(path: Path) -> BenchRecord:
    """Read what :func:`write_record` wrote.

    Its text comes back without control characters, which a terminal would obey.

    Raises:
        InputError: the file is missing, comes from a later dyninfer, or is not such a record.
    """
    try:
        payload = _printable(parse_json(read_file(path, LARGEST_DOCUMENT)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # what follows the parser goes less deep
        raise _no_record(path, f"Invalid JSON: {error}") from None
    version = payload.get("schema_version") if isinstance(payload, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:  # whatever else is in it
        raise InputError(
            f"{path} has schema version {version}, this dyninfer reads up to {SCHEMA_VERSION}; "
            "read it with the dyninfer that wrote it, or a newer one"
        )
    if version == 1:
        raise InputError(f"{path} was made by an older dyninfer; measure again")
    try:
        record = TypeAdapter(BenchRecord).validate_python(payload)
    except ValidationError as error:
        raise _no_record(path, _printable(first_problem(error))) from None
    if problem := _misfit(record):
        raise _no_record(path, problem)
    return record


def _no_record(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} is not a record of dyninfer bench: {problem}; "
        "expected what dyninfer bench --output wrote"
    )


def _misfit(record: BenchRecord) -> str:
    """What does not go with the number of exits; empty where all does."""
    exits, pictures, ways = record.measured.exits, record.pictures, record.measured.ways
    left = {entry.exit_index for result in record.scenarios for entry in result.exits}
    if strange := sorted(left - set(range(exits))):
        return f"images left at exit {strange[0]}, and measured.exits is {exits}"
    routers = {len(sample.easiness) for sample in pictures.samples}
    if pictures.easiness:
        routers.add(len(pictures.easiness))
    if strange := sorted(routers - {exits - 1}):
        return f"there is an easiness by {strange[0]} routers, and measured.exits is {exits}"
    if len(ways) != exits:
        return f"there are {len(ways)} names of ways, and measured.exits is {exits}"
    return ""


def _printable(value: Any) -> Any:
    """The same JSON, with a space for each run of control characters in its text."""
    if isinstance(value, str):
        return _CONTROLS.sub(" ", value)
    if isinstance(value, list):
        return [_printable(entry) for entry in value]
    if isinstance(value, dict):
        return {_printable(key): _printable(entry) for key, entry in value.items()}
    return value
