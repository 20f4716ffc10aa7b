"""Benchmarks: what our own code costs beside the work that has to be done, as ratios within one run."""
