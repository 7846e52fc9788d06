"""The project's own speed targets, each measured against what it is compared with."""
