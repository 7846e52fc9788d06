"""Feeds dyninfer what it was never meant to read, and says what it did with it.

``python -m tests.fuzz`` runs a campaign, see ``--help``. Inputs are files in a folder, made from a
seed and a number, so that one can be made again; each is fed in a worker process, which may crash.
"""
