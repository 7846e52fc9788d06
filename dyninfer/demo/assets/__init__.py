"""Files that ship with the package: the embedded model and a few photographs."""
