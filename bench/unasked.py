"""What judgement costs a job that asks for none of it: a worker's start to its first step, with and without its code.

    python -m bench.unasked [ROUNDS]

Prints JSON: of a job without candidates, `rates: Auto`, budget or evidence, the ratio of both starts, taken in turns, by
the clock and by processor time (the median of the turns' ratios, and the interval of that median), and what the look at the memory takes before a model is loaded:
of MiniLM, which plainly fits, and of a BERT of twelve layers, which is estimated.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.startup import EXAMPLES, ROOT
from examples.prepare import prepare
from unfreeze_api.resolve import resolve
from unfreeze_api.spec.job import FineTuneJobSpec
from unfreeze_trainer.link import LINK_ENV

GONE = (
    "estimates.check",
    "runs.choice",
    "runs.rates",
    "runs.spent",
    "training.forgetting",
    "training.hold",
    "training.ladder",
    "training.range_test",
    "training.replay",
    "training.rollback",
    "training.solver",
    "training.spending",
)
"""Modules of the trainer that a contender does without."""

_WORKER = """
import json, os, sys, time
from importlib import import_module
from types import ModuleType

class Nothing:
    def __init__(self, *_, **__): pass
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        return Nothing()
    def __call__(self, *_, **__): return None
    def __bool__(self): return False
    def __iter__(self): return iter(())

class Absent(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        if name in ("WentBack", "BudgetOver"): return type(name, (Exception,), {})
        if name == "with_solver": return lambda job, *_, **__: job
        return Nothing if name[0].isupper() else Nothing()

for name in sys.argv[1:]:
    sys.modules["unfreeze_trainer." + name] = Absent("unfreeze_trainer." + name)

from unfreeze_api.contracts.resolved import ResolvedJob
from unfreeze_trainer.agent.libraries import libraries_of

with open(os.environ["UNFREEZE_JOB"]) as file:
    job = ResolvedJob.model_validate_json(file.read())
for library in libraries_of(job):  # as the process has that an agent forks its workers from
    import_module(library)

from unfreeze_trainer import worker
from unfreeze_trainer.training import loop

look, took = worker.check_memory, {}

def now():
    return {"clock": time.monotonic(), "processor": sum(os.times()[:4])}

def timed(*given):
    began = now()
    look(*given)
    took.update({kind: seconds - began[kind] for kind, seconds in now().items()})

def first_step(*_):
    print(json.dumps(now() | {"look": took}), flush=True)
    os._exit(0)

worker.check_memory, loop.seed_everything = timed, first_step
worker.main()
"""


def start(job: str, *without: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of a worker's start to its first step, and those of the look at the memory: by the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "job.json")
        file.write_text(job.replace("RUN", f"{folder}/run"))
        own = {"UNFREEZE_JOB": str(file), LINK_ENV: folder, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        own["PYTHONDONTWRITEBYTECODE"] = ""  # modules are compiled once, as an image has them
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", _WORKER, *without],
            env=os.environ | own,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"the worker has not come to its first step: {done.stderr[-2000:]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    return {"clock": seen["clock"] - began, "processor": seen["processor"]}, seen["look"]


def job_of(model: Path, **spec: Any) -> str:
    """Return job.json of a plain job on TREC's questions."""
    whole = {
        "model": {"source": f"file://{model}"},
        "task": {"type": "TextClassification"},
        "data": {
            "train": {"source": f"file://{EXAMPLES}/data/trec-train-1000.csv", "columns": {"text": "question"}},
            "validation": {"fraction": 0.1},
        },
        "strategy": {"type": "FullFineTuning"},
        "training": {"batchSize": 16},
        "output": {"destination": "file:///RUN"},
    }
    job = FineTuneJobSpec.model_validate(whole | spec)
    return resolve("bench", "default", job, rendezvous_host="127.0.0.1").to_json().replace("/RUN", "RUN")


def twelve_layers(folder: Path) -> Path:
    """Write a BERT as large as BERT-base, whose weights are random, with MiniLM's tokenizer."""
    os.environ.setdefault(
        "DS_ACCELERATOR", "cpu"
    )  # DeepSpeed, which writing a model imports, would warn among the results
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(EXAMPLES / "models" / "minilm", trust_remote_code=False)
    tokenizer.save_pretrained(folder)
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    return folder


def ratios(values: list[float]) -> list[float]:
    """Return the median, and a 95 % interval of it by 10,000 draws of the turns."""
    drawn = np.random.default_rng(0).choice(values, (10_000, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return [round(float(value), 3) for value in (statistics.median(values), low, high)]


def main() -> None:
    """Measure and print."""
    prepare(EXAMPLES)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    small = job_of(EXAMPLES / "models" / "minilm")
    start(small), start(small, *GONE)  # files come into the page cache
    turns = []
    for number in range(rounds):  # who begins changes, since neighbours come and go
        both = [
            start(small, *(GONE if without else ())) for without in ((False, True) if number % 2 else (True, False))
        ]
        turns.append(both if number % 2 else both[::-1])
    result: dict[str, Any] = {
        kind: {
            "with_s": round(statistics.median(ours[kind] for (ours, _), _ in turns), 2),
            "without_s": round(statistics.median(bare[kind] for _, (bare, _) in turns), 2),
            "ratio": ratios([ours[kind] / bare[kind] for (ours, _), (bare, _) in turns]),
            "ratio_without_look": ratios([(ours[kind] - look[kind]) / bare[kind] for (ours, look), (bare, _) in turns]),
        }
        for kind in ("clock", "processor")
    }
    looks = {"MiniLM": [look for (_, look), _ in turns]}
    with tempfile.TemporaryDirectory() as folder:
        base = twelve_layers(Path(folder))
        for name, spec in (
            ("12 layers", {}),
            ("12 layers, FSDP", {"distribution": {"engine": "FSDP"}}),
            ("12 layers, LoRA", {"adapter": {"type": "LoRA"}}),
        ):
            looks[name] = [start(job_of(base, **spec))[1] for _ in range(max(1, rounds // 2))]
    result["look_s"] = {
        name: {kind: round(statistics.median(each[kind] for each in found), 2) for kind in ("clock", "processor")}
        for name, found in looks.items()
    }
    print(json.dumps({"benchmark": "unasked", "rounds": rounds} | result, indent=1))


if __name__ == "__main__":
    main()
