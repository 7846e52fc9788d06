"""Changes that change no answer, with the reason: (module, the change) -> why nobody can notice."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {}
