"""The trainer: what runs in the pods of a FineTuneJob."""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    # PyTorch's OpenMP (libgomp) reads it once, as torch is imported. Its own 300,000 turns burn milliseconds after each operation, for which
    # the other threads of a step wait where a processor is not theirs alone (bench/neighbours.py).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
