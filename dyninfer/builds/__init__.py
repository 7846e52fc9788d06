"""Engines made from a bundle: which exist, which fit, which to make."""
