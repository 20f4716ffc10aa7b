"""What a rank does between its start and the end of its last step."""
