"""What a finished run leaves for others: exports and report.json."""
