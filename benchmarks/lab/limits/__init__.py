"""The project's own speed limits, each measured against what it is compared with."""
