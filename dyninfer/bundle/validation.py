"""Documents that must be as described: their models, and what pydantic finds wrong in one line."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    """An immutable part of a document, in which nothing else may stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_problem(error: ValidationError) -> str:
    """The first of the problems, with its place in the document where it has one.

    For example ``stages.head.macs: Input should be greater than or equal to 0``.
    """
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
