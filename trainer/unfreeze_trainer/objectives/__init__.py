"""What is learned: targets, loss, metrics. Knows no file and no model."""
