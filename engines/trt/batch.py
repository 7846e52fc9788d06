"""The batch sizes that an engine takes."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from dyninfer.bundle.documents import Frozen
from dyninfer.errors import InputError


class BatchProfile(Frozen):
    """The least, the usual and the greatest batch of an engine."""

    minimum: Annotated[int, Field(ge=1)]
    optimum: Annotated[int, Field(ge=1)]
    maximum: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _rising(self) -> BatchProfile:
        if not self.minimum <= self.optimum <= self.maximum:
            raise ValueError(f"batch {self} does not rise")
        return self

    @classmethod
    def parse(cls, text: str) -> BatchProfile:
        """``1:4:16`` -> least, usual, greatest; ``4`` -> always 4.

        Raises:
            InputError: it is neither, or does not rise.
        """
        match = re.fullmatch(r"(\d+)(?::(\d+):(\d+))?", text.strip())
        numbers = [int(number) for number in match.groups() if number] if match else []
        low, usual, high = numbers if len(numbers) == 3 else (numbers or [0]) * 3
        if not 1 <= low <= usual <= high:
            raise InputError(
                f"batch is {text!r}, expected MIN:OPT:MAX from 1 up and rising, such as 1:4:16"
            )
        return cls(minimum=low, optimum=usual, maximum=high)

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"
