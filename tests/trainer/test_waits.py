"""How long PyTorch's threads wait for work: set before torch is imported, in each process that the trainer begins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None")],
)
def test_threads_wait_shortly_unless_somebody_says_otherwise(given, expected):
    asked = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    seen = "import unfreeze_trainer, os, sys; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", seen], env=asked | given, text=True)
    assert said.split() == [expected, "False"]
