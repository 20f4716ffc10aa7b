"""Where models and data come from: nothing is read from outside of a source, and nothing that only stands for a file."""
