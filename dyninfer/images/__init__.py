"""Pictures in: reading, preparing, and drawing on them."""
