"""What to do and what to say about a job. Pure."""
