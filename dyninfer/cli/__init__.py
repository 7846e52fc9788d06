"""The ``dyninfer`` command."""

from __future__ import annotations

from dyninfer.cli.app import main

__all__ = ["main"]
