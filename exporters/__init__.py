"""Exporters: a folder for each model family. Only here and in benchmarks is torch imported."""
