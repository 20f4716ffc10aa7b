"""A task that lives in tests alone, ordinal regression of texts: one file for each room, and nothing else is touched."""
