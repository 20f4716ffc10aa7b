"""What a step of each engine costs on two workers, against loops by hand and transformers.Trainer in the same processes.

    python -m bench.engines [ENGINE ...]

Prints JSON. `by hand` is a loop of the same engine, which says what ours adds to it, and one of DDP, which says what sharing
costs. The model is a BERT of 4 layers, 256 wide; two workers share this machine's processors and talk over gloo, so
that collectives cost more beside a step's computation than they would between accelerators. `guard` is what the guard's look
at all weights takes, in steps: a phase has one at its begin and mostly one after its second step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.support.by_hand import by_hand
from bench.support.turns import Texts, compare, make_job, make_run, steps_of, transformers_trainer
from unfreeze_trainer.training.guard import Guard

WORKERS = 2
ENGINES: dict[str, dict[str, Any]] = {
    "DDP": {"engine": "DDP"},
    "FSDP": {"engine": "FSDP"},
    "ZeRO-1": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 1}},
    "ZeRO-2": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 2}},
    "ZeRO-3": {"engine": "DeepSpeed", "deepSpeed": {"zeroStage": 3}},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "FullFineTuning": {"strategy": {"type": "FullFineTuning"}},
    "LoRA": {"strategy": {"type": "FullFineTuning"}, "adapter": {"type": "LoRA"}},
    "FeatureExtraction": {"strategy": {"type": "FeatureExtraction"}},
}


def work(engine: str, strategy: str, folder: str) -> None:
    """Be one worker: measure, and write the result on rank 0."""
    task = Texts(make_job(folder, distribution=ENGINES[engine], **STRATEGIES[strategy]), layers=4, width=256)
    run = make_run(task)
    loop = steps_of(run)
    next(loop)  # joins the process group
    contenders = {"loop": loop, f"by hand, {engine}": by_hand(task, engine), "by hand, DDP": by_hand(task)}
    contenders |= {"Trainer, DDP": transformers_trainer(task)}
    result = compare(contenders, turns=12, steps=3)
    guard = Guard(run.engine, "bench", (), 10**6)
    result["guard"] = round(_milliseconds(lambda: guard.check(final=False)) / result["ms_per_step"]["loop"], 4)
    if os.environ["RANK"] == "0":
        Path(folder, "result.json").write_text(json.dumps(result))
    os._exit(0)  # the loop's thread is held in the middle of a step


def _milliseconds(look: Callable[[], object]) -> float:
    look()
    began = time.perf_counter()
    for _ in range(20):
        look()
    return (time.perf_counter() - began) * 1000 / 20


def main() -> None:
    """Measure and print."""
    results: dict[str, Any] = {"benchmark": "engines", "workers": WORKERS}
    for engine in sys.argv[1:] or ENGINES:
        for strategy in STRATEGIES:
            with tempfile.TemporaryDirectory() as folder:
                torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORKERS)]
                command = [sys.executable, *torchrun, "--module", "bench.engines", "--worker", engine, strategy, folder]
                done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
                if done.returncode:
                    sys.exit(done.stderr)
                results[f"{engine}, {strategy}"] = json.loads(Path(folder, "result.json").read_text())
    print(json.dumps(results, indent=1), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
