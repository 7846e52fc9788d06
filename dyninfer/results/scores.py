"""How good answers are against what is known of the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Scores:
    """Two scores in [0, 1], by the names in ``metrics`` of the task: AP and AP50, top-1 and top-5.

    None where nothing is known of the images, or there is nothing to find in any.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    primary: _Share | None = None
    secondary: _Share | None = None
