"""How the embedded model was made: run from the root of the repository, never installed."""
