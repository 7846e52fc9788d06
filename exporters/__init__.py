"""Exporters: one module per model family. Only here (and in benchmarks) is torch imported."""
