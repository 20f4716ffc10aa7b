"""What the person who runs the operator may choose. Pure."""
