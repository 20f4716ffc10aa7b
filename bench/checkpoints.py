"""What a checkpoint costs the training: written in the background, as runs do, against a loop that waits for it.

    python -m bench.checkpoints

Prints JSON. A turn is some steps, with a checkpoint at their start or without; what a checkpoint costs is the difference,
which has everything in it: the copy that the loop waits for, and the steps that are slower while a thread writes. The share
of the run is that of a checkpoint every 500 steps, which is the default. The model is a BERT of 6 layers, 384 wide, all of it
trained: weights and two moments of 11 million parameters. Its steps are short; larger batches make the share smaller.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch

from bench.support.turns import Texts, make_job, make_run, steps_of
from unfreeze_trainer.training.run import Run

STEPS, TURNS, INTERVAL = 15, 9, 500
KINDS = ("none", "asynchronous", "blocking")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Texts(make_job(folder), layers=6, width=384))
        print(json.dumps({"benchmark": "checkpoints", **measure(run, steps_of(run))}, indent=1), flush=True)
    os._exit(0)  # the loop's thread is held in the middle of a step


def measure(run: Run, steps: Iterator[None]) -> dict[str, object]:
    """Take the kinds' turns in an order that rotates; return medians over the turns."""
    for _ in range(STEPS):
        next(steps)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    stalls: dict[str, list[float]] = {kind: [] for kind in KINDS[1:]}
    for turn in range(TURNS):
        for kind in KINDS[turn % 3 :] + KINDS[: turn % 3]:
            began = time.perf_counter()
            if kind != "none":
                run.milestones.save()
                if kind == "blocking":
                    run.saver.wait()
                stalls[kind].append(time.perf_counter() - began)
            for _ in range(STEPS):
                next(steps)
            seconds[kind].append(time.perf_counter() - began)
            run.saver.wait()
    step = statistics.median(seconds["none"]) / STEPS
    costs = {
        kind: statistics.median(with_ - without for with_, without in zip(seconds[kind], seconds["none"], strict=True))
        for kind in stalls
    }
    assert run.saver.newest is not None
    files = run.folder.checkpoints.path(run.saver.newest.step).iterdir()
    return {
        "checkpoint_megabytes": round(sum(file.stat().st_size for file in files) / 1e6, 1),
        "ms_per_step": round(1000 * step, 1),
        "stall_ms": {kind: round(1000 * statistics.median(values), 1) for kind, values in stalls.items()},
        "cost_ms": {kind: round(1000 * cost, 1) for kind, cost in costs.items()},
        "stall_percent": {
            kind: round(100 * statistics.median(values) / (INTERVAL * step), 3) for kind, values in stalls.items()
        },
        "cost_percent": {kind: round(100 * cost / (INTERVAL * step), 3) for kind, cost in costs.items()},
    }


if __name__ == "__main__":
    main()
