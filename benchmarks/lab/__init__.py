"""The project's own laboratory: not installed, run from a checkout."""
