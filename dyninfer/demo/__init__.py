"""The embedded model, its scenes, and the pages that show what it does."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
EMBEDDED_CHECKPOINT = ASSETS / "dy-digits.pt"
