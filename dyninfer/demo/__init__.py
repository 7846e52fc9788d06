"""The embedded model, its scenes, and the pages that show what it does."""
