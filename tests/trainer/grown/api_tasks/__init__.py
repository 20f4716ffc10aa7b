"""Lies in a room of the package, once `grow` has been called."""
