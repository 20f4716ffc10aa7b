"""The training loop against a hand-written torch loop of the same work, in turns within one process.

    python -m bench.loop

Prints JSON: milliseconds per step of both, and their ratio (median over the turns; 1 means that the loop costs nothing). The
model is a BERT of 2 layers, 128 wide: steps as short as those of a small model on a CPU, where a loop's cost shows most.
"""

from __future__ import annotations

import json
import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.support.by_hand import by_hand
from bench.support.turns import Texts, compare, make_job, ours


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        task = Texts(make_job(folder), layers=2, width=128)
        result = compare({"loop": ours(task), "by hand": by_hand(task)}, turns=60, steps=5)
    print(json.dumps({"benchmark": "loop", **result}, indent=1), flush=True)
    os._exit(0)  # the loop's thread is held in the middle of a step


if __name__ == "__main__":
    main()
