"""What a bundle is compared with: the same work done in other ways, run in turns with it."""
