"""``dyninfer demo``: everything on the embedded model."""

from __future__ import annotations


def demo() -> None:
    """Export."""
