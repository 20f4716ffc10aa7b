"""What a user may write: a file for each member of the spec."""
