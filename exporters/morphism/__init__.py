"""Detectors of another architecture that inherit their parents' weights."""
