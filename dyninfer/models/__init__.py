"""Models that ship with the package, packed: ``dyninfer.bundle.shipped`` opens them by name."""
