"""A job and its children at a moment, and what is read from them. Pure."""
