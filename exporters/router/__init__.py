"""A router for a frozen cascade: what it reads, what it learns from, and how it is written."""
