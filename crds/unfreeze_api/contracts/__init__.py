"""What operator, agents and workers say to each other and to people, on the wire and on disk."""
