"""What Auto's first two rungs cost, the classical model and the solved head, beside a start and one forward pass over the data.

    python -m bench.rungs [ROUNDS]

MiniLM on 1,000 of TREC's questions, a fifth of them held out, at most 64 tokens. Processor time of a worker, in one thread, from its process to the
choice: start (imports, model, data, the memory check), the classical model, the forward pass over training and validation samples, the
search of the head. Prints JSON, of ROUNDS (3) the median; `of_floor` is all of it by start and forward pass. Goal: 1.5.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.features import EXAMPLES, job_of
from examples.prepare import prepare
from unfreeze_api.apiserver.validate import load_job
from unfreeze_api.resolve import resolve

GOAL = 1.5


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if not (EXAMPLES / "models" / "minilm").is_dir():
        prepare(EXAMPLES)
    spec = {
        "model": {"source": f"file://{EXAMPLES}/models/minilm"},
        "task": {"type": "TextClassification", "textClassification": {"maxLength": 64}},
        "data": {
            "train": {"source": f"file://{EXAMPLES}/data/trec-train-1000.csv", "columns": {"text": "question"}},
            "validation": {"fraction": 0.2},
        },
        "strategy": {"type": "Auto", "auto": {"rungs": [{"type": "FeatureExtraction"}]}},
        "training": {"epochs": 3, "batchSize": 32, "seed": 0},
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            run = Path(folder, str(number))
            file = run.with_suffix(".json")
            job = load_job(job_of(spec, run))
            file.write_text(resolve("bench", "default", job.spec, rendezvous_host="127.0.0.1").to_json())
            threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
            command = [sys.executable, "-m", "bench.rungs", "worker"]
            environment = {**os.environ, **threads, "UNFREEZE_JOB": str(file)}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(found[-1]), file=sys.stderr)
    medians = {name: round(statistics.median(one[name] for one in found), 2) for name in found[0]}
    print(json.dumps({"benchmark": "rungs", "rounds": rounds, "goal": GOAL} | medians, indent=1))


def worker() -> None:
    """Be a worker up to its choice, and print what that took."""
    from unfreeze_trainer import worker as process
    from unfreeze_trainer.training.decisions import Decisions
    from unfreeze_trainer.training.evaluator import Evaluator
    from unfreeze_trainer.training.ladder import Ladder
    from unfreeze_trainer.training.solver import Solver

    took: dict[str, float] = {}
    for owner, name, what in (
        (Ladder, "compare", "classical"),
        (Solver, "solve", "head"),
        (Evaluator, "measure", "evaluation"),
    ):
        setattr(owner, name, _timed(getattr(owner, name), what, took))
    add = Decisions.add

    def chosen(self: Decisions, decision: Any) -> None:
        add(self, decision)
        if decision.type == "Strategy":
            whole = _seconds()
            floor = whole - took["classical"] - took["head"]
            print(json.dumps(took | {"whole": whole, "floor": floor, "of_floor": whole / floor}), flush=True)
            os._exit(0)

    Decisions.add = chosen  # type: ignore[method-assign]
    process.main()


def _timed(call: Callable[..., Any], what: str, took: dict[str, float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        took.setdefault(f"before {what}", _seconds())
        start = _seconds()
        result = call(*given, **named)
        took[what] = took.get(what, 0.0) + _seconds() - start
        return result

    return timed


def _seconds() -> float:
    """Return the processor time of this process, and of those that it has waited for."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        worker()
    else:
        main()
