"""Students of a detector: searched for, taught by sub-networks of its own, timed as exported."""
